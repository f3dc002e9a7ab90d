"""Devices that boot from deployments, and the stand-in for bootc on them. [simulated]

Real: systemd and its reboot, podman, ostree's deployments, staging and merge of /etc. Simulated:
the `bootc` command, greenboot, the boot loader. What they are held to here is what is known of the
real ones, not what an agent of ours would like; the agent has no configuration here and is idle.

`make test` has the two that an update and its failure rest on; the others, a minute and more of
reboots, are for who changes the stand-in, and for `make soak`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, disks, osimages, processes, rootfs
from tests.e2e.checkout import CHECKOUT
from tests.e2e.devices import Device
from tests.e2e.osimages import File
from tests.e2e.registry import Registry

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

DEFAULTS = "etc/defaults.conf"
ILL = "usr/lib/greenboot/check/required.d/90_ill.sh"


# The agent is idle here, so its own check would have nothing to wait for.
UNCHECKED = {
    "usr/lib/greenboot/check/required.d/20_check_flightctl_agent.sh": File(),
    "etc/greenboot/greenboot.conf": File(),
}


def _system(version: str, **files: File) -> osimages.Layer:
    extra = {DEFAULTS: File(f"{version}\n".encode()), "etc/unwanted.conf": File(b"x")}
    return osimages.system(version, extra=UNCHECKED | extra | files)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    print("[simulated] bootc and the boot loader are stand-ins; ostree and systemd are real")
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        osimages.push(registry, "v2", _system("v2"))
        ill = _system("ill", **{ILL: File(b"#!/bin/sh\nexit 1\n", 0o755)})
        osimages.push(registry, "ill", ill)
        yield registry


@pytest.fixture(scope="module")
def device(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("devices")
    layer = _system("v1")
    digest = osimages.push(registry, "v1", layer)
    osimages.install(folder / "original", layer, _os("v1"), digest, "v1")
    disk = disks.Installed(folder / "original")
    device = Device("one", disk, folder / "one", {rootfs.REGISTRY_PORT: registry.port})
    try:
        device.boot()
        yield device
    finally:
        device.destroy()


@pytest.fixture
def on_v1(device: Device) -> Iterator[Device]:
    """The device, running v1 with nothing staged and nothing queued, whatever was done before."""
    status = _status(device)
    if status["booted"]["image"]["image"]["image"] != _os("v1"):
        _go_to(device, "v1")
    elif status["rollbackQueued"] or status["staged"]:
        _bootc(device, "rollback")
        if _status(device)["rollbackQueued"]:
            _bootc(device, "rollback")
    assert _version(device) == "v1"
    yield device
    assert device.exec("systemctl", "is-system-running").out.strip() in ("running", "degraded")


def test_a_switch_becomes_the_system_at_the_next_boot_and_etc_is_merged(on_v1: Device) -> None:
    device = on_v1
    before = _status(device)["booted"]
    device.podman("pull", "-q", _os("v2"), check=True)
    said = _bootc(device, "switch", "--transport", "containers-storage", "--retain", _os("v2"))
    assert "Queued for next boot" in said
    document = _document(device)
    assert document["spec"]["image"]["image"] == _os("v2")
    staged = document["status"]["staged"]
    assert staged["image"]["imageDigest"].startswith("sha256:")
    assert document["status"]["booted"] == before

    # All that is done to /etc after staging counts too: it is merged at shutdown.
    device.write("/etc/mine.conf", "mine\n")
    device.exec("rm", "/etc/unwanted.conf", check=True)
    device.write("/var/lib/kept", "kept\n")
    device.reboot()

    assert _version(device) == "v2"
    after = _status(device)
    assert (after["staged"], after["rollbackQueued"]) == (None, False)
    assert after["booted"] == staged
    assert after["rollback"] == before
    assert device.read("/etc/mine.conf") == "mine\n"
    assert device.read("/" + DEFAULTS) == "v2\n", "an untouched default is the new image's"
    assert device.exec("test", "-e", "/etc/unwanted.conf").code == 1, "what was removed came back"
    assert device.read("/var/lib/kept") == "kept\n"
    assert device.exec("touch", "/usr/x").code == 1, "/usr can be written"


@pytest.mark.soak
def test_a_switch_to_what_is_wanted_already_stages_nothing(on_v1: Device) -> None:
    said = _bootc(on_v1, "switch", "--transport", "containers-storage", _os("v1"))
    assert said == "Image specification is unchanged.\n"
    assert _status(on_v1)["staged"] is None


@pytest.mark.soak
def test_an_upgrade_without_news_does_not_reboot_and_a_staged_one_does(on_v1: Device) -> None:
    device = on_v1
    device.podman("pull", "-q", _os("v1"), check=True)
    assert _bootc(device, "upgrade", "--apply") == "No update available.\n"
    device.podman("pull", "-q", _os("v2"), check=True)
    _bootc(device, "switch", "--transport", "containers-storage", _os("v2"))
    assert _bootc(device, "upgrade") == "Staged update present, not changed\n"
    boots = device.boots
    ran = device.exec("bootc", "upgrade", "--apply")
    assert ran.code in (137, 255, -9), ran  # killed by the reboot that it asked for
    processes.until(lambda: device.boots > boots, "it reboots", timeout_s=30)
    device.wait_up()
    assert _version(device) == "v2"


@pytest.mark.soak
def test_a_rollback_is_queued_taken_back_and_takes_a_staged_one_with_it(on_v1: Device) -> None:
    device = on_v1
    spare = _status(device)["rollback"]
    if spare is None or spare["image"]["image"]["image"] != _os("v2"):
        _go_to(device, "v2")
        _go_to(device, "v1")
    device.exec("podman", "pull", "-q", _os("ill"), check=True)
    _bootc(device, "switch", "--transport", "containers-storage", _os("ill"))
    assert _bootc(device, "rollback") == "Next boot: rollback deployment\n"
    document = _document(device)
    assert document["status"]["staged"] is None
    assert document["status"]["rollbackQueued"] is True
    assert document["spec"] == {
        "image": {"image": _os("v2"), "transport": "containers-storage"},
        "bootOrder": "rollback",
    }
    said = _bootc(device, "rollback")
    assert "notice: Reverting queued rollback state" in said
    assert "Next boot: current deployment" in said
    assert _status(device)["rollbackQueued"] is False

    device.write("/etc/only-here.conf", "x")
    _bootc(device, "rollback")
    device.reboot()
    assert _version(device) == "v2"
    assert device.read("/etc/only-here.conf") == "", "/etc was carried to the old deployment"
    after = _document(device)
    assert after["spec"]["bootOrder"] == "default"
    assert after["status"]["rollback"]["image"]["image"]["image"] == _os("v1")


@pytest.mark.soak
def test_the_script_for_a_real_host_passes_on_the_stand_in(on_v1: Device) -> None:
    """Which says nothing about a real bootc, but that the script asks what the stand-in answers."""
    device, script = on_v1, (CHECKOUT / "tests/e2e/on-bootc-host.sh").read_text()

    def ask(*argv: str) -> None:
        ran = device.exec("bash", "-s", *argv, stdin=script)
        assert ran.code == 0, ran

    ask("look")
    ask("stage", _os("ill"))
    boots = device.boots
    device.exec("bash", "-s", "travel", _os("v2"), stdin=script)
    processes.until(lambda: device.boots > boots, "it travels", timeout_s=60)
    device.wait_up()
    ask("arrived", _os("v2"))


@pytest.mark.soak
def test_a_power_cut_before_the_shutdown_forgets_what_was_staged(on_v1: Device) -> None:
    device = on_v1
    device.podman("pull", "-q", _os("ill"), check=True)
    _bootc(device, "switch", "--transport", "containers-storage", _os("ill"))
    device.power_off()
    device.boot()
    assert _version(device) == "v1"
    assert _status(device)["staged"] is None


def test_a_system_that_fails_its_checks_is_tried_three_times_and_given_up(on_v1: Device) -> None:
    device = on_v1
    device.podman("pull", "-q", _os("ill"), check=True)
    _bootc(device, "switch", "--transport", "containers-storage", _os("ill"))
    boots = device.boots
    device.exec("systemctl", "reboot")
    processes.until(
        lambda: device.boots == boots + 4 and _version(device) == "v1",
        "three boots of the ill one, and then the old one",
        timeout_s=120,
        state=lambda: (device.boots - boots, device.console()),
    )
    device.wait_up()
    booted = _status(device)
    assert booted["booted"]["image"]["image"]["image"] == _os("v1")
    assert booted["rollback"]["image"]["image"]["image"] == _os("ill")


@pytest.mark.soak
def test_the_old_shapes_other_users_and_wrong_words_are_bootcs_too(on_v1: Device) -> None:
    device = on_v1
    device.write("/etc/bootc-standin/old-shapes", "")
    assert _document(device)["apiVersion"] == "org.containers.bootc/v1alpha1"
    device.exec("rm", "/etc/bootc-standin/old-shapes", check=True)
    ran = device.exec("setpriv", "--reuid=65534", "--clear-groups", "bootc", "status")
    assert ran.code == 1
    assert "error: This command must be executed as the root user" in ran.err
    assert "[simulated]" in ran.err
    missing = device.exec("bootc", "switch", "--transport", "containers-storage", _os("none"))
    assert missing.code == 1
    assert _status(device)["staged"] is None
    assert _bootc(device, "usr-overlay")
    assert device.exec("touch", "/usr/x").code == 0
    device.reboot()
    assert device.exec("test", "-e", "/usr/x").code == 1


def _os(version: str) -> str:
    return osimages.reference(version)


def _go_to(device: Device, version: str) -> None:
    device.podman("pull", "-q", _os(version), check=True)
    _bootc(device, "switch", "--transport", "containers-storage", _os(version))
    device.reboot()


def _bootc(device: Device, *argv: str) -> str:
    return device.exec("bootc", *argv, check=True).out


def _document(device: Device) -> Json:
    document: Json = json.loads(_bootc(device, "status", "--json"))
    return document


def _status(device: Device) -> Json:
    status: Json = _document(device)["status"]
    return status


def _version(device: Device) -> str:
    return device.read("/usr/lib/os-version").strip()
