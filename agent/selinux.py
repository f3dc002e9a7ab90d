"""SELinux labels of the files that the agent manages; nothing where there is no SELinux.

A label that is not the policy's is drift like any other, seen by one `restorecon -n` over all files
at each look; so a crash between the writing of a file and its labelling heals itself. What an
administrator may choose (the policy's customizable types, such as those that podman gives to what
it mounts) is left alone, as `restorecon` without -F does. An original comes back with its own
label. What cannot be labelled (a file system without labels) is said in the log, once in a life,
and held against nobody: an update must not fail on it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable

from agent import errors, world

log = logging.getLogger("agent.selinux")

MARK = "/sys/fs/selinux/enforce"
QUICK_S = 30.0
# An argument vector has an end.
PATHS_AT_ONCE = 500

_WOULD = re.compile(r"[Ww]ould relabel (.+) from \S+ to (\S+)")


class Labels:
    def __init__(self, where: world.World) -> None:
        self._world = where
        self._is_on: bool | None = None
        self._hopeless: set[str] = set()

    def is_on(self) -> bool:
        """Once in a life: it is switched on and off by a reboot."""
        if self._is_on is None:
            self._is_on = self._world.stat(MARK) is not None
        return self._is_on

    def wrong(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of `paths`, which exist, whose label is not the policy's."""
        asked = sorted(set(paths) - self._hopeless) if self.is_on() else []
        return frozenset(self._meant(asked))

    def restore(self, path: str) -> None:
        """As the policy says."""
        if not self.is_on():
            return
        meant = self._meant([path]).get(path)
        if meant is None:
            return
        self.put(path, meant)
        if self._meant([path]):
            log.error("cannot be labelled as the policy says path=%s", path)
            self._hopeless.add(path)

    def of(self, path: str) -> str:
        """Empty = none, or not known."""
        return self._world.label(path) if self.is_on() else ""

    def put(self, path: str, label: str) -> None:
        if not self.is_on() or not label:
            return
        try:
            self._world.put_label(path, label)
        except OSError as error:
            log.warning("not labelled path=%s: %s", path, error.strerror or error)

    def _meant(self, paths: list[str]) -> dict[str, str]:
        """The policy's labels of those of `paths` that have another. `restorecon` knows them by the
        folders that they really lie in."""
        real: dict[str, str] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                real[self._world.real(path)] = path
        names = sorted(real)
        found: dict[str, str] = {}
        for at in range(0, len(names), PATHS_AT_ONCE):
            answer = self._run(["restorecon", "-n", "-v", "--", *names[at : at + PATHS_AT_ONCE]])
            said = relabelled(f"{answer.stdout}\n{answer.stderr}")
            found |= {real[name]: label for name, label in said.items() if name in real}
        return found

    def _run(self, argv: list[str]) -> world.Completed:
        answer = self._world.run(argv, timeout_s=QUICK_S)
        if not answer.ok:
            log.warning("%s: %s", argv[0], errors.one_line(answer.words))
        return answer


def relabelled(text: str) -> dict[str, str]:
    """Path -> the label that it would get, in the words of `restorecon -n -v`."""
    found = (_WOULD.search(line) for line in text.splitlines())
    return {one.group(1): one.group(2) for one in found if one}
