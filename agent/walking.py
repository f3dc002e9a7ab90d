"""Ways through the file system on which nobody leads root astray.

A link is an instruction of whoever may write to the folder that it lies in. Root follows those that
only root can have put there (`/home -> /var/home`, `/var/run -> /run`), and no other: else a user
could have root write, read or remove any file of the device by a link in place of a folder of
theirs, laid at any moment, also between a check and what follows it.

So a path is walked folder by folder. Each is opened by its name in the one before, by a handle that
stays what it is whatever is renamed meanwhile; the kernel follows no link, links are read and
followed here. What is done in the end is done by name in the last folder. Safe because whoever can
exchange a folder for another one can write to both, and so needs no root for it.

Once a folder was passed that others may change, nothing below is trusted, though it be root's: it
may have been moved there.

Who only looks is spared the walk where no link is on the way, which is nearly always: the kernel
goes there, and says then where that is (`/proc/self/fd`). If that is the path that was asked for,
it is what the path names by folders alone, however it was come by.
"""

from __future__ import annotations

import errno
import os
import stat as stat_bits
from collections.abc import Iterator
from contextlib import contextmanager

from agent import world
from resources.records import dataclass

LINKS_MAX = 40
OTHERS_WRITE = 0o022
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = _LOOK | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Place:
    """A `name` in an open `folder`, whose path is `way`. `others`: who else than root may put
    something there, in words; empty = nobody."""

    folder: int
    name: str
    way: str
    others: str = ""

    @property
    def path(self) -> str:
        return f"{self.way.rstrip('/')}/{self.name}"


# A handle, its path, and who else may put something there.
_Folder = tuple[int, str, str]


class Walk:
    """Below `top`, which is `/` for the device. `owner` is who is to be protected; None = nobody:
    who is not root is led nowhere where they could not go themselves."""

    def __init__(self, top: str, owner: int | None) -> None:
        self._top = top
        self._owner = owner

    def look(self, path: str, *, follow: bool) -> int:
        """A handle of what is at `path`, as by `to`: good for looking at it, and for opening it by
        `opened`. Whoever asks closes it. Raises OSError."""
        handle = self._straight(path, follow=follow)
        if handle is not None:
            return handle
        with self.to(path, follow=follow) as place:
            return os.open(place.name, _LOOK, dir_fd=place.folder)

    def _straight(self, path: str, *, follow: bool) -> int | None:
        """None = a link may be on the way, or it is not there."""
        way = path if self._top == "/" else self._top + path
        try:
            handle = os.open(way, _LOOK)
        except OSError:
            return None
        is_it = os.readlink(opened(handle)) == way  # noqa: PTH115 - a text
        if is_it and not (follow and stat_bits.S_ISLNK(os.fstat(handle).st_mode)):
            return handle
        os.close(handle)
        return None

    @contextmanager
    def to(self, path: str, *, follow: bool) -> Iterator[Place]:
        """Where `path` is; with `follow`, a link at its end is followed too, while it is one that
        may be. Raises OSError, as whatever is done there: with the whole path in it."""
        assert path.startswith("/"), path
        handle = os.open(self._top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        passed: list[_Folder] = [(handle, "/", "")]
        try:
            yield self._walked(path, passed, follow=follow)
        except OSError as error:
            error.filename = path
            raise
        finally:
            for handle, _, _ in passed:
                os.close(handle)

    def _walked(self, path: str, passed: list[_Folder], *, follow: bool) -> Place:
        links = 0
        left = _names(path)
        while left:
            name, (handle, way, others) = left.pop(), passed[-1]
            if name == "..":
                if len(passed) > 1:
                    os.close(passed.pop()[0])
                continue
            if not left and not follow:
                return Place(handle, name, way, others)
            target = self._passed(name, passed, is_last=not left)
            if target is None:
                if not left:
                    return Place(handle, name, way, others)
                continue
            if others:
                raise _astray(f"{way.rstrip('/')}/{name}", others)
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                while len(passed) > 1:
                    os.close(passed.pop()[0])
            left += _names(target)
        handle, way, others = passed[-1]
        return Place(handle, ".", way, others)

    def _passed(self, name: str, passed: list[_Folder], *, is_last: bool) -> str | None:
        """Goes into `name`, unless it `is_last`. Answers where the link leads, if it is one."""
        folder, way, others = passed[-1]
        if is_last:
            return _target(name, folder)
        try:
            handle = os.open(name, _ENTER, dir_fd=folder)
        except NotADirectoryError:
            target = _target(name, folder)
            if target is None:
                raise
            return target
        path = f"{way.rstrip('/')}/{name}"
        passed.append((handle, path, others or self._others(handle, path)))
        return None

    def _others(self, handle: int, path: str) -> str:
        if self._owner is None:
            return ""
        found = os.fstat(handle)
        if found.st_uid not in (0, self._owner):
            return f"{path} belongs to user {found.st_uid}"
        # NB the bits of the group are also the most that an access control list gives to anybody.
        if stat_bits.S_IMODE(found.st_mode) & OTHERS_WRITE:
            return f"others may write to {path}"
        return ""


def opened(handle: int) -> str:
    """A path that is what `handle` is, whatever has become of its name."""
    return f"/proc/self/fd/{handle}"


def _names(path: str) -> list[str]:
    """The last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _target(name: str, folder: int) -> str | None:
    """None = it is no link, or not there."""
    try:
        return os.readlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _astray(link: str, others: str) -> world.Astray:
    words = f"{link} is a link that root does not follow, for {others}: name the folder itself"
    return world.Astray(errno.ELOOP, words)
