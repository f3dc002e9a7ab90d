"""Devices that boot from operating system images, where nobody can be asked: cut off, and tampered
with; and the example."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import devices, lighthouses, osimages, processes
from tests.e2e.checkout import CHECKOUT
from tests.e2e.devices import Device
from tests.e2e.harbour import NAMES, UPDATE_S, Harbour
from tests.e2e.lighthouses import LAMP, Commit

Json = dict[str, Any]

WEB = "web-365508-app"
HORN = "/etc/containers/systemd/horn"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]


def test_network_and_service_cut_after_the_download_do_not_stop_an_update(harbour: Harbour) -> None:
    """What is downloaded needs nobody; the service hears of it when it is there again."""
    settled = _settle(harbour)
    wanted = Commit("v2" if settled.system == "v1" else "v1", "v3", "v2", 500)
    stagings = {device.name: _stagings(device) for device in harbour.devices}
    connected = list(harbour.devices)

    def are_cut() -> bool:
        for device in list(connected):
            if _stagings(device) > stagings[device.name]:
                device.cut()
                connected.remove(device)
        return not connected

    harbour.apply(wanted)
    processes.until(are_cut, "they have downloaded", timeout_s=UPDATE_S, every_s=0.1)
    harbour.site.service.kill()
    # Each is connected again once it has been seen there: had it reached the service just before
    # the cut, and never again after, it would have to blame the update (law 9).
    waiting = list(harbour.devices)

    def are_there_offline() -> bool:
        for device in list(waiting):
            if wanted.is_on(device):
                if len(waiting) == len(NAMES):
                    harbour.site.service.start()
                device.mend()
                waiting.remove(device)
        return not waiting

    try:
        harbour.until(are_there_offline, "each is what it was told, offline", UPDATE_S)
    finally:
        for device in waiting:
            device.mend()
    harbour.until_up_to_date()
    assert all(wanted.is_on(device) for device in harbour.devices)


def test_what_is_done_by_hand_while_the_service_is_away_is_put_back(harbour: Harbour) -> None:
    """Each within a minute, and nobody is asked."""
    wanted = _settle(harbour)
    device, _ = harbour.devices
    other = "v2" if wanted.system == "v1" else "v1"
    device.podman("pull", "-q", osimages.reference(other), check=True)
    harbour.site.service.kill()
    device.cut()
    boots = device.boots
    try:
        _put_back(device, wanted, lambda: _remove_container(device))
        _put_back(device, wanted, lambda: _swap_image(device, wanted))
        _put_back(device, wanted, lambda: device.write(LAMP, "interval = never\n"))
        _put_back(device, wanted, lambda: _disable_quadlet(device))
        argv = ["switch", "--transport", "containers-storage", osimages.reference(other)]
        with device.agent_held():
            device.exec("bootc", *argv, check=True)
            assert _bootc(device)["staged"] is not None
        processes.until(
            lambda: _bootc(device)["staged"] is None,
            "the system that nobody asked for is not staged any more",
            timeout_s=60,
            state=device.journal,
        )
        # What would have been booted is not.
        assert not _bootc(device)["rollbackQueued"]
        assert device.boots == boots
        device.reboot()
        assert device.read("/usr/lib/os-version") == f"{wanted.system}\n", device.journal()
    finally:
        harbour.site.service.start()
        device.mend()
    harbour.until_all_are(wanted)
    harbour.until_up_to_date()


def test_the_example(harbour: Harbour) -> None:
    """`examples/os-image-update`, of which the failures are those of `test_os_rounds`."""
    service, folder = harbour.site.service, CHECKOUT / "examples/os-image-update"
    service.kubectl("label", "--overwrite", "devices", "--all", "site-", "place=yard")
    for manifest, version in (("1-fleet.yaml", "v1"), ("2-new-system.yaml", "v2")):
        service.kubectl("apply", "-f", str(folder / manifest))

        def is_there(version: str = version) -> bool:
            return all(
                device.read("/usr/lib/os-version") == f"{version}\n"
                and device.read("/etc/kiosk/greeting") == f"Welcome to {version}.\n"
                and device.http(8080) == f"web {version}\n"
                for device in harbour.devices
            )

        harbour.until(is_there, f"they are kiosks of {version}", UPDATE_S)
        harbour.until_up_to_date()


def _settle(harbour: Harbour) -> Commit:
    """All devices on one good specification, whatever was before."""
    system = harbour.devices[0].read("/usr/lib/os-version").strip()
    commit = Commit(system if system in ("v1", "v2") else "v1", "v1", "v3", 600)
    harbour.apply(commit)
    harbour.until_all_are(commit)
    harbour.until_up_to_date()
    return commit


def _put_back(device: Device, wanted: Commit, tamper: Callable[[], object]) -> None:
    with device.agent_held():
        tamper()
        assert not wanted.is_on(device), "nobody would notice"
    processes.until(
        lambda: wanted.is_on(device),
        "it is put back",
        timeout_s=60,
        every_s=0.5,
        state=device.journal,
    )


def _remove_container(device: Device) -> None:
    container = device.podman("ps", "--quiet", "--filter", f"name={WEB}", check=True).out.split()
    device.podman("rm", "--force", "--time", "0", *container, check=True)


def _swap_image(device: Device, wanted: Commit) -> None:
    """Somebody puts another image under the tag, and restarts."""
    tag = f"localhost:5000/web:{wanted.web}"
    device.podman("tag", "localhost:5000/web:v3", tag, check=True)
    device.exec("systemctl", "restart", f"{WEB}.service", check=True)
    processes.until(
        lambda: device.http(lighthouses.PORT) == "web v3\n", "the wrong one", timeout_s=15
    )


def _disable_quadlet(device: Device) -> None:
    found = device.exec("sh", "-c", f"ls {HORN}/*.container", check=True).out.split()
    for path in found:
        device.exec("mv", path, f"{path}.off", check=True)
    device.exec("systemctl", "daemon-reload", check=True)
    argv = ["podman", "ps", "--all", "--quiet", "--filter", "name=horn"]
    device.podman("rm", "--force", "--time", "0", *device.exec(*argv).out.split(), check=True)


def _stagings(device: Device) -> int:
    """How often it has had everything on its disk, and went on."""
    return device.journal(20_000).count("agent.loop state Staging")


def _bootc(device: Device) -> Json:
    status: Json = json.loads(device.exec("bootc", "status", "--json", check=True).out)["status"]
    return status
