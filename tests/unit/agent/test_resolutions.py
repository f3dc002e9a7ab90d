"""pullPolicy of volumes: when a registry is asked, and what a tag then means for that version.

The parts of the agent are the real ones; podman and skopeo are scripted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from agent import appplan, errors, parts, planner, settings, specs, world
from tests.fakes.clocked_world import ClockedWorld

Json = dict[str, Any]
TAG = "q.io/org/model:1"


class Device:
    """`registry`: what each reference has there; `here`: references in podman's store."""

    def __init__(self, root: Path) -> None:
        self.where = ClockedWorld(root)
        self.where.mkdir("/var/lib/flightctl/homeport")
        self.where.answer = self.answer
        self.registry = {TAG: b'{"layers": [1]}'}
        self.here: set[str] = set()
        self.artifacts: set[str] = set()
        self.words = ""
        self.skopeo = 1
        self.parts = self.life()

    def life(self) -> parts.Parts:
        return parts.assemble(self.where, settings.LoopSettings(), "package", dict)

    def answer(self, argv: tuple[str, ...]) -> world.Completed:
        match argv:
            case ("skopeo", "inspect", "--raw", *_):
                found = self.registry.get(argv[-1].removeprefix("docker://"))
                if found is None:
                    return world.Completed(argv, self.skopeo, "", self.words)
                return world.Completed(argv, 0, found.decode(), "")
            case ("podman", "image", "exists", image):
                return world.Completed(argv, 0 if image in self.here else 1, "", "")
            case ("podman", "image", "inspect", *_):
                return world.Completed(argv, 0 if argv[-1] in self.here else 125, argv[-1], "")
            case ("podman", "artifact", "inspect", image):
                return world.Completed(argv, 0 if image in self.artifacts else 1, "{}", "")
            case ("podman", "pull", *_):
                self.here.add(argv[-1])
                return world.Completed(argv, 0, "", "")
            case ("podman", "--version"):
                return world.Completed(argv, 0, "podman version 5.4.2", "")
        return world.Completed(argv, 1, "", "")

    def pulled(self) -> list[str]:
        return [argv[-1] for argv in self.where.commands if argv[:2] == ("podman", "pull")]

    def asked(self) -> int:
        return sum(argv[:3] == ("skopeo", "inspect", "--raw") for argv in self.where.commands)

    def fetch(self, spec: specs.Spec) -> None:
        """As the loop does it: until nothing is missing."""
        for _ in range(5):
            steps = self.parts.observer.missing(spec)
            if not steps:
                return
            for step in steps:
                self.parts.executor.perform(step, spec)
        raise AssertionError("it does not end")

    def meant(self, spec: specs.Spec) -> str:
        """What the volume is to be filled from."""
        (app,) = spec.applications
        (volume,) = self.parts.applications.wanted_volumes(app)
        return volume.reference


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def version(number: int, policy: str = "Always", reference: str = TAG) -> specs.Spec:
    image = {"reference": reference, **({"pullPolicy": policy} if policy else {})}
    volume = {"name": "model", "image": image, "mount": {"path": "/model"}}
    app = {"name": "web", "appType": "container", "image": "q.io/web:1", "volumes": [volume]}
    annotations = {specs.VERSION: str(number), specs.HASH: f"h{number}"}
    return specs.parse({"metadata": {"annotations": annotations}, "spec": {"applications": [app]}})


def by_digest(content: bytes) -> str:
    return f"q.io/org/model@sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("policy", "is_here", "asks", "pulls"),
    [
        ("Always", False, 1, True),
        ("Always", True, 1, True),
        ("IfNotPresent", False, 0, True),
        ("IfNotPresent", True, 0, False),
        ("", False, 0, True),
        ("", True, 0, False),
        ("Never", True, 0, False),
    ],
)
def test_when_the_registry_is_asked(
    device: Device, policy: str, is_here: bool, asks: int, pulls: bool
) -> None:
    device.here |= {"q.io/web:1"} | ({TAG} if is_here else set())
    device.fetch(version(1, policy))
    meant = by_digest(device.registry[TAG]) if policy == "Always" else TAG
    assert device.asked() == asks
    assert device.pulled() == ([meant] if pulls else [])
    assert device.meant(version(1, policy)) == meant


