"""The store as the rest of the API server knows it: read a snapshot, write a mutation, wait."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from apiserver.store import commits, keys, leases, sealing
from apiserver.store.contents import Documents
from apiserver.store.database import Database, StoreUnavailable
from apiserver.store.hub import Hub
from apiserver.store.keyfile import KeyFile
from apiserver.store.newsworthy import Announce, Announced
from apiserver.store.sealing import Keyring, Observer
from apiserver.store.sequencer import Sequencer
from apiserver.store.snapshot import Snapshot, Transaction
from apiserver.store.sqlite import SqliteDatabase
from apiserver.store.stirring import Witnesses
from apiserver.store.tables import META

T = TypeVar("T")
Clock = Callable[[], datetime]
BacklogHook = Callable[[Transaction, str], None]


def utc_now() -> datetime:
    return datetime.now(UTC)


def _no_backlog(_tx: Transaction, _namespace: str) -> None:
    """Nobody keeps a backlog: tools and tests that only store objects."""


def _no_announcer(_tx: Transaction, _news: Announced) -> None:
    """Nobody tells people: the same."""


class Store:
    """Opened by one process; on SQLite by one process only."""

    def __init__(self, database: Database, version: int, keyring: Keyring, clock: Clock) -> None:
        self.hub = Hub(version)
        self.database = database
        self._clock = clock
        self._keys = keyring
        self._documents = Documents(keyring)
        self._writer = str(uuid4())
        self._backlog_hook: BacklogHook = _no_backlog
        self._announcer: Announce = _no_announcer
        self._witnesses = Witnesses()
        self._sequencer = Sequencer(
            database, self._begin, self.hub, writer=self._writer, is_there=commits.is_there
        )
        self._follower: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        url: str = "",
        *,
        data_dir: Path | None = None,
        key_file: KeyFile | None = None,
        clock: Clock = utc_now,
    ) -> Store:
        """Open the database at `url`, or `data_dir/homeport.db`. Migrates it first. Without
        `key_file` nothing is encrypted, and what is cannot be read.

        Raises StoreLocked, StoreTooNew, StoreUnavailable, BadKeys.
        """
        database = await open_database(url, data_dir)
        try:
            return await cls.over(database, key_file=key_file, clock=clock)
        except BaseException:
            await database.close()
            raise

    @classmethod
    async def over(
        cls, database: Database, *, key_file: KeyFile | None = None, clock: Clock = utc_now
    ) -> Store:
        """A store over an open database; tests bring one that dies where they want."""
        version, keyring = await database.transact(lambda c: _unlocked_meta(c, key_file))
        store = cls(database, version, keyring, clock)
        store._sequencer.start()
        follow = database.follow(store.hub.heard)
        store._follower = asyncio.get_running_loop().create_task(follow, name="store-follower")
        return store

    def keep_backlog(self, hook: BacklogHook) -> None:
        """`hook` runs before a commit in each namespace whose devices to render changed."""
        self._backlog_hook = hook

    def announce_by(self, hook: Announce) -> None:
        """`hook` runs before a commit with what is to be told of devices."""
        self._announcer = hook

    def now(self) -> datetime:
        return self._clock()

    async def read(self, query: Callable[[Snapshot], T]) -> T:
        dialect, documents, keyring = self.database.dialect, self._documents, self._keys
        return await self.database.read(lambda c: query(Snapshot(c, dialect, documents, keyring)))

    async def write(
        self,
        mutation: Callable[[Transaction], T],
        *,
        dry_run: bool = False,
        is_urgent: bool = False,
    ) -> T:
        """The result of `mutation`, after its commit. `mutation` may run twice; it must have no
        effect outside its transaction. What is urgent goes before all that waits. Raises what it
        raised, or StoreBusy."""
        if dry_run:
            return await self._sequencer.rehearse(mutation)
        return await self._sequencer.submit(mutation, is_urgent=is_urgent)

    async def reach(self, version: int, timeout_s: float) -> int:
        """The newest version, as soon as it is `version` or above, at the latest after that time.

        Another process may have told a client of a version before this one has heard of it.
        """
        if self.hub.version < version:
            self.hub.heard(await self.read(lambda snapshot: snapshot.version))
        return await self.hub.wait(version - 1, timeout_s)

    async def lease(self, name: str, for_s: float) -> bool:
        """Whether this process, of all on this store, is the one to do `name` for now."""
        if self.database.dialect.is_sqlite:
            return True  # there is no other, so a restart need not wait for the end of a lease
        return await self.write(lambda tx: leases.take(tx, name, self._writer, for_s))

    async def share_authority(self, fingerprint: str) -> bool:
        """Whether the other processes on this store have the authority with this fingerprint; the
        first one says which it is."""
        if self.database.dialect.is_sqlite:
            return True  # one directory holds both

        def share(tx: Transaction) -> bool:
            known = tx.connection.execute(select(META.c.authority)).scalar_one()
            if not known:
                tx.connection.execute(update(META).values(authority=fingerprint))
                tx.writes += 1
            return known in ("", fingerprint)

        return await self.write(share)

    async def close(self) -> None:
        self.hub.close()
        await self._sequencer.close()
        if self._follower is not None:
            self._follower.cancel()
            with suppress(asyncio.CancelledError):
                await self._follower
        await self.database.close()

    def observe_keys(self, observer: Observer) -> tuple[str, int]:
        """Have it told of each value that is sealed or opened from now on. The name of the key that
        writes, empty for none, and how many keys were found to be the right ones at the start."""
        self._keys.observer = observer
        return self._keys.first, self._keys.canaries

    def _begin(self, connection: Connection) -> Transaction:
        return Transaction(
            connection,
            self.database.dialect,
            self._documents,
            self._keys,
            now=self._clock(),
            before_finish=self._backlog_hook,
            announcer=self._announcer,
            note=self.hub.note,
            witnesses=self._witnesses,
        )


async def open_database(url: str, data_dir: Path | None) -> Database:
    if url.startswith("postgresql"):
        # Late, for who has SQLite has no need of its driver: 7 MB.
        from apiserver.store.postgres import PostgresDatabase

        return await PostgresDatabase.open(url, data_dir)
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
    elif not url and data_dir is not None:
        path = data_dir / "homeport.db"
    else:
        raise StoreUnavailable(f'cannot use "{url}"; give sqlite:///PATH or postgresql://...')
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    return await asyncio.to_thread(SqliteDatabase, path)


def _unlocked_meta(connection: Connection, key_file: KeyFile | None) -> tuple[int, Keyring]:
    """The version of the store and its keys. Nothing is written before the keys are right."""
    found = connection.execute(select(META)).one_or_none()
    uid = str(uuid4()) if found is None else found.store_uid
    keyring = keys.unlocked(connection, key_file, uid)
    if found is not None and found.content_key:
        return int(found.version), keyring
    key = keyring.sealed_text(secrets.token_hex(32), sealing.about_key(uid))
    if found is not None:
        # A store that is older than the key.
        connection.execute(update(META).values(content_key=key))
        return int(found.version), keyring
    first = {"id": 1, "store_uid": uid, "version": 0, "compacted": 0, "content_key": key}
    connection.execute(insert(META), first | {"event_version": 0})
    return 0, keyring
