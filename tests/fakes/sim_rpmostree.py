"""[simulated] The same slots under rpm-ostree: its commands, its words, its status document.

Written from what is known of rpm-ostree and libostree, as `sim_bootc` is from bootc. Assumed, and
seen nowhere: that `rollback` lets go of what is staged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent import world
from tests.fakes.sim_bootc import STORAGE, Deployment, SimBootc, answer

Json = dict[str, Any]

UNVERIFIED = f"ostree-unverified-image:{STORAGE}:"


class SimRpmOstree(SimBootc):
    MUTATING = ("rebase", "rollback", "cleanup", "pull")

    def run(self, argv: Sequence[str]) -> world.Completed:
        if argv[0] in ("bootc", "ostree"):
            return answer(argv, world.NOT_STARTED, "", "No such file or directory")
        if argv[0] != "rpm-ostree":
            return super().run(argv)
        match argv[1]:
            case "--version":
                return answer(argv, 0, "rpm-ostree:\n Version: '2024.9'\n")
            case "status":
                return answer(argv, 0, json.dumps(self.status()))
        if self.complaints:
            return answer(argv, 1, "", self.complaints.pop(0))
        match argv[1]:
            case "rebase":
                return self._rebase(argv)
            case "rollback":
                return self._roll_back(argv)
            case "cleanup":
                assert list(argv[2:]) == ["--pending"], argv
                return self._clean_up(argv)
        raise AssertionError(f"rpm-ostree does not know {argv!r}")

    def _rebase(self, argv: Sequence[str]) -> world.Completed:
        assert argv[-1].startswith(UNVERIFIED), argv
        self.switches += 1
        name = argv[-1].removeprefix(UNVERIFIED)
        now = self.staged or self.order[0]
        if (now.image, now.transport) == (name, STORAGE):
            return answer(argv, 1, "", f"error: Old and new refs are equal: {argv[-1]}")
        digest = self._digest_of(name, self.storage)
        if not digest:
            return answer(argv, 1, "", f"error: Importing: {name}: image not known")
        self.made += 1
        self.staged = Deployment(name, STORAGE, digest, self.made)
        return answer(argv, 0, "Staging deployment...done\n")

    def _clean_up(self, argv: Sequence[str]) -> world.Completed:
        """What would be booted instead of what is booted now, whatever put it there."""
        self.staged = None
        here = next(at for at, one in enumerate(self.order) if one.serial == self.booted.serial)
        self.order = self.order[here:]
        return answer(argv, 0, "")

    def status(self) -> Json:
        staged = [self._entry(self.staged, staged=True)] if self.staged else []
        return {"deployments": [*staged, *(self._entry(one) for one in self.order)]}

    def _entry(self, one: Deployment, *, staged: bool = False) -> Json:
        source = UNVERIFIED if one.transport == STORAGE else "ostree-unverified-registry:"
        return {
            "id": f"default-{one.digest.removeprefix('sha256:')}.{one.serial}",
            "osname": "default",
            "serial": one.serial,
            "booted": not staged and one.serial == self.booted.serial,
            "staged": staged,
            "pinned": False,
            "container-image-reference": f"{source}{one.image}",
            "container-image-reference-digest": one.digest,
        }
