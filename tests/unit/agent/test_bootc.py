"""What bootc, rpm-ostree and greenboot are told, and how their answers are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent import bootc, errors, greenboot, rpmostree, system, world
from agent.osimage import BOOTC, PACKAGE, RPM_OSTREE, Slot, Slots

D1, D2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
Json = dict[str, Any]


def slot(image: str, transport: str, digest: str, checksum: str, **more: Any) -> Json:
    return {
        "image": {
            "image": {"image": image, "transport": transport},
            "version": "nightly",
            "timestamp": "2023-10-14T19:22:15Z",
            "imageDigest": digest,
            "architecture": "amd64",
        },
        "cachedUpdate": None,
        "incompatible": False,
        "pinned": False,
        "store": "ostreeContainer",
        "ostree": {"stateroot": "default", "checksum": checksum, "deploySerial": 0},
        **more,
    }


def host(**status: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "org.containers.bootc/v1",
            "kind": "BootcHost",
            "metadata": {"name": "host"},
            "spec": {"image": None, "bootOrder": "default"},
            "status": {"staged": None, "booted": None, "rollback": None, **status},
        }
    )


NEWER: Json = {"softRebootCapable": False, "downloadOnly": False, "composefs": None}


@pytest.mark.parametrize("more", [{}, NEWER], ids=["old", "new"])
def test_the_slots_of_a_status_of_either_age_are_read(more: Json) -> None:
    text = host(
        staged=slot("quay.io/e/os:v2", "containers-storage", D2, "3c6d", **more),
        booted=slot("quay.io/e/os:v1", "registry", D1, "2683", **more),
        rollbackQueued=False,
        type="bootcHost",
    )
    found = bootc.slots(text)
    assert found == Slots(
        Slot("quay.io/e/os:v1", D1, "2683.0"), Slot("quay.io/e/os:v2", D2, "3c6d.0"), None
    )


def test_a_queued_rollback_is_read() -> None:
    booted, other = slot("os:2", "registry", D2, "b"), slot("os:1", "registry", D1, "a")
    found = bootc.slots(host(booted=booted, rollback=other, rollbackQueued=True))
    assert found == Slots(Slot("os:2", D2, "b.0"), None, Slot("os:1", D1, "a.0"), True)


def test_a_slot_without_an_image_is_a_slot() -> None:
    found = bootc.slots(host(booted={"image": None, "ostree": None}))
    assert found == Slots(Slot(""))


def test_a_host_that_bootc_did_not_boot_has_no_slots() -> None:
    assert bootc.slots(host(rollbackQueued=False, type=None)) is None


@pytest.mark.parametrize("text", ["", "Fetching layers", "[]", "{}", '{"status": 3}'])
def test_what_is_no_status_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError):
        bootc.slots(text)


def test_staging_takes_what_podman_has_pulled_and_keeps_the_rest() -> None:
    words = "bootc switch --transport containers-storage --retain os:2"
    assert bootc.stage_argv("os:2") == words.split()


@pytest.mark.parametrize(
    ("words", "kind", "cause"),
    [
        ("error: write: No space left on device", errors.Retry, errors.RESOURCE_EXHAUSTED),
        ("error: System not booted via bootc", errors.Reject, errors.FAILED_PRECONDITION),
        (
            "error: This command must be executed as the root user",
            errors.Reject,
            errors.PERMISSION_DENIED,
        ),
        ("error: Switching: whatever comes", errors.Retry, errors.UNAVAILABLE),
        ("", errors.Retry, errors.UNAVAILABLE),
    ],
)
def test_failures_are_told_apart(words: str, kind: type[errors.AgentError], cause: str) -> None:
    error = bootc.error(f"layer 1/9\n{words}\n", image="os:2")
    assert isinstance(error, kind)
    assert (error.cause, error.component, error.element) == (cause, errors.OS, "os:2")


def deployment(reference: str, **fields: Any) -> Json:
    return {"container-image-reference": reference, "booted": False, "staged": False, **fields}


def test_rpm_ostree_lists_its_deployments_in_the_order_of_the_boot_loader() -> None:
    fresh = deployment("ostree-unverified-registry:q.io/os:3", id="c", staged=True)
    here = deployment(
        "ostree-unverified-image:containers-storage:q.io/os:2",
        id="b",
        booted=True,
        **{"container-image-reference-digest": D2},
    )
    other = deployment("ostree-image-signed:docker://q.io/os:1", id="a")
    found = rpmostree.slots(json.dumps({"deployments": [fresh, here, other]}))
    slots = Slot("q.io/os:2", D2, "b"), Slot("q.io/os:3", "", "c"), Slot("q.io/os:1", "", "a")
    assert found == Slots(*slots)
    queued = rpmostree.slots(json.dumps({"deployments": [other, here]}))
    assert queued == Slots(slots[0], None, slots[2], True)
    assert rpmostree.slots(json.dumps({"deployments": [other]})) is None


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("ostree-unverified-registry:q.io/os:1", "q.io/os:1"),
        ("ostree-remote-registry:fedora:q.io/os:1", "q.io/os:1"),
        ("ostree-remote-image:fedora:docker://q.io/os", "q.io/os"),
        ("ostree-image-signed:registry:q.io/os", "q.io/os"),
        (f"ostree-unverified-image:docker://q.io/os@{D1}", f"q.io/os@{D1}"),
        ("q.io/os:1", "q.io/os:1"),
        ("", ""),
    ],
)
def test_the_image_in_a_reference_of_rpm_ostree(reference: str, image: str) -> None:
    assert rpmostree.image_of(reference) == image


class Scripted:
    """Answers commands; whoever is not in the script is not installed."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        self.answers = answers
        self.is_whole = True

    def is_whole_machine(self) -> bool:
        return self.is_whole

    def run(self, argv: list[str], **options: Any) -> world.Completed:
        key = "_".join(argv[:2]).replace("-", "_")
        status, text = self.answers.get(key, (world.NOT_STARTED, ""))
        return world.Completed(tuple(argv), status, text, "")