def test_never_refuses_what_is_not_here_without_a_word_to_the_registry(device: Device) -> None:
    spec = version(1, "Never")
    device.here.add("q.io/web:1")
    words = f"{TAG} is not on this device, and its pullPolicy is Never"
    with pytest.raises(errors.Reject, match=words) as refusal:
        device.fetch(spec)
    assert (refusal.value.cause, refusal.value.element) == (errors.NOT_FOUND, "web")
    assert (device.asked(), device.pulled()) == (0, [])
    # Nor when it is to be filled in again, long after.
    fill = appplan.FillVolume("web", "model", TAG)
    with pytest.raises(errors.Reject, match=words):
        device.parts.executor.perform(fill, spec)


def test_never_takes_an_artifact_too(device: Device) -> None:
    device.here.add("q.io/web:1")
    device.artifacts.add(TAG)
    device.fetch(version(1, "Never"))
    assert (device.asked(), device.pulled()) == (0, [])


def test_what_something_else_may_pull_is_not_withheld(device: Device) -> None:
    spec = version(1, "Never", reference="q.io/web:1")
    assert device.parts.observer.missing(spec) == (planner.PullImage("web", "q.io/web:1"),)
    device.fetch(spec)
    assert device.pulled() == ["q.io/web:1"]


def test_a_tag_that_moves_is_that_of_the_next_version_and_the_one_before_keeps_its_own(
    device: Device,
) -> None:
    first = by_digest(device.registry[TAG])
    device.fetch(version(1))
    device.registry[TAG] = b'{"layers": [2]}'
    assert device.parts.observer.missing(version(1)) == (), "nothing moves by itself"
    device.fetch(version(2))
    second = by_digest(device.registry[TAG])
    assert device.pulled() == ["q.io/web:1", first, second]
    # Also in another life, and on the way back.
    device.parts = device.life()
    assert (device.meant(version(1)), device.meant(version(2))) == (first, second)
    assert device.parts.observer.missing(version(1)) == ()


def test_a_tag_that_has_not_moved_is_not_fetched_again(device: Device) -> None:
    device.fetch(version(1))
    device.fetch(version(2))
    assert device.asked() == 2
    assert device.pulled() == ["q.io/web:1", by_digest(device.registry[TAG])]


def test_after_a_commit_only_that_version_is_known(device: Device) -> None:
    device.fetch(version(1))
    device.fetch(version(2))
    device.parts.bundles.forget(version(2).applications)
    assert device.meant(version(1)) == TAG
    assert device.meant(version(2)) == by_digest(device.registry[TAG])


def test_a_digest_says_all(device: Device) -> None:
    reference = by_digest(b"any")
    device.fetch(version(1, reference=reference))
    assert device.asked() == 0
    assert device.pulled() == ["q.io/web:1", reference]


@pytest.mark.parametrize(
    ("status", "words", "kind", "told"),
    [
        (1, "dial tcp: connection refused", errors.Retry, "q.io does not answer"),
        (1, "manifest unknown", errors.Reject, f"q.io has no {TAG}"),
        (world.NOT_STARTED, "No such file", errors.Reject, "pullPolicy Always needs skopeo"),
    ],
    ids=["away", "no-such-tag", "no-skopeo"],
)
def test_a_registry_that_cannot_be_asked_is_waited_for_or_the_version_refused(
    device: Device, status: int, words: str, kind: type[errors.AgentError], told: str
) -> None:
    device.here |= {TAG, "q.io/web:1"}
    device.registry.clear()
    device.skopeo, device.words = status, words
    with pytest.raises(kind, match=told) as error:
        device.fetch(version(1))
    assert (error.value.component, error.value.element) == (errors.PREFETCH, "web")


def test_a_record_that_is_rotten_is_made_anew(device: Device) -> None:
    device.fetch(version(1))
    (path,) = device.where.path("/var/lib/flightctl/homeport").glob("resolved.json")
    path.write_text("[")
    device.fetch(version(1))
    assert device.meant(version(1)) == by_digest(device.registry[TAG])


def test_a_policy_that_there_is_not_refuses_the_specification() -> None:
    found = version(1, "Sometimes").objection
    assert found is not None
    assert "pullPolicy 'Sometimes' is unknown" in found.detail


def test_the_policy_alone_changes_neither_container_nor_files(device: Device) -> None:
    device.here |= {"q.io/web:1", TAG}
    digests = set()
    for policy in ("", "IfNotPresent", "Never"):
        digests.add(device.parts.observer.wanted(version(1, policy)))
    assert len(digests) == 1
