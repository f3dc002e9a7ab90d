"""A factory reset: data goes too, and what cannot go keeps nobody. What it makes of containers and
files is in `tests/simulation/test_scenarios.py`."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest

from agent import accounts, clearing, parts, planner, settings, specs, states, world
from agent.specs import Application, Volume
from tests.fakes.clocked_world import ClockedWorld

WEB = Application("web", "container", "r/web:1", volumes=(Volume("data", "/data"),))
SPEC = specs.Spec(states.Target("3"), applications=(WEB,))


class Podman:
    """Two volumes and an image; `fails`: how often a volume is still in use."""

    def __init__(self, fails: int = 0, *, is_there: bool = True) -> None:
        self.volumes = {"web-data-394076", "by-hand"}
        self.images = {"r/web:1"}
        self.fails, self.is_there = fails, is_there
        self.users_volumes = {"web-data-394076", "users-own"}
        self.users_asked: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...]) -> world.Completed:
        if argv[0] == "setpriv":
            # Of a user: their podman has another store.
            self.users_asked.append(argv)
            at = argv.index("podman")
            if "ls" in argv:
                found = [{"Name": name, "Labels": {}} for name in sorted(self.users_volumes)]
                return world.Completed(argv, 0, json.dumps(found), "")
            self.users_volumes -= set(argv[at + 3 :])
            return world.Completed(argv, 0, "", "")
        if not self.is_there:
            return world.Completed(argv, world.NOT_STARTED, "", "no podman")
        match argv[1:3]:
            case "volume", "ls":
                found = [{"Name": name, "Labels": {}} for name in sorted(self.volumes)]
                return world.Completed(argv, 0, json.dumps(found), "")
            case "volume", "rm":
                if self.fails:
                    self.fails -= 1
                    return world.Completed(argv, 2, "", "Error: volume is being used")
                self.volumes.discard(argv[-1])
            case "image", "rm":
                self.images.discard(argv[-1])
            case "ps", _:
                return world.Completed(argv, 0, "[]", "")
        return world.Completed(argv, 0, "", "")


def clear(folder: Path, podman: Podman, *, lingering: str = "") -> float:
    """The seconds that it took."""
    where = ClockedWorld(folder)
    if lingering:
        where.mkdir(accounts.LINGERING)
        where.write(f"{accounts.LINGERING}/{lingering}", b"", mode=0o644, uid=0, gid=0)
    where.answer = podman
    where.mkdir("/var/lib/flightctl/homeport")
    made = parts.assemble(where, settings.LoopSettings(), "package", dict)
    done: list[planner.Step] = []
    work = clearing.Clearing(where, made.observer, made.pruning, lambda s, _: done.append(s))
    work.clear(SPEC, SPEC)
    assert not done
    return where.elapsed_s


@pytest.mark.parametrize("fails", [0, 1, 4])
def test_volumes_and_images_of_the_specification_go_and_no_others(
    tmp_path: Path, fails: int
) -> None:
    podman = Podman(fails)
    assert clear(tmp_path, podman) == fails * clearing.PAUSE_S
    assert podman.volumes == {"by-hand"}
    assert not podman.images


def test_what_does_not_go_is_left_after_a_while(tmp_path: Path) -> None:
    podman = Podman(1000)
    assert clear(tmp_path, podman) <= 60
    assert len(podman.volumes) == 2
    assert not podman.images, "and the rest goes"


def test_volumes_of_users_go_as_those_users(tmp_path: Path) -> None:
    podman = Podman()
    assert clear(tmp_path, podman, lingering="nobody") == 0
    assert podman.users_volumes == {"users-own"}
    uid = pwd.getpwnam("nobody").pw_uid
    assert all(f"--reuid={uid}" in argv for argv in podman.users_asked)


def test_without_podman_there_is_nothing_to_clear(tmp_path: Path) -> None:
    assert clear(tmp_path, Podman(is_there=False)) == 0
