"""Everything outside the agent's own memory, as one Protocol.

The invariant: no other module of the agent's core reads a clock, touches a disk, runs a command
or reboots. So a simulated world can hold the agent, crash it at any effect and start it again.
Paths are the device's absolute paths; an implementation may put a root in front of them.

Effects (the calls that change something) are durable when they return: `write`, `append`,
`symlink`, `remove` and `mkdir` have reached the disk, with their directory entries. A crash inside
`write` or `symlink` leaves the old or the new; inside `append` it may leave a torn end.

Root follows links that only root can have put where they are; over others there is no way, but
`Astray`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from resources.records import dataclass

FILE = "file"
DIRECTORY = "directory"
LINK = "link"
OTHER = "other"

TIMED_OUT = 124
NOT_STARTED = -1


@dataclass(frozen=True, slots=True)
class Stat:
    """`mode` holds permission bits with setuid, setgid and sticky; links are not followed."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int


@dataclass(frozen=True, slots=True)
class Held:
    """What is at a path, all of it seen of the same file: nobody can exchange it in between.
    `data` of a file, None where it is larger than was asked for; `target` of a link."""

    stat: Stat
    data: bytes | None = None
    target: str = ""


class Astray(OSError):
    """The path leads over a link that somebody else than root may have put there."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended: 124 = out of time, 137 = killed, -1 = could not be started."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def words(self) -> str:
        """What to show a person: the errors, or the output where there are none."""
        return (self.stderr or self.stdout).strip()


class World(Protocol):
    def now(self) -> datetime:
        """Wall clock, UTC; may jump. For what people read, never for deadlines."""

    def monotonic(self) -> float:
        """Seconds that never go back; mean nothing after a reboot."""

    def sleep(self, seconds: float) -> None:
        """Returns early, at once, when `wake` was called since the last sleep ended."""

    def wake(self) -> None:
        """May be called from any thread."""

    def random(self) -> float: ...

    def read(self, path: str) -> bytes | None:
        """None = there is no such thing; any other trouble is an OSError."""

    def stat(self, path: str) -> Stat | None: ...

    def touched_ns(self, path: str) -> int:
        """When anything about it changed last, by a clock that its owner cannot set; 0 = there is
        no such thing. A folder changes with the names in it; a link at the end is not followed.
        Raises OSError."""

    def hold(self, path: str, *, bytes_max: int) -> Held | None:
        """`stat`, and with it what is in a file or a link. Raises OSError."""

    def listdir(self, path: str) -> list[str]:
        """Names, sorted; nothing where there is no such directory."""

    def read_link(self, path: str) -> str: ...

    def write(self, path: str, data: bytes, *, mode: int, uid: int, gid: int) -> None:
        """Atomically; the parent must exist."""

    def append(self, path: str, data: bytes) -> None:
        """Creates with mode 0600."""

    def symlink(self, path: str, target: str) -> None:
        """Atomically, over whatever file or link is there."""

    def remove(self, path: str) -> None:
        """A file, a link or an empty directory; fine when it is gone already."""

    def shred(self, path: str) -> None:
        """Overwrites a file in place before it is removed, for what it is worth on flash."""

    def mkdir(self, path: str, *, mode: int = 0o755) -> None:
        """With its parents; a directory that is there is left as it is."""

    def real(self, path: str) -> str:
        """`path` without the links in its folders; a link at its end is not followed."""

    def label(self, path: str) -> str:
        """The SELinux label of a file or link; empty = none, or not known."""

    def put_label(self, path: str, label: str) -> None:
        """Raises OSError, also where the file has another name, which may be anybody's."""

    def boot_id(self) -> str: ...

    def is_whole_machine(self) -> bool:
        """False below a root of its own, where the running system is not ours to replace."""

    def pid(self) -> int:
        """The agent's process number, for children that want to signal it."""

    def uid_of(self, user: str) -> int | None:
        """Name or number; None = nobody here is called so."""

    def gid_of(self, group: str) -> int | None: ...

    def account_of(self, user: str) -> Account | None:
        """Name or number; None = nobody here is called so."""

    def cgroup_controllers(self) -> frozenset[str]:
        """What this machine can limit: of `cpu`, `memory`, ..."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Completed:
        """Never raises for what the command does. `env` is added to the agent's own."""

    def reboot(self) -> None:
        """Orders it; returns before it happens. Under a root it ends nothing but says so."""
