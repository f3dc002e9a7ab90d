"""Which keys the values of this database need, each with a canary that only the right key opens.

Theory of operation. A row stands for a key by which values are, or may be, sealed; the row PLAIN
for values from before there were keys. Who seals looks, in the same transaction, that its key has a
row; a row goes only in a transaction that has seen that no value needs its key. Both hold the store
lock. So no value is ever sealed with a key that is not named here, whatever several processes with
different first keys do, and whenever one of them dies.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from apiserver.store import sealing
from apiserver.store.keyfile import BadKeys, KeyFile
from apiserver.store.prepared import Prepared
from apiserver.store.sealing import PLAIN, Keyring, Unopenable
from apiserver.store.tables import ENCRYPTION_KEY, META

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot

_NAMED = Prepared(select(ENCRYPTION_KEY.c.name).where(ENCRYPTION_KEY.c.name == bindparam("name")))
_CANARY = b"canary"


def unlocked(connection: Connection, file: KeyFile | None, store_uid: str) -> Keyring:
    """The keys of a database that is being opened, which are the right ones. Raises BadKeys.

    Without `file` nothing is sealed: that is for databases that never had keys.
    """
    canaries = {row.name: row.canary for row in connection.execute(select(ENCRYPTION_KEY))}
    needed = sorted(name for name in canaries if name != PLAIN)
    keys = Keyring() if file is None else file.read()
    if keys is None:
        if needed:
            assert file is not None, "no file is an empty ring"
            raise BadKeys(
                f"values in the database are encrypted with the key {', '.join(needed)}, and "
                f"there is no {file.path}; put it there, from another server of this database or "
                "from a backup"
            )
        assert file is not None, "no file is an empty ring"
        keys = file.make()
    _check(keys, {name: canaries[name] for name in needed}, file, store_uid)
    keys.canaries = len(needed)
    if keys.first != PLAIN:
        name(connection, keys, store_uid, is_new=not canaries)
    return keys


def _check(keys: Keyring, canaries: dict[str, str], file: KeyFile | None, store_uid: str) -> None:
    where = "what was given here" if file is None else str(file.path)
    for name, canary in canaries.items():
        if not keys.has(name):
            raise BadKeys(
                f"values in the database are encrypted with the key {name}, which is not in "
                f"{where}; put that key back, and let a server finish before you take it out"
            )
        try:
            keys.open(name, base64.b64decode(canary), sealing.about_canary(store_uid, name))
        except Unopenable as error:
            raise BadKeys(
                f"the key {name} in {where} is not the key {name} with which values in the "
                "database are encrypted; this is the key file of something else"
            ) from error


def name(connection: Connection, keys: Keyring, store_uid: str, *, is_new: bool = False) -> None:
    """Note that values are sealed by the first key, and, if that `is_new`, that some are plain."""
    if _NAMED.first(connection, {"name": keys.first}) is not None:
        return
    sealed = keys.seal(_CANARY, sealing.about_canary(store_uid, keys.first))
    rows = [{"name": keys.first, "canary": base64.b64encode(sealed).decode()}]
    if is_new:
        rows.append({"name": PLAIN, "canary": ""})
    connection.execute(insert(ENCRYPTION_KEY), rows)


def others(snapshot: Snapshot) -> list[str]:
    """The keys, PLAIN among them, of values that are still to be sealed by the first."""
    found = snapshot.connection.execute(select(ENCRYPTION_KEY.c.name)).scalars()
    return sorted(set(found) - {snapshot.keys.first})


def forget(connection: Connection, names: Iterable[str]) -> None:
    """No value needs these keys any more; the caller has looked, in this transaction."""
    connection.execute(delete(ENCRYPTION_KEY).where(ENCRYPTION_KEY.c.name.in_(list(names))))


def reseal_content_key(connection: Connection, keys: Keyring) -> None:
    """Seal the key of digests by the first key."""
    row = connection.execute(select(META.c.content_key, META.c.store_uid)).one()
    about = sealing.about_key(row.store_uid)
    if row.content_key.startswith(f"{keys.first} "):
        return
    sealed = keys.sealed_text(keys.opened_text(row.content_key, about), about)
    connection.execute(update(META).values(content_key=sealed))
