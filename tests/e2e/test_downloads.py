"""Downloads of a real device from a real registry that asks for a password: refused, broken off,
gone on with, held back, stopped while there is room, and tidied away.

Real: the whole agent, systemd, podman, the registry with TLS and htpasswd, the service. The wire in
between is a relay that counts and breaks. podman's storage is small, for it is to be filled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, images, lockedregistry, processes
from tests.e2e.docks import (
    AUTH_FILE,
    BROKEN_MIB,
    DOWNLOADS,
    HEAVY_MIB,
    HOST,
    MIB,
    Dock,
    app,
    docked,
    push_heavy,
    secret,
)
from tests.e2e.yard import condition

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

STORE = "/var/lib/containers"
STORE_MIB = 320
RATE_MIB = 4


@pytest.fixture(scope="module")
def dock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dock]:
    with docked(tmp_path_factory.mktemp("dock"), STORE, STORE_MIB) as dock:
        registry = dock.yard.site.registry
        push_heavy(registry, "v1", [os.urandom(HEAVY_MIB * MIB)])
        push_heavy(registry, "v2", [os.urandom(HEAVY_MIB * MIB)])
        push_heavy(registry, "v3", [os.urandom(3 * RATE_MIB * MIB)])
        # A registry says how large it is as it comes, not as it will be.
        push_heavy(registry, "swells", [bytes(MIB)] * (STORE_MIB + 100))
        yield dock


def test_a_wrong_secret_and_an_image_that_is_not_there_refuse_the_version(dock: Dock) -> None:
    refusals = {
        "no secret": ({"config": []}, app("v1"), "authentication failed"),
        "wrong secret": ({"config": secret("wrong")}, app("v1"), "authentication failed"),
        "no such tag": ({"config": secret()}, app("v9"), f"{HOST} has no {HOST}/heavy:v9"),
    }
    for what, (config, wanted, words) in refusals.items():
        status = dock.yard.declare(applications=[wanted], **config)
        message = condition(status)["message"]
        print(f"{what}: {message}")
        assert condition(status)["reason"] == "Error", what
        assert "While Preparing: prefetch failed for web: " in message
        assert words in message
        if "secret" in what:
            assert f"{HOST} does not let this device have it" in message
            assert AUTH_FILE in message
    assert not dock.device.path(AUTH_FILE).exists()


def test_a_registry_that_is_down_is_waited_for_and_a_broken_layer_goes_on_where_it_was(
    dock: Dock,
) -> None:
    """The secret comes with the version; the agent is killed in between."""
    dock.wire.down()
    dock.yard.order(applications=[app("v1")], config=secret())
    print(dock.said(f"{HOST} does not answer"))

    dock.wire.break_after(BROKEN_MIB * MIB, stays_down=True)
    dock.wire.up()
    begun, before = dock.broken()
    assert begun > MIB
    dock.goes_on(begun, before)
    assert dock.device.read(AUTH_FILE) == lockedregistry.auth(HOST)
    shown = dock.device.exec("find", DOWNLOADS, "-type", "f").out
    assert shown == "", "nothing of it is left"


def test_a_disk_that_fills_up_stops_the_download_and_nothing_else(dock: Dock) -> None:
    message = dock.stopped_for_room(app("swells"), secret())
    assert "no room for it" in message or "no room for" in message
    dock.yard.serves(8081, "web v1\n")
    dock.has_room_again(STORE_MIB / 2)
    # It is not tried again and again; a version that fits is.
    status = dock.yard.declare(120, applications=[app("v2")], config=secret())
    assert condition(status)["reason"] == "Updated"
    dock.yard.serves(8081, "web v2\n")


def test_a_download_is_no_faster_than_its_limit(dock: Dock) -> None:
    """Counted at both ends of the same clock; a slow machine only makes it slower."""
    dock.yard.site.set({"download-rate-limit": f"{RATE_MIB}Mi"})
    before, began = dock.wire.carried, time.monotonic()
    samples = []
    dock.yard.order(applications=[app("v3")], config=secret())

    def is_there() -> bool:
        samples.append((time.monotonic() - began, dock.wire.carried - before))
        return dock.device.http(8081) == "web v3\n"

    processes.until(is_there, "it serves v3", timeout_s=90, every_s=0.1, state=dock.yard.how_it_is)
    # What the bucket holds, and what buffers on the way take at once.
    burst = (RATE_MIB + 6) * MIB
    size = max(count for _, count in samples)
    print(f"{size / MIB:.1f} MiB in {samples[-1][0]:.1f} s with a limit of {RATE_MIB} MiB/s")
    assert size > 3 * RATE_MIB * MIB
    first = next(at for at, count in samples if count > MIB)
    for at, count in (one for one in samples if one[0] >= first):
        assert count < burst + (at - first + 1.0) * RATE_MIB * MIB, (at, count)
    dock.yard.settled()


def test_pruning_that_comes_later_knows_what_was_before_it_and_takes_nothing_else(
    dock: Dock,
) -> None:
    device, registry = dock.device, dock.yard.site.registry
    for tag in ("v1", "v2"):
        registry.push_artifact("model", tag, images.artifact({"model.txt": f"{tag}\n"}))

    def wanted(tag: str, model: str) -> Json:
        volume = {"name": "model", "image": {"reference": f"{HOST}/model:{model}"}}
        return {**app(tag), "volumes": [{**volume, "mount": {"path": "/model"}}]}

    def here() -> set[str]:
        shown = device.podman("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
        shown += device.podman("artifact", "ls", "--format", "{{.Repository}}:{{.Tag}}").out.split()
        return {one.removeprefix(f"{HOST}/") for one in shown}

    dock.yard.declare(120, applications=[wanted("v1", "v1")], config=secret())
    # Somebody's own container keeps the image of before, and somebody has pulled one by hand.
    device.podman("create", "--name", "mine", f"{HOST}/heavy:v1", check=True)
    by_hand = "localhost:5000/web:v3"
    device.podman("pull", "--quiet", by_hand, check=True)
    status = dock.yard.declare(120, applications=[wanted("v2", "v2")], config=secret())
    assert condition(status)["reason"] == "Updated"
    assert {"heavy:v1", "heavy:v2", "model:v1", "model:v2", by_hand} <= here()

    dock.yard.site.set({"image-pruning": "{enabled: true}"})
    processes.until(
        lambda: not here() & {"model:v1", "heavy:v3"},
        "what nothing needs is gone",
        timeout_s=60,
        state=lambda: f"{here()}\n{dock.yard.how_it_is()}",
    )
    assert {"heavy:v1", "heavy:v2", "model:v2", by_hand} <= here()
    # What cannot be removed holds nobody up, and goes when it can.
    status = dock.yard.declare(120, applications=[wanted("v2", "v1")], config=secret())
    assert condition(status)["reason"] == "Updated"
    device.podman("rm", "mine", check=True)
    processes.until(
        lambda: "heavy:v1" not in here() and "model:v2" not in here(),
        "the rest goes too",
        timeout_s=60,
        state=lambda: f"{here()}\n{dock.yard.how_it_is()}",
    )
    assert {"heavy:v2", "model:v1", by_hand} <= here()
    dock.yard.serves(8081, "web v2\n")
