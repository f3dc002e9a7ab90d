"""Asks podman's generator what it would make of an application's units, before they are installed.

The generator is the one that knows every key. It is shown a copy in a folder of the agent's own;
nothing that systemd reads is touched. Where it cannot be asked, the question is left to the start.
"""

from __future__ import annotations

import posixpath

from agent import errors, quadlet, systemd, world

TIMEOUT_S = 30.0


class QuadletCheck:
    def __init__(self, where: world.World, own_dir: str) -> None:
        self._world = where
        self._folder = f"{own_dir}/units"
        self._known: dict[str, tuple[quadlet.Rendered, str]] = {}

    def complaint(
        self, app: str, folder: str, rendered: quadlet.Rendered, *, is_of_user: bool = False
    ) -> str:
        """Empty = it makes services of all; asked once for each content."""
        known = self._known.get(app)
        if known is None or known[0] != rendered:
            known = (rendered, self._asked(folder, rendered, ["-user"] if is_of_user else []))
            self._known[app] = known
        return known[1]

    def _asked(self, folder: str, rendered: quadlet.Rendered, more: list[str]) -> str:
        self._remove(self._folder)
        try:
            for path, (data, _) in rendered.files.items():
                if path.startswith(f"{folder}/"):
                    copy = f"{self._folder}/{path.removeprefix(f'{folder}/')}"
                    self._world.mkdir(posixpath.dirname(copy), mode=0o700)
                    self._world.write(copy, data, mode=0o600, uid=0, gid=0)
            answer = self._world.run(
                [*systemd.QUADLET_CHECK, *more],
                timeout_s=TIMEOUT_S,
                env={"QUADLET_UNIT_DIRS": self._folder},
            )
        finally:
            self._remove(self._folder)
        if answer.ok or answer.status in (world.NOT_STARTED, world.TIMED_OUT):
            return ""
        return errors.one_line(systemd.generator_words(answer.stderr)) or "no service is made of it"

    def _remove(self, path: str) -> None:
        found = self._world.stat(path)
        if found is not None and found.kind == world.DIRECTORY:
            for name in self._world.listdir(path):
                self._remove(f"{path}/{name}")
        self._world.remove(path)
