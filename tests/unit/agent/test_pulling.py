"""What surrounds a pull: whose credentials, whether there is room, what a killed one leaves.
Commands are scripted; the files are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import errors, pulling, specs, world
from agent.throttle import Throttle
from tests.fakes.clocked_world import ClockedWorld

OWN = "/var/lib/flightctl/homeport"
ROOT = "/var/lib/containers/storage"
MIB = 1 << 20


class Podman:
    """Answers to the commands around a pull."""

    def __init__(self, where: ClockedWorld) -> None:
        self.where = where
        self.layers = [{"Digest": "sha256:a", "Size": 100 * MIB}, {"Digest": "sha256:b", "Size": 5}]
        self.free = 10_000 * MIB
        self.pull = 0
        self.seen = ""
        where.answer = self.answer
        where.mkdir(OWN)
        where.mkdir("/var/tmp")
        self.know("sha256:c")

    def know(self, *digests: str) -> None:
        listed = [{"id": d, "compressed-diff-digest": d} for d in digests]
        self.where.put(f"{ROOT}/overlay-layers/layers.json", json.dumps(listed))

    def answer(self, argv: tuple[str, ...]) -> world.Completed:
        match argv[:2]:
            case ("skopeo", _):
                return world.Completed(argv, 0, json.dumps(self.layers), "")
            case ("podman", "info"):
                return world.Completed(argv, 0, f"{ROOT}\n", "")
            case ("df", _):
                return world.Completed(argv, 0, f"Avail\n{self.free}\n", "")
            case ("podman", "pull"):
                own = self.where.read(f"{OWN}/pull-auth.json")
                self.seen = (own or b"").decode()
                if self.pull:
                    self.where.put("/var/tmp/container_images_storage77/x", "half")
                return world.Completed(argv, self.pull, "", "")
        return world.Completed(argv, 0, "", "")


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def pull(where: ClockedWorld, *files: specs.FileSpec) -> world.Completed:
    made = pulling.Pulling(where, OWN, Throttle(0))
    made.use(files)
    return made.pull(["podman", "pull", "--quiet", "q.io/a:1"], "q.io/a:1", "web", limit_s=60)


def pulled(where: ClockedWorld) -> tuple[str, ...]:
    return next(argv for argv in where.commands if argv[:2] == ("podman", "pull"))


def test_credentials_of_the_specification_count_before_those_on_the_disk(
    where: ClockedWorld,
) -> None:
    podman = Podman(where)
    where.put(pulling.AUTH_FILE, "old")
    pull(where, specs.FileSpec(pulling.AUTH_FILE, b"brought", 0o600, "root", "root"))
    assert pulled(where) == (
        "podman",
        "pull",
        "--quiet",
        "--authfile",
        "pull-auth.json",
        "q.io/a:1",
    )
    assert podman.seen == "brought"
    assert where.stat(f"{OWN}/pull-auth.json") is None


def test_else_those_on_the_disk_and_else_none(where: ClockedWorld) -> None:
    Podman(where)
    pull(where)
    assert "--authfile" not in pulled(where)
    where.put(pulling.AUTH_FILE, "old")
    where.commands.clear()
    pull(where)
    assert pulled(where)[3:5] == ("--authfile", "auth.json")


@pytest.mark.parametrize(
    ("free", "known", "is_room"),
    [
        (1000 * MIB, ["sha256:c"], True),
        (400 * MIB, ["sha256:c"], False),
        # What is here already needs no room.
        (400 * MIB, ["sha256:a"], True),
    ],
)
def test_room_is_looked_for_before(
    where: ClockedWorld, free: int, known: list[str], is_room: bool
) -> None:
    podman = Podman(where)
    podman.free = free
    podman.know(*known)
    if is_room:
        assert pull(where).ok
        return
    with pytest.raises(errors.Retry, match="needs about 400 MiB, 400 MiB are free") as one:
        pull(where)
    assert one.value.cause == errors.RESOURCE_EXHAUSTED
    assert not [argv for argv in where.commands if argv[:2] == ("podman", "pull")]


@pytest.mark.parametrize("damage", ["none", "text"])
def test_where_nobody_can_say_it_is_tried(where: ClockedWorld, damage: str) -> None:
    podman = Podman(where)
    podman.free = 0
    place = where.path(f"{ROOT}/overlay-layers/layers.json")
    place.unlink() if damage == "none" else place.write_text("{")
    podman.layers = [] if damage == "none" else podman.layers
    assert pull(where).ok


def test_what_a_killed_pull_leaves_goes_and_what_was_there_stays(where: ClockedWorld) -> None:
    podman = Podman(where)
    podman.pull = 137
    where.put("/var/tmp/container_images_storage1/x", "somebody else's")
    assert not pull(where).ok
    removed = [argv for argv in where.commands if argv[0] == "rm"]
    assert removed == [("rm", "-rf", "--", "container_images_storage77")]
