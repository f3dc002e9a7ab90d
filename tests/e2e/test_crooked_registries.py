"""A registry that gives something else than was asked for, or asks to be left alone for a while.

Real: the whole agent, its mirror, podman, TLS, the service. The registry is ours, for a real one
does not tamper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import crookedregistry, devices, images, processes
from tests.e2e.crookedregistry import BUSY, DOWN, LAYER, MANIFEST, Crooked
from tests.e2e.docks import DOWNLOADS
from tests.e2e.yard import Yard, condition

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

NAME, PORT = "registry.yard", 5444
HOST = f"{NAME}:{PORT}"
SHOWN_CHARS = len("sha256:") + 12
# Four pauses between five attempts take 75 s and a tenth; a busy machine more.
REFUSED_S = 300


@dataclass
class Port:
    yard: Yard
    registry: Crooked

    def here(self) -> str:
        """What podman has, and what the agent has begun."""
        shown = self.yard.device.podman("images", "--no-trunc").out
        shown += self.yard.device.podman("artifact", "ls").out
        return shown + self.yard.device.exec("find", DOWNLOADS, "-type", "f").out

    def served(self, text: str) -> None:
        processes.until(
            lambda: self.yard.device.http(8081) == text,
            f"it serves {text!r}",
            timeout_s=60,
            state=self.yard.how_it_is,
        )


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    folder = tmp_path_factory.mktemp("port")
    with (
        crookedregistry.serving(folder / "crooked", NAME) as registry,
        Yard(folder, ports={PORT: registry.port}) as yard,
    ):
        yard.device.write("/etc/hosts", f"127.0.0.1 localhost {NAME}\n")
        yard.device.write(f"/etc/containers/certs.d/{HOST}/ca.crt", registry.authority.decode())
        yield Port(yard, registry)


def app(reference: str, volume: str = "") -> Json:
    found: Json = {"name": "web", "appType": "container", "image": reference, "ports": ["8081:80"]}
    if volume:
        source = {"reference": volume}
        found["volumes"] = [{"name": "model", "image": source, "mount": {"path": "/model"}}]
    return found


def refused(port: Port, **spec: Any) -> str:
    """The last message, after one that says that it is tried again."""
    port.yard.order(**spec)

    def is_tried_again() -> bool:
        return "tried again" in condition(port.yard.status()).get("message", "")

    processes.until(is_tried_again, "it is tried again", timeout_s=60, state=port.yard.how_it_is)
    status = port.yard.settled(REFUSED_S)
    message = str(condition(status)["message"])
    print(message)
    assert condition(status)["reason"] == "Error"
    assert "While Preparing: prefetch failed for web: invalid configuration or input: " in message
    assert "5 times in a row" in message
    return message


def test_a_registry_that_is_busy_or_down_is_waited_for(port: Port) -> None:
    registry = port.registry
    registry.hold_image("v1", images.web("v1"))
    registry.lie, registry.times, registry.retry_after = BUSY, 3, "1"
    status = port.yard.declare(120, applications=[app(f"{HOST}/web:v1")])
    assert (condition(status)["reason"], registry.times) == ("Updated", 0)
    port.served("web v1\n")
    registry.hold_image("v2", images.web("v2"))
    registry.lie, registry.times, registry.retry_after = DOWN, 4, "7"
    status = port.yard.declare(120, applications=[app(f"{HOST}/web:v2")])
    assert (condition(status)["reason"], registry.times) == ("Updated", 0)
    port.served("web v2\n")


def test_a_layer_that_is_another_refuses_the_version_and_nothing_of_it_is_kept(port: Port) -> None:
    registry = port.registry
    digest = registry.hold_image("v3", images.web("v3"))
    layer = images.digest(images.build(images.web("v3")).layer)
    registry.lie, registry.times = LAYER, None
    message = refused(port, applications=[app(f"{HOST}/web@{digest}")])
    assert f"{HOST}/web has sha256:" in message
    assert f"in place of {layer[:SHOWN_CHARS]}, " in message
    assert digest not in port.here()
    assert DOWNLOADS not in port.here()
    port.served("web v2\n")
    # It has been put right, and somebody asks once more.
    registry.lie = ""
    again = {**app(f"{HOST}/web@{digest}"), "envVars": {"AGAIN": "yes"}}
    status = port.yard.declare(120, applications=[again])
    assert condition(status)["reason"] == "Updated"
    port.served("web v3\n")


def test_an_artifact_whose_manifest_is_another_refuses_the_version(port: Port) -> None:
    registry = port.registry
    registry.hold_image("v4", images.web("v4"))
    digest = registry.hold_artifact("m1", {"model.txt": "m1\n"})
    registry.lie, registry.times = MANIFEST, None
    wanted = app(f"{HOST}/web:v4", f"{HOST}/model@{digest}")
    message = refused(port, applications=[wanted])
    assert f"{HOST}/model has sha256:" in message
    assert f"in place of {digest[:SHOWN_CHARS]}, " in message
    assert digest not in port.here()
    port.served("web v3\n")
