"""The stand-in for bootc says what bootc says: slots as documents, of both generations.

[simulated] No real bootc printed these; they follow its published structures and fixtures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.bootc.host import Deployment, Host, Image, document

OLD = Deployment(
    Image(
        "quay.io/example/someimage:v1",
        "registry",
        digest="sha256:736b",
        version="nightly",
        timestamp="2023-09-30T19:22:16Z",
        architecture="amd64",
    ),
    stateroot="default",
    checksum="2683",
    serial=0,
)
NEW = Deployment(
    Image(
        "quay.io/example/someimage:v2",
        "containers-storage",
        digest="sha256:16dc",
        version="nightly",
        timestamp="2023-10-14T19:22:15Z",
        architecture="amd64",
    ),
    stateroot="default",
    checksum="3c6d",
    serial=0,
)
STAGED = Host(staged=NEW, booted=OLD)


def test_after_a_switch_the_document_is_bootcs_to_the_last_field() -> None:
    assert document(STAGED) == {
        "apiVersion": "org.containers.bootc/v1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {
            "image": {"image": "quay.io/example/someimage:v2", "transport": "containers-storage"},
            "bootOrder": "default",
        },
        "status": {
            "staged": {
                "image": {
                    "image": {
                        "image": "quay.io/example/someimage:v2",
                        "transport": "containers-storage",
                    },
                    "version": "nightly",
                    "timestamp": "2023-10-14T19:22:15Z",
                    "imageDigest": "sha256:16dc",
                    "architecture": "amd64",
                },
                "cachedUpdate": None,
                "incompatible": False,
                "pinned": False,
                "softRebootCapable": False,
                "downloadOnly": False,
                "store": "ostreeContainer",
                "ostree": {"stateroot": "default", "checksum": "3c6d", "deploySerial": 0},
                "composefs": None,
            },
            "booted": {
                "image": {
                    "image": {"image": "quay.io/example/someimage:v1", "transport": "registry"},
                    "version": "nightly",
                    "timestamp": "2023-09-30T19:22:16Z",
                    "imageDigest": "sha256:736b",
                    "architecture": "amd64",
                },
                "cachedUpdate": None,
                "incompatible": False,
                "pinned": False,
                "softRebootCapable": False,
                "downloadOnly": False,
                "store": "ostreeContainer",
                "ostree": {"stateroot": "default", "checksum": "2683", "deploySerial": 0},
                "composefs": None,
            },
            "rollback": None,
            "rollbackQueued": False,
            "type": "bootcHost",
            "usrOverlay": None,
            "readOnly": False,
        },
    }


def test_off_a_bootc_host_everything_is_null() -> None:
    assert document(Host()) == {
        "apiVersion": "org.containers.bootc/v1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {"image": None, "bootOrder": "default"},
        "status": {
            "staged": None,
            "booted": None,
            "rollback": None,
            "rollbackQueued": False,
            "type": None,
        },
    }


def test_the_older_generation_lacks_what_it_did_not_know() -> None:
    shown = document(STAGED, is_modern=False)
    assert shown["apiVersion"] == "org.containers.bootc/v1alpha1"
    newer = {"softRebootCapable", "downloadOnly", "composefs", "usrOverlay", "readOnly"}
    assert not newer & _keys(shown)
    assert newer < _keys(document(STAGED))


@pytest.mark.parametrize(
    ("host", "wanted", "order"),
    [
        (Host(booted=OLD, rollback=NEW), OLD, "default"),
        (Host(booted=OLD, staged=NEW), NEW, "default"),
        (Host(booted=OLD, rollback=NEW, is_rollback_queued=True), NEW, "rollback"),
    ],
    ids=["at rest", "staged", "rollback queued"],
)
def test_the_specification_is_what_boots_next(host: Host, wanted: Deployment, order: str) -> None:
    spec = document(host)["spec"]
    assert wanted.image is not None
    assert spec["image"]["image"] == wanted.image.reference
    assert spec["bootOrder"] == order


def test_a_deployment_that_no_image_made_is_incompatible_and_has_no_image() -> None:
    slot = document(Host(booted=replace(OLD, image=None)))["status"]["booted"]
    assert (slot["image"], slot["store"], slot["incompatible"]) == (None, None, True)


def _keys(value: Any) -> set[str]:
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(_keys(each) for each in value.values()))
