"""The real world: Linux, with `root` in front of every path (`--root`, FLIGHTCTL_TEST_ROOT_DIR).

What it promises in `world.World` it keeps by: temporary file in the same directory, chmod, chown,
fsync, rename, fsync of the directory. Every path is walked by handles, so that no user of the
device leads root anywhere by a link (`walking`). Commands run in a session of their own; at their
time limit the whole group is killed. A child that outlives a killed agent does no harm, since the
executor names containers by id, so that a late command can only reach what it was meant for.

Refuses nothing and decides nothing. Under a root that is not `/` and without being root, whoever
runs the agent plays root, so that a developer can watch it work in a directory.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import logging
import os
import pwd
import random
import signal
import stat as stat_bits
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from agent import walking, world

T = TypeVar("T")

log = logging.getLogger("agent.linux")

# A command that prints without end must not eat the device's memory.
OUTPUT_BYTES_MAX = 4 << 20
# For children where whoever started the agent has left it nothing.
BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
SHRED_BYTES_MAX = 1 << 20
TEMPORARY_PREFIX = ".homeport-"
LABEL = "security.selinux"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinuxWorld:
    def __init__(self, root: str = "/") -> None:
        self._root = Path(root).absolute()
        self._plays_root = str(self._root) != "/" and os.geteuid() != 0
        self._walk = walking.Walk(str(self._root), 0 if os.geteuid() == 0 else None)
        self._woken = threading.Event()
        self._boot_id = ""
        self._controllers: frozenset[str] | None = None

    def path(self, path: str) -> Path:
        """Where the device's `path` is for this process."""
        assert path.startswith("/"), path
        return self._root / path.lstrip("/")

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self._woken.wait(max(0.0, seconds))
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def random(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret

    def read(self, path: str) -> bytes | None:
        return self._looked(path, _read, follow=True)

    def stat(self, path: str) -> world.Stat | None:
        found = self._looked(path, os.fstat)
        return _stat(found) if found is not None else None

    def touched_ns(self, path: str) -> int:
        found = self._looked(path, os.fstat)
        return found.st_ctime_ns if found is not None else 0

    def hold(self, path: str, *, bytes_max: int) -> world.Held | None:
        return self._looked(path, lambda handle: _hold(handle, bytes_max))

    def listdir(self, path: str) -> list[str]:
        names = self._looked(path, _names, follow=True) or []
        # What a crash left of an unfinished write is nobody's file.
        return [name for name in sorted(names) if not name.startswith(TEMPORARY_PREFIX)]

    def read_link(self, path: str) -> str:
        with self._walk.to(path, follow=False) as place:
            return os.readlink(place.name, dir_fd=place.folder)

    def write(self, path: str, data: bytes, *, mode: int, uid: int, gid: int) -> None:
        with self._walk.to(path, follow=False) as place, self._replacing(place) as temporary:
            # A name that is known beforehand and never followed: no litter after a crash, and no
            # way for another user to slip a link under it in a folder that they may write to.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(temporary, flags, 0o600, dir_fd=place.folder)
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                # After the bytes and after chown, for both of them clear setuid and setgid.
                self._chown(out.fileno(), uid, gid)
                os.fchmod(out.fileno(), mode)
                os.fsync(out.fileno())

    def append(self, path: str, data: bytes) -> None:
        with self._walk.to(path, follow=True) as place:
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            is_new = False
            try:
                handle = os.open(place.name, flags, dir_fd=place.folder)
            except FileNotFoundError:
                is_new = True
                handle = os.open(place.name, flags | os.O_CREAT, 0o600, dir_fd=place.folder)
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            if is_new:
                _sync_folder(place.folder)

    def symlink(self, path: str, target: str) -> None:
        with self._walk.to(path, follow=False) as place, self._replacing(place) as temporary:
            os.symlink(target, temporary, dir_fd=place.folder)

    def remove(self, path: str) -> None:
        try:
            with self._walk.to(path, follow=False) as place:
                found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                if stat_bits.S_ISDIR(found.st_mode):
                    os.rmdir(place.name, dir_fd=place.folder)
                else:
                    os.unlink(place.name, dir_fd=place.folder)
                _sync_folder(place.folder)
        except (FileNotFoundError, NotADirectoryError):
            return

    def shred(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._held(path) as held:
            place, handle = held
            found = os.fstat(handle)
            if stat_bits.S_ISREG(found.st_mode) and not _is_anybodys(place, found):
                with Path(walking.opened(handle)).open("r+b") as out:
                    out.write(os.urandom(min(found.st_size, SHRED_BYTES_MAX)))
                    out.flush()
                    os.fsync(out.fileno())
        self.remove(path)

    def mkdir(self, path: str, *, mode: int = 0o755) -> None:
        missing = []
        while not self._is_folder(path):
            missing.append(path)
            path = os.path.dirname(path)  # noqa: PTH120 - a text of the device
        for folder in reversed(missing):
            with self._walk.to(folder, follow=False) as place:
                self._make_folder(place, mode)

    def real(self, path: str) -> str:
        with self._walk.to(path, follow=False) as place:
            return place.path

    def label(self, path: str) -> str:
        try:
            found = self._looked(path, _label)
        except OSError:
            return ""
        return (found or b"").rstrip(b"\0").decode(errors="replace")

    def put_label(self, path: str, label: str) -> None:
        with self._held(path) as (place, handle):
            if _is_anybodys(place, os.fstat(handle)):
                raise OSError(errno.EMLINK, f"it has another name, and {place.others}")
            os.setxattr(walking.opened(handle), LABEL, label.encode())

    def boot_id(self) -> str:
        if not self._boot_id:
            # It is that of this process for as long as it lives.
            self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return self._boot_id

    def is_whole_machine(self) -> bool:
        return str(self._root) == "/"

    def pid(self) -> int:
        return os.getpid()

    def uid_of(self, user: str) -> int | None:
        return self._id_of(user, "/etc/passwd", lambda name: pwd.getpwnam(name).pw_uid)

    def gid_of(self, group: str) -> int | None:
        return self._id_of(group, "/etc/group", lambda name: grp.getgrnam(name).gr_gid)

    def account_of(self, user: str) -> world.Account | None:
        own = self.read("/etc/passwd") if str(self._root) != "/" else None
        if own is not None:
            rows = [line.split(":") for line in own.decode(errors="replace").splitlines()]
            named = [r for r in rows if len(r) > 6 and user in (r[0], r[2])]
            return next((world.Account(r[0], int(r[2]), int(r[3]), r[5]) for r in named), None)
        try:
            is_number = user.isascii() and user.isdigit()
            found = pwd.getpwuid(int(user)) if is_number else pwd.getpwnam(user)
        except (KeyError, OverflowError):
            return None
        return world.Account(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)

    def cgroup_controllers(self) -> frozenset[str]:
        if self._controllers is None:
            # They are the kernel's, and mounted before anything runs.
            self._controllers = _controllers()
        return self._controllers

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        # Output goes to files: a grandchild that keeps a pipe open would hold us for ever.
        with _scratch() as out, _scratch() as err:
            try:
                child = self._start(argv, out.fileno(), err.fileno(), env=env, cwd=cwd)
            except OSError as error:
                return world.Completed(tuple(argv), world.NOT_STARTED, "", str(error))
            status, trouble = _finish(child, stdin, timeout_s)
            complaint = trouble or _text(err.fileno())
            return world.Completed(tuple(argv), status, _text(out.fileno()), complaint)

    def _start(
        self,
        argv: Sequence[str],
        out: int,
        err: int,
        *,
        env: Mapping[str, str] | None,
        cwd: str | None,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env={**BARE, **os.environ, **(env or {})},
            cwd=self.path(cwd) if cwd else None,
            start_new_session=True,
        )

    def reboot(self) -> None:
        if str(self._root) != "/":
            log.warning("a reboot is due; under a root of its own the agent leaves it to others")
            return
        answer = self.run(["systemctl", "reboot"], timeout_s=60)
        if not answer.ok:
            log.error("reboot not ordered: %s", answer.words)

    def _chown(self, handle: int, uid: int, gid: int) -> None:
        if self._plays_root:
            # What belongs to root belongs to whoever plays it.
            uid, gid = uid or os.geteuid(), gid or os.getegid()
        found = os.fstat(handle)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(handle, uid, gid)

    @contextlib.contextmanager
    def _held(self, path: str) -> Iterator[tuple[walking.Place, int]]:
        """A handle to whatever is at `path`, which is opened for nothing, so that no device and no
        pipe notices; what is then done to the handle is done to what was looked at."""
        with self._walk.to(path, follow=False) as place:
            handle = os.open(
                place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder
            )
            try:
                yield place, handle
            finally:
                os.close(handle)

    def _looked(self, path: str, look: Callable[[int], T], *, follow: bool = False) -> T | None:
        """What `look` finds of a handle of what is there; None = nothing is."""
        try:
            handle = self._walk.look(path, follow=follow)
            try:
                return look(handle)
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            error.filename = path
            raise

    def _is_folder(self, path: str) -> bool:
        """Raises NotADirectoryError for what is there and none."""
        try:
            with self._walk.to(path, follow=True) as place:
                found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                if not stat_bits.S_ISDIR(found.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
        except FileNotFoundError:
            return False
        return True

    def _make_folder(self, place: walking.Place, mode: int) -> None:
        """There at once with its mode and its owner, whatever whoever started us masks. In a folder
        that is a user's it is theirs: they could not put anything into one of root's."""
        temporary = _temporary(place.name)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(temporary, dir_fd=place.folder)
        os.mkdir(temporary, 0o700, dir_fd=place.folder)
        handle = os.open(temporary, _OPEN_FOLDER, dir_fd=place.folder)
        try:
            # Not of a folder with something of root's in it that was put here in its place.
            if os.fstat(handle).st_uid == os.geteuid() and not os.listdir(handle):  # noqa: PTH208
                if place.others:
                    owner = os.fstat(place.folder)
                    self._chown(handle, owner.st_uid, owner.st_gid)
                os.fchmod(handle, mode)
            # Over one that came meanwhile, if it is empty.
            os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(temporary, dir_fd=place.folder)
            raise
        finally:
            os.close(handle)
        _sync_folder(place.folder)

    @contextlib.contextmanager
    def _replacing(self, place: walking.Place) -> Iterator[str]:
        """A name for what takes the place of `place`, all at once, when it is done."""
        temporary = _temporary(place.name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.folder)
        try:
            yield temporary
            os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=place.folder)
            raise
        _sync_folder(place.folder)

    def _id_of(self, name: str, table: str, look_up: Callable[[str], int]) -> int | None:
        if name.isascii() and name.isdigit():
            return int(name)
        if self._plays_root and name == "root":
            return os.geteuid() if table == "/etc/passwd" else os.getegid()
        own = self.read(table) if str(self._root) != "/" else None
        if own is not None:
            for line in own.decode(errors="replace").splitlines():
                fields = line.split(":")
                if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
                    return int(fields[2])
            return None
        try:
            return look_up(name)
        except KeyError:
            return None


def _controllers() -> frozenset[str]:
    names: set[str] = set()
    with contextlib.suppress(OSError):
        names.update(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    # Version 1 and the hybrid mount one directory for each controller.
    names.update(n for n in ("cpu", "memory", "pids") if Path("/sys/fs/cgroup", n).is_dir())
    return frozenset(names)


def _read(handle: int) -> bytes:
    # NB without NONBLOCK a pipe in place of a file would hold us for ever.
    opened = os.open(walking.opened(handle), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb", buffering=0) as found:
        return found.readall()


def _names(handle: int) -> list[str]:
    return os.listdir(walking.opened(handle))  # noqa: PTH208 - a handle has no Path


def _label(handle: int) -> bytes:
    return os.getxattr(walking.opened(handle), LABEL)


def _hold(handle: int, bytes_max: int) -> world.Held:
    found = _stat(os.fstat(handle))
    if found.kind == world.LINK:
        return world.Held(found, target=os.readlink("", dir_fd=handle))
    if found.kind != world.FILE or found.size > bytes_max:
        return world.Held(found)
    with Path(walking.opened(handle)).open("rb") as opened:
        data = opened.read(bytes_max + 1)
    return world.Held(found, data if len(data) <= bytes_max else None)


def _stat(found: os.stat_result) -> world.Stat:
    kind = world.OTHER
    if stat_bits.S_ISREG(found.st_mode):
        kind = world.FILE
    elif stat_bits.S_ISDIR(found.st_mode):
        kind = world.DIRECTORY
    elif stat_bits.S_ISLNK(found.st_mode):
        kind = world.LINK
    mode = stat_bits.S_IMODE(found.st_mode)
    return world.Stat(kind, mode, found.st_uid, found.st_gid, found.st_size)


def _is_anybodys(place: walking.Place, found: os.stat_result) -> bool:
    """It may be a file of root's under a name that somebody else has given it."""
    return bool(place.others) and found.st_nlink > 1


def _temporary(name: str) -> str:
    """One for each name: what an earlier life left there is found, and taken away."""
    return TEMPORARY_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:16]


def _sync_folder(folder: int) -> None:
    """`folder` may be a handle that is good for nothing else."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _scratch() -> BinaryIO:
    """A file without a name, on the disk: nobody knows how much a command will say. (`tempfile`
    would bring a megabyte of other modules along.)"""
    folder = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - it has no name there
    try:
        handle = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        # Not every file system can do it.
        handle = os.memfd_create("output", os.MFD_CLOEXEC)
    return os.fdopen(handle, "w+b")


def _finish(child: subprocess.Popen[bytes], stdin: bytes, timeout_s: float) -> tuple[int, str]:
    """(exit status, our own words where the command did not end by itself)."""
    try:
        child.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        return world.TIMED_OUT, "context deadline exceeded"
    status = child.returncode
    return (128 - status, "") if status < 0 else (status, "")


def _text(handle: int) -> str:
    size = os.fstat(handle).st_size
    # The end says why; the beginning of a flood does not.
    return os.pread(handle, OUTPUT_BYTES_MAX, max(0, size - OUTPUT_BYTES_MAX)).decode(
        errors="replace"
    )
