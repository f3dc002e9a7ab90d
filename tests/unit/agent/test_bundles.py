"""Bundles: what is taken out of an image or artifact, what is refused, and volumes filled once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from agent import errors, settings, world
from agent.accounts import Accounts
from agent.bundles import Bundles
from agent.images import Stores
from agent.pulling import Pulling
from agent.specs import AppFile, Application
from agent.throttle import Throttle
from tests.fakes.sim_world import Node, SimWorld

OWN = settings.LoopSettings().own_dir
APP = Application("q", "quadlet", "r/q:1")


class Store(SimWorld):
    """A device whose podman has one image and one artifact; copies are made in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.mkdir(OWN)
        self.content = {"a.container": b"[Container]"}
        self.titles = ["model.txt"]
        self.size = 100
        self.ran: list[tuple[str, ...]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        self.ran.append(tuple(argv))
        return world.Completed(tuple(argv), *self._answer(list(argv), cwd))

    def _answer(self, argv: list[str], cwd: str | None) -> tuple[int, str, str]:
        match argv:
            case ["podman", "pull", *_, "r/model:1"]:
                return 125, "", "Error: unsupported image-specific operation on artifact"
            case ["podman", "image", "inspect" | "exists", *_, "r/q:1"]:
                return 0, "id1\n", ""
            case ["podman", "image", *_, "r/model:1"]:
                return 1, "", "Error: no such image"
            case ["podman", "artifact", "inspect", "r/model:1"]:
                layers = [
                    {"digest": "sha256:1", "annotations": {"org.opencontainers.image.title": t}}
                    for t in self.titles
                ]
                return 0, json.dumps({"Digest": "d1", "Manifest": {"layers": layers}}), ""
            case ["podman", "image", "mount", _] | ["podman", "volume", "inspect", *_]:
                return 0, "/somewhere\n", ""
            case ["du", *_]:
                return 0, f"{self.size}\t/somewhere\n", ""
            case ["cp", *_] if cwd is not None:
                for name, data in self.content.items():
                    self.mkdir(f"{cwd}/{name}".rsplit("/", 1)[0])
                    self.nodes[f"{cwd}/{name}"] = Node(world.FILE, data)
                self.nodes[f"{cwd}/link"] = Node(world.LINK, b"/etc/shadow")
        return 0, "", ""


def bundles(where: Store) -> Bundles:
    bounds, accounts = settings.LoopSettings(), Accounts(where)
    stores = Stores(where, Pulling(where, bounds, Throttle(0)), accounts)
    return Bundles(where, bounds, stores, accounts)


def test_the_files_of_an_image_are_kept_and_links_are_not_followed() -> None:
    where = Store()
    where.content["conf/x.ini"] = b"x"
    made = bundles(where)
    assert made.files(APP) is None
    made.fetch("r/q:1", "q")
    found = (AppFile("a.container", b"[Container]"), AppFile("conf/x.ini", b"x"))
    assert made.files(APP) == found
    # Another life reads them from the disk, and nothing is left of the copying.
    assert bundles(where).files(APP) == found
    assert ("podman", "image", "unmount", "r/q:1") in where.ran
    assert not [path for path in where.nodes if "scratch" in path]
    made.forget((APP,))
    assert bundles(where).files(APP) == found
    made.forget(())
    assert bundles(where).files(APP) is None


def test_an_image_with_a_whole_system_in_it_is_no_package() -> None:
    where = Store()
    where.size = 17 << 20
    with pytest.raises(errors.Reject, match="at most 16 MiB"):
        bundles(where).fetch("r/q:1", "q")


@pytest.mark.parametrize("title", ["/etc/passwd", "../x", "a//b", "a/./b"])
def test_an_artifact_cannot_write_where_it_wants(title: str) -> None:
    where = Store()
    where.titles = [title]
    with pytest.raises(errors.Reject, match="is not a name for a file"):
        bundles(where).fill("", "q-model-1", "r/model:1", "q-1", "q")
    assert not [argv for argv in where.ran if argv[0] == "cp"]


def test_a_volume_is_stamped_after_its_last_byte() -> None:
    where = Store()
    made = bundles(where)
    made.fill("", "q-model-1", "r/model:1", "q-1", "q")
    assert (
        made.stamps() == {"q-model-1": made.stamp_of("r/model:1")} == {"q-model-1": "artifact d1"}
    )
    where.titles = ["../x"]
    with pytest.raises(errors.Reject):
        made.fill("", "q-model-1", "r/model:1", "q-1", "q")
    assert made.stamps() == {}
