"""Configuration files on the disk, and what was there before they came.

For each path that the agent manages there is one record under `originals/`, written before the
first write to the path and removed after the path was given back. The set of records is the list
of managed paths: there is no second list to disagree with it. A record holds the file that was
there (content, mode, owner, SELinux label), or the link, or says that nothing was; it is as secret
as the file, so it is 0600.

Refuses a path that is a directory, a device or a socket, and everything below the agent's own data
directory: a specification must not be able to rewrite the agent's memory.

A file may lie in a folder of a user's, who may change what is there at any moment. The world keeps
root from being led away by a link (`walking`); what is read is of one file, whatever it is
exchanged for meanwhile (`World.hold`), and written is a new one, so that nothing goes through
another name that a file may have. Where the way is closed, a file that is wanted is refused, and
one that is not any more is the user's.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import logging
import posixpath
from collections.abc import Iterable
from typing import Any

from agent import errors, world
from agent.planner import FileState, WantedFile
from agent.selinux import Labels
from agent.specs import FileSpec
from resources.records import replace

log = logging.getLogger("agent.files")

Json = dict[str, Any]

ABSENT = "absent"
GIVEN_BACK = "isGivenBack"
PARENT_MODE = 0o755
# Of what was there before, which is kept beside the agent's data and read in one piece; a file that
# somebody blows up to a terabyte must not end the agent. No content that is wanted is as large.
BYTES_MAX = 64 << 20


class Files:
    def __init__(self, where: world.World, data_dir: str, own_dir: str) -> None:
        self._world = where
        self._data_dir = data_dir
        self._originals = f"{own_dir}/originals"
        self._labels = Labels(where)

    def managed(self) -> frozenset[str]:
        return self.recorded()[0]

    def recorded(self) -> tuple[frozenset[str], frozenset[str]]:
        """The paths that are ours; and those given back of which the record was kept."""
        ours: set[str] = set()
        given_back: set[str] = set()
        for name in self._world.listdir(self._originals):
            record = self._record(f"{self._originals}/{name}")
            if record is not None:
                (given_back if record.get(GIVEN_BACK) else ours).add(str(record["path"]))
        return frozenset(ours), frozenset(given_back)

    def forget_given_back(self) -> None:
        """Nothing leads back to where it would have to be done again."""
        for path in self.recorded()[1]:
            self._world.remove(self._place(path))

    def state(self, path: str) -> FileState | None:
        """What is at `path`; None = nothing. Raises OSError."""
        held = self._world.hold(path, bytes_max=BYTES_MAX)
        if held is None:
            return None
        found = held.stat
        digest = digest_of(held.data) if held.data is not None else ""
        return FileState(found.kind, digest, found.mode, found.uid, found.gid)

    def states(self, paths: Iterable[str]) -> dict[str, FileState]:
        """What is at each of `paths` where anything is. Raises Retry, Reject by the path."""
        found = {}
        for path in paths:
            try:
                state = self.state(path)
            except world.Astray:
                # As a directory in its place: seen as wrong, and refused when it is to be written.
                state = FileState(world.OTHER)
            except OSError as error:
                raise error_of(path, error) from error
            if state is not None:
                found[path] = state
        regular = (path for path, state in found.items() if state.kind == world.FILE)
        for path in self._labels.wrong(regular):
            found[path] = replace(found[path], is_labelled=False)
        return found

    def wanted(self, spec: FileSpec) -> WantedFile:
        """`spec` with the names of its owners looked up on this device. Raises Reject."""
        uid, gid = self._world.uid_of(spec.user), self._world.gid_of(spec.group)
        if uid is None:
            raise reject(spec.path, errors.NOT_FOUND, f"there is no user {spec.user!r}")
        if gid is None:
            raise reject(spec.path, errors.NOT_FOUND, f"there is no group {spec.group!r}")
        return WantedFile(spec.path, digest_of(spec.content), spec.mode, uid, gid)

    def objection(self, spec: FileSpec) -> errors.Reject | None:
        """Why this file cannot be written here, seen before anything is changed."""
        try:
            self.wanted(spec)
            held = self._refuse_what_is_in_the_way(spec.path)
            if self._world.stat(self._place(spec.path)) is None:
                self._refuse_what_cannot_be_kept(spec.path, held)
        except errors.Reject as error:
            return error
        except OSError as error:
            found = error_of(spec.path, error)
            # A disk that does not answer may do so when it is needed.
            return found if isinstance(found, errors.Reject) else None
        return None

    def back_up(self, path: str) -> None:
        """Keeps what is at `path`. A record that is there already is the older truth and stays."""
        if self._world.stat(self._place(path)) is not None:
            kept = self._record(self._place(path)) or {}
            if kept.pop(GIVEN_BACK, False):
                self._keep(path, kept)
            return
        held = self._refuse_what_is_in_the_way(path)
        self._refuse_what_cannot_be_kept(path, held)
        record: Json = {"path": path, "kind": ABSENT}
        if held is not None:
            found = held.stat
            record |= {"kind": found.kind, "mode": found.mode, "uid": found.uid, "gid": found.gid}
            if label := self._labels.of(path):
                record["label"] = label
            if found.kind == world.LINK:
                record["target"] = held.target
            else:
                record["content"] = base64.b64encode(held.data or b"").decode()
        self._keep(path, record)

    def adopt(self, path: str) -> None:
        """`path` was written by an agent before us: there is no original to give back."""
        if self._world.stat(self._place(path)) is None:
            self._keep(path, {"path": path, "kind": ABSENT})

    def write(self, spec: FileSpec) -> None:
        wanted = self.wanted(spec)
        self._refuse_what_is_in_the_way(spec.path)
        self._world.mkdir(posixpath.dirname(spec.path), mode=PARENT_MODE)
        self._world.write(spec.path, spec.content, mode=spec.mode, uid=wanted.uid, gid=wanted.gid)
        self._labels.restore(spec.path)

    def restore(self, path: str, *, is_kept: bool = False) -> None:
        """Gives `path` back as it was. Repeating it after a crash does the same again; so does
        repeating it in another system, if the record is kept for that."""
        place = self._place(path)
        record = self._record(place)
        try:
            self._give_back(path, record)
        except world.Astray as error:
            # What lies beyond a user's link was never ours, and theirs is what they moved away. It
            # must not be in their power to keep the device from its next version.
            log.warning("path not given back: %s path=%s", error.strerror, path)
        if is_kept and record is not None:
            self._keep(path, {**record, GIVEN_BACK: True})
        else:
            self._world.remove(place)

    def _give_back(self, path: str, record: Json | None) -> None:
        found = self._world.stat(path)
        if found is not None and found.kind not in (world.FILE, world.LINK):
            # Somebody has made a directory of it: it is his now, and not ours to remove.
            log.warning("path not given back, it is a %s now path=%s", found.kind, path)
        elif record is None or record["kind"] == ABSENT:
            self._world.remove(path)
        elif record["kind"] == world.LINK:
            self._world.mkdir(posixpath.dirname(path), mode=PARENT_MODE)
            self._world.symlink(path, record["target"])
        else:
            self._world.mkdir(posixpath.dirname(path), mode=PARENT_MODE)
            content = base64.b64decode(record["content"])
            self._world.write(
                path, content, mode=record["mode"], uid=record["uid"], gid=record["gid"]
            )
        if record is not None and record["kind"] != ABSENT:
            self._labels.put(path, str(record.get("label") or ""))

    def _refuse_what_is_in_the_way(self, path: str) -> world.Held | None:
        if path == self._data_dir or path.startswith(f"{self._data_dir}/"):
            raise reject(path, errors.PERMISSION_DENIED, "the agent keeps its own data there")
        held = self._world.hold(path, bytes_max=BYTES_MAX)
        if held is not None and held.stat.kind not in (world.FILE, world.LINK):
            what = "a directory" if held.stat.kind == world.DIRECTORY else "no regular file"
            raise reject(path, errors.INVALID_ARGUMENT, f"{path} is {what}")
        return held

    def _refuse_what_cannot_be_kept(self, path: str, held: world.Held | None) -> None:
        if held is not None and held.stat.kind == world.FILE and held.data is None:
            words = f"the file that is there has {held.stat.size} bytes and cannot be kept"
            detail = f"{words} (at most {BYTES_MAX}): move it away"
            raise reject(path, errors.FAILED_PRECONDITION, detail)

    def _place(self, path: str) -> str:
        return f"{self._originals}/{hashlib.sha256(path.encode()).hexdigest()[:40]}.json"

    def _keep(self, path: str, record: Json) -> None:
        self._world.mkdir(self._originals, mode=0o700)
        data = json.dumps(record, separators=(",", ":")).encode()
        self._world.write(self._place(path), data, mode=0o600, uid=0, gid=0)

    def _record(self, place: str) -> Json | None:
        raw = self._world.read(place)
        if raw is None:
            return None
        try:
            record = json.loads(raw)
            if isinstance(record, dict) and isinstance(record.get("path"), str):
                return record
        except ValueError:
            pass
        # Disk rot: what was there before is lost; a file of ours stays where it is.
        log.error("record of an original is damaged, dropped record=%s", place)
        self._world.remove(place)
        return None


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reject(path: str, cause: str, detail: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.CONFIG, element=path)


_FINAL = {
    errno.EROFS: errors.PERMISSION_DENIED,
    errno.EPERM: errors.PERMISSION_DENIED,
    errno.EACCES: errors.PERMISSION_DENIED,
    errno.ENOTDIR: errors.INVALID_ARGUMENT,
    errno.EISDIR: errors.INVALID_ARGUMENT,
    errno.ELOOP: errors.INVALID_ARGUMENT,
    errno.ENAMETOOLONG: errors.INVALID_ARGUMENT,
    errno.EINVAL: errors.INVALID_ARGUMENT,
}


def error_of(path: str, error: OSError) -> errors.Retry | errors.Reject:
    """A disk that is full may have room later; a path that is none will never be one."""
    detail = error.strerror or str(error)
    if isinstance(error, world.Astray):
        return reject(path, errors.PERMISSION_DENIED, detail)
    final = _FINAL.get(error.errno or 0)
    if final is not None:
        return reject(path, final, detail)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    cause = errors.RESOURCE_EXHAUSTED if full else errors.INTERNAL
    return errors.Retry(cause, detail, component=errors.CONFIG, element=path)
