"""[simulated] Registries that want to be left alone, or give something else than was asked for."""

from __future__ import annotations

from agent import pulling
from tests.fakes.sim_device import Device, application, document
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import SimWorld

ASKED, CAME = f"sha256:{'a' * 64}", f"sha256:{'c' * 64}"
WRONG = f"Error: writing blob: Digest did not match, expected {ASKED}, got {CAME}"
AWAY = "Error: dial tcp: connection refused"


def device_on_one() -> Device:
    where = SimWorld(7)
    where.podman.registry = {"r/web:1": Image(health=True), "r/web:2": Image(health=True)}
    device = Device(where)
    order(device, 1)
    device.run()
    assert device.version() == "1"
    return device


def order(device: Device, version: int, image: str = "r/web:1") -> None:
    device.offer(document(version, [], [application("web", image)]))


def test_a_registry_is_not_asked_again_before_it_wants_to_be() -> None:
    device = device_on_one()
    podman, began = device.world.podman, device.world.monotonic()
    podman.faults = ['retry-after: 1800\nError: reading manifest 2: StatusCode: 429, ""']
    order(device, 2, "r/web:2")
    device.run()
    assert (device.version(), podman.pulls) == ("2", 1 + 2)
    assert 1800 <= device.world.monotonic() - began < 3600


def test_wrong_content_that_goes_on_refuses_the_version_and_touches_nothing() -> None:
    """Whatever else the network does meanwhile."""
    device = device_on_one()
    podman, made = device.world.podman, device.world.podman.made
    podman.faults = [WRONG, AWAY, WRONG, AWAY, *[WRONG] * 9]
    order(device, 2, "r/web:2")
    device.run()
    condition = device.condition()
    assert (condition["status"], condition["reason"]) == ("False", "Error")
    message = condition["message"]
    assert "While Preparing: prefetch failed for web: invalid configuration or input" in message
    assert "has sha256:cccccccccccc in place of sha256:aaaaaaaaaaaa, 5 times in a row" in message
    assert podman.pulls == 1 + pulling.WRONG_MAX + 2
    assert (device.version(), podman.made) == ("1", made)


def test_wrong_content_that_passes_is_no_reason_to_refuse() -> None:
    device = device_on_one()
    device.world.podman.faults = [WRONG] * (pulling.WRONG_MAX - 1)
    order(device, 2, "r/web:2")
    device.run()
    assert device.version() == "2"
