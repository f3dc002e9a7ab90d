"""[simulated] `World` in memory: virtual clock, disk, podman; dies at any effect that you name.

An effect is a call that changes something. `crash_at = (k, kind)` kills the agent at the k-th:
- `before`: it has not happened;
- `unsynced`: it was under way. A write is the old or the new (and its temporary file may stay), an
  append is torn anywhere, a command was not begun, half done, or is finished behind the agent;
- `after`: it has happened, and the agent does not live to know.

The effects that are durable when they return are durable here too: that the real world keeps that
promise is for its own tests.
"""

from __future__ import annotations

import json
import posixpath
import random
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from agent import accounts, homefiles, quadlet, world
from agent import systemd as agent_systemd
from tests.fakes.sim_bootc import SimBootc
from tests.fakes.sim_podman import SimPodman
from tests.fakes.sim_systemd import SimSystemd, compose_up

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
KINDS = ("before", "unsynced", "after")
USERS = {"root": 0, "web": 1001, "ops": 1002}
# What the agent leaves below /run does not outlive a boot.
VOLATILE = ("/run/flightctl",)


class Crash(BaseException):
    """Nobody catches this but the test."""


@dataclass(frozen=True)
class Node:
    kind: str
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass
class Own:
    """What a user has of their own, where applications run for them."""

    podman: SimPodman
    systemd: SimSystemd


