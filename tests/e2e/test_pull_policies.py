"""When the images and artifacts of volumes are fetched: Always, IfNotPresent, Never.

Real: the whole agent, podman, skopeo, the registry, the service; volumes of images and artifacts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, images, processes, rootfs
from tests.e2e.yard import Yard, condition

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

REGISTRY = f"localhost:{rootfs.REGISTRY_PORT}"
FILE = "model.txt"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


def move_tags(yard: Yard, content: str) -> None:
    """`model` is an artifact, `data` an image; another of each nobody fetches anew."""
    registry = yard.site.registry
    for name in ("model", "old-model"):
        registry.push_artifact(name, "v1", images.artifact({FILE: f"{content}\n"}))
    for name in ("data", "old-data"):
        registry.push(name, "v1", images.package({f"/{FILE}": f"{content}\n"}))


def volume(name: str, policy: str) -> Json:
    source = {"reference": f"{REGISTRY}/{name}:v1", "pullPolicy": policy}
    return {"name": name, "image": source, "mount": {"path": f"/www/{name}"}}


VOLUMES = [
    volume("model", "Always"),
    volume("data", "Always"),
    volume("old-model", "IfNotPresent"),
    volume("old-data", "IfNotPresent"),
]


def app(number: int, tag: str = "v1", volumes: list[Json] = VOLUMES) -> Json:
    return {
        "name": "web",
        "appType": "container",
        "image": f"{REGISTRY}/web:{tag}",
        "ports": ["8081:80"],
        "envVars": {"NUMBER": str(number)},
        "volumes": volumes,
    }


def shown(yard: Yard, *names: str) -> list[str]:
    return [yard.device.http(8081, f"/{name}/{FILE}").strip() for name in names]


def shows(yard: Yard, *expected: str) -> None:
    processes.until(
        lambda: shown(yard, "model", "data", "old-model", "old-data") == list(expected),
        f"its volumes hold {expected}",
        timeout_s=60,
        state=lambda: f"{shown(yard, 'model', 'data')}\n{yard.how_it_is()}",
    )


def test_always_asks_for_each_version_and_a_version_that_fails_gives_back_what_was(
    yard: Yard,
) -> None:
    move_tags(yard, "one")
    status = yard.declare(120, applications=[app(1)])
    assert condition(status)["reason"] == "Updated", condition(status)
    shows(yard, "one", "one", "one", "one")
    (found,) = status["applications"]
    assert [v["reference"] for v in found["volumes"]] == [
        v["image"]["reference"] for v in VOLUMES
    ], "the status names the tags that were asked for"
    move_tags(yard, "two")
    shows(yard, "one", "one", "one", "one")
    status = yard.declare(120, applications=[app(2)])
    assert condition(status)["reason"] == "Updated", condition(status)
    shows(yard, "two", "two", "one", "one")
    move_tags(yard, "three")
    status = yard.declare(180, applications=[app(3, "broken")])
    assert condition(status)["reason"] == "Error", condition(status)
    shows(yard, "two", "two", "one", "one")
    # podman 5.4 cannot list artifacts any more where a name has passed from one to another.
    assert yard.device.podman("artifact", "ls").code == 0


def test_always_waits_for_a_registry_that_is_away(yard: Yard) -> None:
    yard.site.registry.stop()
    yard.order(applications=[app(4)])
    processes.until(
        lambda: "does not answer" in condition(yard.status()).get("message", ""),
        "it says so",
        timeout_s=60,
        state=yard.how_it_is,
    )
    shows(yard, "two", "two", "one", "one")
    yard.site.registry.start()
    status = yard.settled(180)
    assert condition(status)["reason"] == "Updated", condition(status)
    shows(yard, "three", "three", "one", "one")


def test_never_takes_what_somebody_has_put_there_and_nothing_else(yard: Yard) -> None:
    registry = yard.site.registry
    registry.push_artifact("own", "v1", images.artifact({FILE: "own\n"}))
    wanted = app(5, volumes=[volume("own", "Never")])
    message = condition(yard.declare(120, applications=[wanted]))["message"]
    assert "While Preparing: prefetch failed for web: required resource not found" in message
    assert f"{REGISTRY}/own:v1 is not on this device, and its pullPolicy is Never" in message
    yard.device.podman("artifact", "pull", "--quiet", f"{REGISTRY}/own:v1", check=True)
    status = yard.declare(120, applications=[{**wanted, "envVars": {"NUMBER": "6"}}])
    assert condition(status)["reason"] == "Updated", condition(status)
    processes.until(
        lambda: shown(yard, "own") == ["own"], "it is there", timeout_s=60, state=yard.how_it_is
    )
