"""Whether anything can have moved since podman and systemd were asked last.

To ask them takes 45 ms of processor time, which every half minute is three times what all the rest
of an agent at rest takes. What runs can be watched for nothing: while the process of each container
and of each unit is there, begun when it was, none was stopped, died or was started again; and what
a health check has found podman writes into a file. So for as long as all of that holds, what they
answered last counts as what they would answer now, for five minutes at most. Seen that late is only
what leaves every process alone: a container that somebody pauses, or makes beside ours.

That holds for users of the device as for root: their processes are in the same /proc, and what
their health checks found is read on ways on which they lead nobody astray (`walking`). Where they
do, nothing is read, and they are asked. They may lie in that file: it is about what is theirs.

What lies in a user's folders is another child's answer, as dear as podman's. It counts for as long
as root sees the same times of change there, which no owner of a file can set.

The invariant: what cannot be watched is asked for at each look, a container that does not run or is
not healthy above all; and so is everything while there is something to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agent import planner, systemd, world
from agent.accounts import Accounts

Json = dict[str, Any]

QUICK_S = 60.0
ANSWERS_HOLD_S = 300.0
# podman keeps the last five results; it may be a user who wrote it.
HEALTH_BYTES_MAX = 1 << 20
RUNNING, HEALTHY = "running", "healthy"
# Of /proc/PID/stat, behind the name, which may hold anything: when the process began.
_BEGAN = 19


class Pulse:
    """For one thread. An observation is `look`, then questions, and what to watch by their answers;
    `disturb` where it says that something is to be done."""

    def __init__(self, where: world.World, accounts: Accounts) -> None:
        self._world = where
        self._accounts = accounts
        # User, then words of the command -> what it said.
        self._answers: dict[tuple[str, ...], world.Completed] = {}
        # User -> what was asked, by which times, and the answer.
        self._folders: dict[str, tuple[Json, Mapping[str, int], Json]] = {}
        self._asked_at = 0.0
        self._began: dict[int, str] = {}
        self._healthy: set[str] = set()
        self._is_blind = False

    def look(self, *, closely: bool) -> None:
        """Begins an observation; unless `closely`, by the last answers if they still hold."""
        if closely or not self._is_steady():
            self.disturb()

    def disturb(self) -> None:
        """Nothing that was answered counts any more."""
        self._answers.clear()
        self._folders.clear()
        self._began.clear()
        self._healthy.clear()
        self._is_blind = False

    def ask(self, argv: Sequence[str], user: str = "") -> world.Completed:
        """A command that changes nothing, as `user`; empty = root."""
        key = (user, *argv)
        known = self._answers.get(key)
        if known is not None:
            return known
        if not self._answers:
            self._asked_at = self._world.monotonic()
        answer = self._accounts.run(user, argv, timeout_s=QUICK_S)
        if answer.ok:
            self._answers[key] = answer
        return answer

    def look_into(
        self,
        user: str,
        question: Json,
        times: Mapping[str, int] | None,
        ask: Callable[[], Json],
    ) -> Json:
        """What `user` answers about their folders. `times` of all that is in them, taken before
        this call; None = they cannot be seen.

        Safe because `ask` begins a process, and so looks later than a tick of the clock by which
        the kernel notes changes: what changes after that look has another time than was seen."""
        known = self._folders.get(user)
        if known is not None and times is not None and known[:2] == (question, times):
            return known[2]
        answer = ask()
        if times is not None:
            self._folders[user] = (question, times, answer)
        return answer

    def watch_containers(self, found: Iterable[planner.Container]) -> None:
        for one in found:
            if one.state == RUNNING:
                self._watch(one.pid)
            else:
                self._is_blind = True
            if one.has_healthcheck and one.health != HEALTHY:
                self._is_blind = True
            elif one.has_healthcheck:
                self._healthy.add(one.health_log)

    def watch_units(self, found: Iterable[systemd.Unit]) -> None:
        """A unit without a process (a target, a network) is as well as those that need it."""
        for one in found:
            if not one.is_up:
                self._is_blind = True
            elif one.pid:
                self._watch(one.pid)

    def _watch(self, pid: int) -> None:
        if pid not in self._began:
            # NB race: one that ended since podman answered is not there, so nothing is steady; and
            # its number is not given out again so soon.
            self._began[pid] = began = self._when_began(pid)
            self._is_blind = self._is_blind or not began

    def _is_steady(self) -> bool:
        return (
            not self._is_blind
            and bool(self._answers)
            and self._world.monotonic() - self._asked_at < ANSWERS_HOLD_S
            and all(self._when_began(pid) == began for pid, began in self._began.items())
            and all(self._is_healthy(path) for path in self._healthy)
        )

    def _when_began(self, pid: int) -> str:
        """Empty = there is no such process, or not where we look."""
        try:
            found = (self._world.read(f"/proc/{pid}/stat") or b"").decode(errors="replace")
        except OSError:
            return ""
        fields = found.rpartition(")")[2].split()
        return fields[_BEGAN] if len(fields) > _BEGAN else ""

    def _is_healthy(self, path: str) -> bool:
        try:
            held = self._world.hold(path, bytes_max=HEALTH_BYTES_MAX) if path else None
            found = json.loads(held.data or b"") if held is not None else None
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("Status") == HEALTHY