class SimWorld:
    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.nodes: dict[str, Node] = {"/": Node(world.DIRECTORY, mode=0o755)}
        self.elapsed_s = 0.0
        self.booted_s = 0.0
        self.boots = 1
        self.podman = SimPodman(lambda: self.elapsed_s)
        self.systemd: SimSystemd | None = None
        # By number; those who linger.
        self.owned: dict[int, Own] = {}
        # Programs that hooks may call -> their exit status; the calls that were made.
        self.hooks: dict[str, int] = {}
        self.hooked: list[tuple[str, ...]] = []
        self.effects: list[str] = []
        self.crash_at: dict[int, str] = {}
        self.reboots_ordered = 0
        # An image-based system, where the device has one.
        self.system: SimBootc | None = None
        self.is_going_down = False
        self.controllers = frozenset({"cpu", "memory"})
        self.full = False
        self.is_woken = False
        self.wake_after: list[float] = []
        self.is_full: Callable[[], bool] = lambda: False
        # Folders that somebody else than root has put a link in the place of: closed to root, and
        # here to all, for commands of users go through the same files.
        self.closed: set[str] = set()
        # What the wall clock is wrong by, and what each command takes longer than it should.
        self.clock_off_s = 0.0
        self.slowness_s = 0.0
        # Where podman shares the network of the agent.
        self.has_network: Callable[[], bool] | None = None
        # Whether other threads have the floor while a command runs.
        self.is_shared = False
        # Where the agent is one of several threads: how it gives the floor.
        self.stage_wait: Callable[[float, Callable[[], bool]], bool] | None = None

    def twin(self, seed: int) -> SimWorld:
        """The same device again, for another fate."""
        other = SimWorld(seed)
        other.nodes = dict(self.nodes)
        other.elapsed_s, other.booted_s, other.boots = self.elapsed_s, self.booted_s, self.boots
        other.podman = self.podman.copy(lambda: other.elapsed_s)
        other.closed = set(self.closed)
        other.controllers, other.clock_off_s = self.controllers, self.clock_off_s
        other.is_shared = self.is_shared
        other.hooks = dict(self.hooks)
        other.system = self.system.copy() if self.system is not None else None
        if self.systemd is not None:
            other.systemd = self.systemd.copy(other.podman)
        for uid, own in self.owned.items():
            copied = own.podman.copy(lambda: other.elapsed_s)
            other.owned[uid] = Own(copied, own.systemd.copy(copied))
        return other

    def look(self) -> None:
        """What the machine does by itself as time passes."""
        red_s = self.system.red_after_s() if self.system is not None else None
        if red_s is not None and self.monotonic() >= red_s:
            self.is_going_down = True

    def power_cut(self) -> None:
        self._boot(is_clean=False)

    def restart(self) -> None:
        """The reboot that was ordered, in order."""
        self._boot(is_clean=True)

    def through_crashes(self, live: Callable[[], object], *, power: bool) -> int:
        """`live` again after each crash, until one gets through; how many there were. With `power`
        each is a power cut, else of the agent, or the end of a reboot that was ordered."""
        crashes = 0
        while True:
            try:
                live()
            except Crash:
                crashes += 1
                if power:
                    self.power_cut()
                elif self.is_going_down:
                    self.restart()
            else:
                return crashes

    def _boot(self, *, is_clean: bool) -> None:
        self.is_going_down = False
        self.nodes = {p: n for p, n in self.nodes.items() if not p.startswith(VOLATILE)}
        boots = 1
        if self.system is not None:
            mine = {p: n for p, n in self.nodes.items() if p.startswith("/etc/")}
            etc, boots = self.system.boot(mine, is_clean=is_clean)
            self.nodes = {p: n for p, n in self.nodes.items() if p not in mine} | etc
        self.boots += boots
        self.elapsed_s += 20.0 * boots
        self.booted_s = self.elapsed_s
        self.podman.power_cut()
        if self.systemd is not None:
            self.systemd.boot(self.files())
        for own in self.owned.values():
            own.podman.power_cut()
            own.systemd.boot(self.files())

    # Clock.

    def now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed_s + self.clock_off_s)

    def monotonic(self) -> float:
        return self.elapsed_s - self.booted_s

    def sleep(self, seconds: float) -> None:
        if self.stage_wait is not None:
            self.stage_wait(seconds, lambda: self.is_woken)
        elif not self.is_woken:
            self.elapsed_s += max(0.0, seconds)
        self.is_woken = False

    def wake(self) -> None:
        self.is_woken = True

    def random(self) -> float:
        return self.rng.random()

    # Disk.

    def _go(self, path: str) -> None:
        for folder in self.closed:
            if path.startswith(f"{folder}/"):
                words = f"{folder} is a link that root does not follow"
                raise world.Astray(40, words, path)

    def read(self, path: str) -> bytes | None:
        self._go(path)
        node = self.nodes.get(path)
        if node is None:
            return None
        if node.kind == world.DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", path)
        return node.data

    def stat(self, path: str) -> world.Stat | None:
        self._go(path)
        node = self.nodes.get(path)
        if node is None:
            return None
        return world.Stat(node.kind, node.mode, node.uid, node.gid, len(node.data))

    def touched_ns(self, path: str) -> int:
        """No time, but as good: another number where anything is different."""
        node = self.nodes.get(path)
        if node is None:
            return 0
        names = self.listdir(path) if node.kind == world.DIRECTORY else []
        return 1 + zlib.crc32(repr((node, names)).encode())

    def hold(self, path: str, *, bytes_max: int) -> world.Held | None:
        found = self.stat(path)
        if found is None:
            return None
        data = self.nodes[path].data
        if found.kind == world.LINK:
            return world.Held(found, target=data.decode())
        is_read = found.kind == world.FILE and found.size <= bytes_max
        return world.Held(found, data if is_read else None)

    def listdir(self, path: str) -> list[str]:
        self._go(path)
        prefix = path.rstrip("/") + "/"
        names = {p[len(prefix) :] for p in self.nodes if p.startswith(prefix) and p != prefix}
        return sorted(n for n in names if "/" not in n and not n.startswith(".homeport-"))

    def read_link(self, path: str) -> str:
        self._go(path)
        return self.nodes[path].data.decode()

    def write(self, path: str, data: bytes, *, mode: int, uid: int, gid: int) -> None:
        self._put(path, Node(world.FILE, data, mode, uid, gid))

    def symlink(self, path: str, target: str) -> None:
        self._put(path, Node(world.LINK, target.encode(), 0o777))

    def append(self, path: str, data: bytes) -> None:
        self._go(path)
        kind = self._effect(f"append {path}")
        self._room(path)
        old = self.nodes.get(path, Node(world.FILE, b"", 0o600))
        if kind == "unsynced":
            data = data[: self.rng.randrange(len(data) + 1)]
        self.nodes[path] = replace(old, data=old.data + data)
        self._die(kind)

    def remove(self, path: str) -> None:
        self._go(path)
        if path not in self.nodes:
            return
        if self.nodes[path].kind == world.DIRECTORY and self.listdir(path):
            raise OSError(39, "Directory not empty", path)
        kind = self._effect(f"remove {path}")
        if kind != "unsynced" or self.rng.random() < 0.5:
            del self.nodes[path]
        self._die(kind)

    def shred(self, path: str) -> None:
        self.remove(path)

    def mkdir(self, path: str, *, mode: int = 0o755) -> None:
        self._go(path)
        missing = []
        while path not in self.nodes:
            missing.append(path)
            path = posixpath.dirname(path)
        if self.nodes[path].kind != world.DIRECTORY:
            raise NotADirectoryError(20, "Not a directory", path)
        for folder in reversed(missing):
            kind = self._effect(f"mkdir {folder}")
            if kind != "unsynced" or self.rng.random() < 0.5:
                self.nodes[folder] = Node(world.DIRECTORY, mode=mode)
            self._die(kind)

    def real(self, path: str) -> str:
        self._go(path)
        return path

    def label(self, path: str) -> str:
        return ""

    def put_label(self, path: str, label: str) -> None:
        raise OSError(95, "Operation not supported", path)

    # Machine.

    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def is_whole_machine(self) -> bool:
        return True

    def pid(self) -> int:
        return 1

    def uid_of(self, user: str) -> int | None:
        return int(user) if user.isdigit() else USERS.get(user)

    def gid_of(self, group: str) -> int | None:
        return self.uid_of(group)

    def account_of(self, user: str) -> world.Account | None:
        for name, uid in USERS.items():
            if user in (name, str(uid)):
                return world.Account(name, uid, uid, f"/home/{name}" if uid else "/root")
        return None

    def cgroup_controllers(self) -> frozenset[str]:
        return self.controllers

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        self._spend(min(0.05 + self.slowness_s, timeout_s))
        is_cut_off = self.has_network is not None and not self.has_network()
        if self.slowness_s > timeout_s:
            return world.Completed(tuple(argv), world.TIMED_OUT, "", "context deadline exceeded")
        if argv[0] == "setpriv":
            return self._run_as(argv, stdin, is_cut_off=is_cut_off)
        if self.system is not None and self.system.knows(argv):
            return self._run_system(self.system, argv, is_cut_off=is_cut_off)
        if argv[0] in ("systemctl", "journalctl") and self.systemd is not None:
            return self._systemd(argv, self.systemd)
        if argv[:2] == ["podman", "compose"] and self.systemd is not None:
            return self._compose(argv, cwd or "/")
        if argv[0] in self.hooks:
            kind = self._effect(f"hook {argv[0]}")
            if kind != "unsynced" or self.rng.random() < 0.5:
                self.hooked.append(tuple(argv))
            self._die(kind)
            return world.Completed(tuple(argv), self.hooks[argv[0]], "", "said no")
        if self.has_network is not None:
            self.podman.is_registry_down = is_cut_off
        if argv[0] != "podman":
            return world.Completed(tuple(argv), world.NOT_STARTED, "", "No such file or directory")
        return self._podman(argv, stdin, self.podman)

    def _podman(self, argv: Sequence[str], stdin: bytes, podman: SimPodman) -> world.Completed:
        if not podman.is_effect(argv):
            return podman.run(argv, stdin)
        kind = self._effect(" ".join(argv[:2]))
        if kind == "unsynced":
            podman.half(argv, stdin, self.rng.random())
            raise Crash
        answer = podman.run(argv, stdin)
        self._die(kind)
        return answer

    def _spend(self, seconds: float) -> None:
        if self.is_shared and self.stage_wait is not None:
            self.stage_wait(seconds, lambda: False)
        else:
            self.elapsed_s += seconds

    def _run_as(self, argv: Sequence[str], stdin: bytes, *, is_cut_off: bool) -> world.Completed:
        """What `accounts.argv_as` makes of a command."""
        own = self.owned[int(argv[1].removeprefix("--reuid="))]
        rest = list(argv[argv.index("env") + 1 :])
        while rest[0].startswith("--") or "=" in rest[0]:
            rest.pop(0)
        if rest[:2] == ["podman", "unshare"]:
            rest = rest[2:]
        match rest[0]:
            case "podman":
                own.podman.is_registry_down = is_cut_off or self.podman.is_registry_down
                own.podman.registry = self.podman.registry
                return self._podman(rest, stdin, own.podman)
            case "systemctl":
                assert rest[1] == "--user", rest
                return self._systemd([rest[0], *rest[2:]], own.systemd)
            case sys.executable:
                try:
                    found = homefiles.perform(self, json.loads(stdin))
                except OSError as error:
                    found = {"path": error.filename, "trouble": error.strerror}
                return world.Completed(tuple(argv), 0, json.dumps(found), "")
        return world.Completed(tuple(argv), world.NOT_STARTED, "", "No such file or directory")

    def _run_system(
        self, system: SimBootc, argv: Sequence[str], *, is_cut_off: bool
    ) -> world.Completed:
        system.is_cut_off = is_cut_off
        if not system.is_effect(argv):
            return system.run(argv)
        kind = self._effect(" ".join(argv[:2]))
        if kind == "unsynced":
            system.half(argv, self.rng.random())
            raise Crash
        answer = system.run(argv)
        self._die(kind)
        return answer

    def _systemd(self, argv: Sequence[str], systemd: SimSystemd) -> world.Completed:
        if argv[1] not in systemd.MUTATING:
            return systemd.run(argv, {})
        kind = self._effect(" ".join(argv[:2]))
        # systemd does what it was told, whoever told it has died or not.
        is_done = kind != "unsynced" or self.rng.random() < 0.6
        answer = world.Completed(tuple(argv), 0, "", "")
        if is_done:
            answer = systemd.run(argv, self.files())
        self._die(kind)
        return answer

    def _compose(self, argv: Sequence[str], cwd: str) -> world.Completed:
        if argv[-1] == "version":
            return world.Completed(tuple(argv), 0, "1.3.0", "")
        kind = self._effect("podman compose")
        prefix = f"{cwd}/"
        files = {p.removeprefix(prefix): d for p, d in self.files().items() if p.startswith(prefix)}
        at_most = self.rng.randrange(3) if kind == "unsynced" else 99
        answer = compose_up(self.podman, argv, files, at_most=at_most)
        self._die(kind)
        return answer

    def files(self) -> dict[str, bytes]:
        return {p: n.data for p, n in self.nodes.items() if n.kind == world.FILE}

    def with_systemd(self) -> SimWorld:
        """As a device that has it, and a podman that makes services of quadlets."""
        self.systemd = SimSystemd(self.podman)
        for path in (
            agent_systemd.RUNNING_MARK,
            *agent_systemd.GENERATORS[:1],
            "/etc/systemd/system",
        ):
            self.mkdir(path)
        self.effects.clear()
        return self

    def with_user(self, name: str) -> SimWorld:
        """Who lingers, and has a systemd."""
        account = self.account_of(name)
        assert account is not None
        site = quadlet.site_of(account.home)
        podman = SimPodman(lambda: self.elapsed_s)
        own = SimSystemd(podman, quadlets=f"{site.units}/", targets_folder=f"{site.targets}/")
        self.owned[account.uid] = Own(podman, own)
        for path in (account.home, accounts.LINGERING, f"{accounts.runtime_of(account)}/systemd"):
            self.mkdir(path)
        for path in (
            f"{accounts.LINGERING}/{name}",
            f"{accounts.runtime_of(account)}/systemd/private",
        ):
            self.nodes[path] = Node(world.FILE)
        self.effects.clear()
        return self

    def reboot(self) -> None:
        kind = self._effect("reboot")
        if kind != "unsynced" or self.rng.random() < 0.5:
            self.reboots_ordered += 1
            self.is_going_down = True
        self._die(kind)

    # Fate.

    def _put(self, path: str, node: Node) -> None:
        self._go(path)
        parent = self.nodes.get(posixpath.dirname(path))
        if parent is None or parent.kind != world.DIRECTORY:
            raise FileNotFoundError(2, "No such file or directory", path)
        there = self.nodes.get(path)
        if there is not None and there.kind == world.DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", path)
        kind = self._effect(f"write {path}")
        self._room(path)
        if kind == "unsynced":
            litter = posixpath.join(posixpath.dirname(path), ".homeport-x")
            if self.rng.random() < 0.5:
                cut = self.rng.randrange(len(node.data) + 1)
                self.nodes[litter] = replace(node, data=node.data[:cut], mode=0o600)
            if self.rng.random() < 0.5:
                self.nodes[path] = node
            raise Crash
        self.nodes[path] = node
        self._die(kind)

    def _room(self, path: str) -> None:
        if self.full or self.is_full():
            raise OSError(28, "No space left on device", path)

    def _effect(self, words: str) -> str:
        self.elapsed_s += 0.001
        kind = self.crash_at.get(len(self.effects), "")
        self.effects.append(words)
        if kind == "before":
            raise Crash
        return kind

    def _die(self, kind: str) -> None:
        if kind:
            raise Crash
