"""`examples/`: what each README promises, on a real device. The operating system has a test of its
own: `test_os_update`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import devices, processes
from tests.e2e.checkout import CHECKOUT
from tests.e2e.yard import Yard, condition
from tests.fakes import git_server

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

EXAMPLES = CHECKOUT / "examples"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard"), "one") as yard:
        yield yard


def test_a_device_without_a_fleet(yard: Yard) -> None:
    manifest = EXAMPLES / "device-without-a-fleet/device.yaml"
    argv = ["patch", "device", yard.uid, "--type", "merge"]
    yard.site.service.kubectl(*argv, "--patch-file", str(manifest))
    _until(yard, lambda: yard.device.read("/etc/workshop/sign") == "Do not feed the robot.\n")
    _until(yard, lambda: yard.device.http(8080) == "web v1\n")
    argv = ["patch", "device", yard.uid, "--type", "json"]
    removed = json.dumps([{"op": "remove", "path": "/spec/applications"}])
    yard.site.service.kubectl(*argv, "--patch", removed)
    _until(yard, lambda: not yard.device.podman("ps", "--quiet").out)
    assert yard.device.read("/etc/workshop/sign") == "Do not feed the robot.\n"


def test_the_first_fleet(yard: Yard) -> None:
    device, service = yard.device, yard.site.service
    service.kubectl("label", "--overwrite", "device", yard.uid, "site=harbour")

    def serves(version: str, interval_s: int) -> bool:
        return (
            device.http(8080) == f"web {version}\n"
            and device.read("/etc/lighthouse/lamp.conf") == f"interval = {interval_s}s\n"
            and f"({version})" in device.read("/etc/motd")
        )

    for manifest, version, interval_s in (("1-fleet", "v1", 10), ("2-new-version", "v2", 5)):
        _apply(yard, f"first-fleet/{manifest}.yaml")
        _until(yard, lambda v=version, i=interval_s: serves(v, i))
    _apply(yard, "first-fleet/3-broken.yaml")
    _until(yard, lambda: "health check failed" in condition(yard.status()).get("message", ""))
    _until(yard, lambda: serves("v2", 5))
    assert "health check failed" in service.homeport("describe", "device", yard.uid)
    _apply(yard, "first-fleet/4-better.yaml")
    _until(yard, lambda: serves("v3", 4))
    service.kubectl("delete", "fleet", "lighthouses")
    service.kubectl("label", "device", yard.uid, "site-")


def test_containers_and_quadlets(yard: Yard) -> None:
    _move_to(yard, "shop")
    _apply(yard, "applications/1-fleet.yaml")
    _until_pages(yard, "web v1\n")
    # The file of its own specification left with it: the fleet's counts now.
    assert not yard.device.read("/etc/workshop/sign")
    _apply(yard, "applications/2-next-version.yaml")
    _until_pages(yard, "web v2\n")
    containers = yard.device.podman("ps", "--quiet", check=True).out.split()
    yard.device.podman("rm", "--force", "--time", "0", *containers, check=True)
    _until_pages(yard, "web v2\n")
    yard.site.service.kubectl("delete", "fleet", "shops")
    assert yard.device.http(8080) == "web v2\n"


def test_hooks_and_reload(yard: Yard) -> None:
    device = yard.device
    _move_to(yard, "lamp")
    _apply(yard, "hooks-and-reload/1-fleet.yaml")
    _until(yard, lambda: device.read("/run/lamp.now") == "brightness = 10\n")
    before = _main_process(yard)
    assert before > 0
    _apply(yard, "hooks-and-reload/2-brighter.yaml")
    _until(yard, lambda: device.read("/run/lamp.now") == "brightness = 90\n")
    _until(yard, lambda: condition(yard.status()).get("reason") == "Updated")
    # What the service has read last is forgotten, so that only another reload can say it again.
    device.write("/run/lamp.now", "")
    device.write("/etc/lamp.conf", "brightness = 0\n")
    _until(yard, lambda: device.read("/run/lamp.now") == "brightness = 90\n")
    assert _main_process(yard) == before
    assert device.boots == 1
    yard.site.service.kubectl("delete", "fleet", "lamps")


def test_a_workload_holds_updates(yard: Yard) -> None:
    device = yard.device
    _move_to(yard, "press")
    device.write("/var/tmp/batch", "")
    _apply(yard, "hold-updates/1-fleet.yaml")
    _until(yard, lambda: "press" in device.exec("ls", "/run/flightctl/hold.d").out)
    _until(yard, lambda: condition(yard.status()).get("reason") == "Updated")
    _apply(yard, "hold-updates/2-more-pressure.yaml")
    _until(yard, lambda: "held by press until" in condition(yard.status()).get("message", ""))
    assert device.read("/etc/press/pressure.conf") == "bar = 6\n"
    device.exec("rm", "/var/tmp/batch", check=True)
    _until(yard, lambda: device.read("/etc/press/pressure.conf") == "bar = 9\n")
    yard.site.service.kubectl("delete", "fleet", "presses")


def test_a_fleet_with_parameters(yard: Yard, tmp_path: Path) -> None:
    folder = EXAMPLES / "fleet-with-parameters"
    device, service = yard.device, yard.site.service
    service.kubectl("label", "device", yard.uid, "role=gate", "stage=test")
    _apply(yard, "fleet-with-parameters/fleet.yaml")
    missing = 'config[0].inline[0].path: line 1, column 21: the device has no label "site"'
    _until(yard, lambda: missing in _info(yard))
    service.kubectl("label", "--overwrite", "device", yard.uid, "site=Berlin")
    conf = f"host = {yard.uid}\nzone = \nstage = test\ndebug = true\n"
    _until(yard, lambda: device.read("/etc/gates/berlin.conf") == conf)
    _until(yard, lambda: device.http(8080) == "web v1\n")
    barrier = "/etc/gates/barrier.conf"
    with git_server.running(tmp_path / "git") as server:
        tree = server.repository("sites")
        tree.push(**_in_git(folder))
        repository = yaml.safe_load((folder / "repository.yaml").read_text())
        repository["spec"] = server.https_spec("sites")
        service.kubectl("apply", "-f", "-", stdin=json.dumps(repository))
        _apply(yard, "fleet-with-parameters/fleet-with-files.yaml")
        _until(yard, lambda: device.read(barrier) == "barrier = 2.4 m\n")
        service.kubectl("label", "--overwrite", "device", yard.uid, "site=Bonn")
        missing = 'config[1].gitRef.path "/sites/bonn": there is no "sites/bonn" in '
        _until(yard, lambda: missing in _info(yard))
        assert device.read(barrier) == "barrier = 2.4 m\n"
        tree.push(**{"sites/bonn/etc/gates/barrier.conf": "barrier = 2.0 m\n"})
        _until(yard, lambda: device.read(barrier) == "barrier = 2.0 m\n")
        _until(yard, lambda: device.read("/etc/gates/bonn.conf") == conf)
        assert not device.read("/etc/gates/berlin.conf")
    service.kubectl("delete", "fleet", "gates")
    service.kubectl("label", "device", yard.uid, "role-", "site-", "stage-")


def _info(yard: Yard) -> str:
    found = yard.site.service.get("device", yard.uid)
    return str(found["status"]["updated"].get("info"))


def _in_git(folder: Path) -> dict[str, str]:
    """What the README says to put into a repository."""
    return {
        str(path.relative_to(folder / "git")): path.read_text()
        for path in (folder / "git").rglob("*")
        if path.is_file()
    }


def test_a_fleet_from_git(yard: Yard, tmp_path: Path) -> None:
    folder = EXAMPLES / "fleet-from-git"
    files = _in_git(folder)
    device, service = yard.device, yard.site.service
    with git_server.running(tmp_path / "git") as server:
        tree = server.repository("bakeries")
        tree.push(**files)
        repository = yaml.safe_load((folder / "repository.yaml").read_text())
        # The address of this run's server, and what it asks for.
        repository["spec"] = server.https_spec("bakeries")
        service.kubectl("apply", "-f", "-", stdin=json.dumps(repository))
        service.kubectl("apply", "-f", str(folder / "sync.yaml"))
        _move_to(yard, "bakery")
        _until(yard, lambda: device.read("/etc/bakery/oven.conf") == "degrees = 220\n")
        tree.push(**{"device/etc/bakery/oven.conf": "degrees = 180\n"})
        _until(yard, lambda: device.read("/etc/bakery/oven.conf") == "degrees = 180\n")

        wrong = files["fleets/bakeries.yaml"].replace("matchLabels:", "matchLables:")
        tree.push(**{"fleets/bakeries.yaml": wrong})
        _until(yard, lambda: "matchLables" in _conditions(yard, "resourcesync", "bakeries"))
        assert "fleets/bakeries.yaml" in _conditions(yard, "resourcesync", "bakeries")
        assert device.read("/etc/bakery/oven.conf") == "degrees = 180\n"
        assert service.get("fleet", "bakeries")["metadata"]["name"] == "bakeries"


def _apply(yard: Yard, manifest: str) -> None:
    yard.site.service.kubectl("apply", "-f", str(EXAMPLES / manifest))


def _move_to(yard: Yard, place: str) -> None:
    yard.site.service.kubectl("label", "--overwrite", "device", yard.uid, f"place={place}")


def _conditions(yard: Yard, kind: str, name: str) -> str:
    status = yard.site.service.get(kind, name).get("status") or {}
    return json.dumps(status.get("conditions"))


def _until_pages(yard: Yard, page: str) -> None:
    _until(yard, lambda: yard.device.http(8080) == page and yard.device.http(8081) == page)
    yard.until_healthy()


def _until(yard: Yard, claim: Callable[[], bool]) -> None:
    processes.until(claim, "what the README says", timeout_s=60, every_s=0.3, state=yard.how_it_is)


def _main_process(yard: Yard) -> int:
    argv = ["systemctl", "show", "--property=MainPID", "--value", "lamp.service"]
    return int(yard.device.exec(*argv, check=True).out)