BOOTED = host(booted=slot("os:1", "registry", D1, "a"))


@pytest.mark.parametrize(
    ("answers", "mode"),
    [
        ({}, PACKAGE),
        ({"bootc___version": (0, ""), "bootc_status": (0, BOOTED)}, BOOTC),
        # Another bootc holds the lock: no reason to be something else.
        ({"bootc___version": (0, ""), "bootc_status": (1, "")}, BOOTC),
        ({"bootc___version": (0, ""), "bootc_status": (0, "Fetching")}, BOOTC),
        ({"bootc___version": (0, ""), "bootc_status": (0, host())}, PACKAGE),
        ({"rpm_ostree___version": (0, "")}, RPM_OSTREE),
        (
            {
                "bootc___version": (0, ""),
                "bootc_status": (0, host()),
                "rpm_ostree___version": (0, ""),
            },
            RPM_OSTREE,
        ),
    ],
)
def test_the_mode_is_that_of_the_tool_that_booted_this_machine(
    answers: dict[str, tuple[int, str]], mode: str
) -> None:
    where = Scripted(**answers)
    assert system.mode_of(where) == mode  # type: ignore[arg-type]
    where.is_whole = False
    assert system.mode_of(where) == PACKAGE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ({}, None),
        ({"systemctl_is_enabled": (1, "disabled\n")}, None),
        ({"systemctl_is_enabled": (0, "enabled\n"), "systemctl_is_active": (0, "active\n")}, True),
        (
            {"systemctl_is_enabled": (0, "enabled\n"), "systemctl_is_active": (3, "inactive\n")},
            False,
        ),
        # A question that nobody answers holds up nothing.
        ({"systemctl_is_enabled": (0, "enabled\n")}, True),
    ],
)
def test_whether_a_boot_was_called_good(
    answers: dict[str, tuple[int, str]], verdict: bool | None
) -> None:
    assert greenboot.is_boot_complete(Scripted(**answers)) is verdict  # type: ignore[arg-type]
