"""Rotation of the authority: a new generation is made, shared, and signs when all have it.

Theory of operation. A new generation is decided in the store, in one transaction: the first row of
a number counts, whichever process wrote it. The row is sealed under the root key of the generation
before, which every process of this authority has; who reads only the database learns nothing. Each
process looks every LOOK_S, writes to its own directory what that lacks, and trusts it from then on.
It begins to sign at a moment that the row says, the same for all, and later than all have looked.

Who may begin one: this task, when the generation that signs has less than a third of its life left;
and a person, by a file in the directory, which `python -m apiserver ca` writes. The file names the
number that is wanted, so that a crash between the deed and the removal of the file does it once.

Devices need not know a new root before it is used: the server's certificate comes with the root's
certificates by all older roots (`generations.follow`). They are given the new root with their next
certificate, and told to fetch that soon while theirs is of an older generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from apiserver.pki import generations
from apiserver.pki.authority import Authority
from apiserver.pki.generations import Generation
from apiserver.store import Store, Transaction, authorities

LOOK_S = 2.0
# Until a new generation signs: every process looks many times before.
OVERLAP_S = 60.0
# Nothing presses so long before the end: 100 000 devices are 10 a minute.
RENEW_WITHIN_S = 7 * 86_400
# A year is the life of a device's certificate; the older generation must outlive the last of them.
ROTATE_BEFORE_END = generations.CA_LIFETIME / 3
# How often certificates of servers and of the administrator are looked at without another cause.
REFRESH_S = 3600.0

# Files of requests, and what is told of them.
WANTED, ENDED = ROTATE, END = "rotate", "end"
BY_MAX = 100

# Called in the transaction that decides it: what is done (`rotate`, `end`), to which generation,
# and by whom, as far as a command said; empty where this task saw that it was due.
Told = Callable[[Transaction, str, int, str], None]

log = structlog.get_logger()


def _to_nobody(tx: Transaction, verb: str, number: int, by: str) -> None:
    pass


class Rotation:
    """Keeps the authority of this process as the store has it. `put_in_force` is called when
    something changed, from the start on, and now and then; `told` writes down who changed it."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        now: Callable[[], datetime],
        put_in_force: Callable[[], Awaitable[None]],
        told: Told = _to_nobody,
    ) -> None:
        self._store = store
        self._authority = authority
        self._now = now
        self._put_in_force = put_in_force
        self._told = told
        self._in_force: object = None

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:  # the next look tries again; what is in force stays so
                log.error("authority could not be kept", exc_info=True)

    async def look(self) -> None:
        """One round."""
        await self.share()
        await self._do_what_is_wanted()
        if self._authority.signing.ends_at - self._now() < ROTATE_BEFORE_END:
            await self.rotate(OVERLAP_S, RENEW_WITHIN_S)
        due = int(self._now().timestamp() // REFRESH_S)
        state = (self._authority.signing.number, self._authority.client_ca_pem, due)
        if state != self._in_force:
            await self._put_in_force()
            self._in_force = state

    async def rotate(
        self, overlap_s: float, renew_within_s: int, number: int = 0, by: str = ""
    ) -> None:
        """Make the generation `number`, or the next; nothing if it is there, or if one that was
        made before has not begun to sign."""
        known, now = self._authority.generations, self._now()
        last = known[-1]
        if last.signs_from > now or (number and last.number >= number):
            return
        signs_from = now + timedelta(seconds=overlap_s)
        made = await asyncio.to_thread(generations.follow, known, signs_from, renew_within_s, now)
        await self._share_one(made, last, by=by, is_decided_here=True)
        # Whoever was first: it is in the store now, and comes from there.
        await self.share()
        log.info("authority rotated", generation=made.number, signs_from=signs_from.isoformat())

    async def share(self) -> None:
        """What the store has, into the directory, and the other way round. Raises
        AuthorityDamaged."""
        rows = await self._store.read(authorities.all_of)
        is_changed = False
        for row in rows:
            is_changed |= await asyncio.to_thread(self._take, row)
        if is_changed:
            await asyncio.to_thread(self._authority.reload)
        before: Generation | None = None
        for each in self._authority.generations:
            if each.number not in {row.number for row in rows}:
                await self._share_one(each, before)
            before = each

    async def _share_one(
        self,
        made: Generation,
        before: Generation | None,
        *,
        by: str = "",
        is_decided_here: bool = False,
    ) -> None:
        sealed = generations.seal(made, before) if before else ""

        def add(tx: Transaction) -> None:
            is_new = authorities.add(tx, made.number, made.root.key_id, sealed)
            if is_new and is_decided_here:
                self._told(tx, ROTATE, made.number, by)

        await self._store.write(add)

    def _take(self, row: authorities.Shared) -> bool:
        """Whether the directory lacked something of it."""
        directory = self._authority.directory
        ours = {each.number: each for each in self._authority.generations}.get(row.number)
        if ours is None:
            if not generations.place(directory, row.number).exists():
                before = generations.load_or_create(directory, self._now())[-1]
                generations.unseal(row.sealed, before, directory)
            return True
        if ours.root.key_id != row.fingerprint:
            raise generations.AuthorityDamaged(
                f"generation {row.number} of the authority in {directory} is not the one in the "
                "database; put the pki directory of a server that has that in its place"
            )
        if row.trusted_until and ours.trusted_until is None:
            file = generations.place(directory, row.number) / generations.TRUSTED_UNTIL
            generations.write(file, row.trusted_until.encode())
            return True
        return False

    async def _do_what_is_wanted(self) -> None:
        wanted = _asked(self._authority.directory / WANTED)
        if wanted is not None:
            await self.rotate(
                wanted.overlap_s, int(wanted.renew_within_s), wanted.number, wanted.by
            )
            (self._authority.directory / WANTED).unlink(missing_ok=True)
        ended = _asked(self._authority.directory / ENDED)
        if ended is not None:
            await self._end(ended.number, ended.by)
            (self._authority.directory / ENDED).unlink(missing_ok=True)

    async def _end(self, number: int, by: str) -> None:
        if number >= self._authority.signing.number:
            log.error("a generation that signs can't be ended", generation=number)
            return
        at = self._now().isoformat()

        def end(tx: Transaction) -> None:
            if authorities.end(tx, number, at):
                self._told(tx, END, number, by)

        await self._store.write(end)
        await self.share()
        log.info("authority ended", generation=number)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person's command wants of the server."""

    number: int
    overlap_s: float = 0.0
    renew_within_s: float = 0.0
    by: str = ""

    def text(self) -> str:
        return f"{self.number} {self.overlap_s} {self.renew_within_s} {self.by}"


def _asked(path: Path) -> Asked | None:
    """The request in a file, if there is one."""
    try:
        number, overlap_s, renew_within_s, *by = path.read_text().split()
        return Asked(int(number), float(overlap_s), float(renew_within_s), " ".join(by)[:BY_MAX])
    except FileNotFoundError:
        return None
    except ValueError:
        log.error("file removed: it is no request", path=str(path))
        path.unlink(missing_ok=True)
        return None
