"""The devices themselves: what the other tests stand on is real, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e import devices, disks, images, processes, rootfs
from tests.e2e.registry import Registry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push("web", "v1", images.web("v1"))
        registry.push("web", "broken", images.web("broken", healthy=False))
        yield registry


@pytest.fixture(scope="module")
def device(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[devices.Device]:
    folder = tmp_path_factory.mktemp("devices") / "one"
    device = devices.Device(
        "one", disks.Layered(rootfs.make()), folder, {rootfs.REGISTRY_PORT: registry.port}
    )
    try:
        device.boot()
        yield device
    finally:
        device.destroy()


def test_a_device_has_a_systemd_of_its_own_and_nothing_failed_in_it(
    device: devices.Device,
) -> None:
    assert device.exec("systemctl", "is-system-running").out.strip() in ("running", "degraded")
    assert device.exec("hostname").out.strip() == "one"
    # The agent has no configuration here; everything else must have come up.
    failed = device.exec("systemctl", "--failed", "--no-legend", "--plain").out.split()
    assert set(failed[::5]) <= {devices.UNIT}


def test_health_checks_run_by_themselves_and_tell_a_broken_image(device: devices.Device) -> None:
    device.podman("run", "-d", "--name", "good", "-p", "8080:80", _image("v1"), check=True)
    device.podman("run", "-d", "--name", "bad", _image("broken"), check=True)
    for name, health in (("good", "healthy"), ("bad", "unhealthy")):
        processes.until(
            partial(_is_in, device, name, health),
            f"{name} is {health}",
            timeout_s=20,
            state=lambda: device.podman("ps").out,
        )
    assert device.http(8080) == "web v1\n"
    device.podman("rm", "--all", "--force", "--time", "0", check=True)


def test_a_cut_network_refuses_and_a_mended_one_serves(device: devices.Device) -> None:
    url = f"http://127.0.0.1:{rootfs.REGISTRY_PORT}/v2/"
    assert device.exec("curl", "-sf", url).code == 0
    device.cut()
    assert device.exec("curl", "-s", "--max-time", "3", url).code == 7  # refused
    device.mend()
    assert device.exec("curl", "-sf", url).code == 0


def test_a_reboot_is_one_and_the_disk_survives_it(device: devices.Device) -> None:
    before = device.exec("cat", "/proc/sys/kernel/random/boot_id").out
    device.write("/var/lib/kept", "kept")
    device.write("/run/lost", "lost")
    device.reboot()
    assert device.exec("cat", "/proc/sys/kernel/random/boot_id").out != before
    assert device.read("/var/lib/kept") == "kept"
    assert device.read("/run/lost") == ""
    assert device.podman("pull", _image("v1")).code == 0


def test_a_device_sees_nothing_of_the_hosts_network(device: devices.Device) -> None:
    links = device.exec("ip", "-brief", "link").out
    assert [line.split()[0] for line in links.splitlines() if "podman" not in line] == ["lo"]
    assert device.exec("ip", "route").out.count("default") == 0


def test_a_destroyed_device_leaves_no_process_no_group_and_no_mount(
    registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    device = devices.Device(
        "two", disks.Layered(rootfs.make()), folder, {rootfs.REGISTRY_PORT: registry.port}
    )
    device.boot()
    device.podman("run", "-d", _image("v1"), check=True)
    device.destroy()
    assert not folder.exists()
    assert not _commands_with(device.machine)
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not list(devices.CGROUPS.glob(f"**/{device.machine}"))


def _image(tag: str) -> str:
    return f"localhost:{rootfs.REGISTRY_PORT}/web:{tag}"


def _is_in(device: devices.Device, container: str, health: str) -> bool:
    return _health(device, container) == health


def _health(device: devices.Device, container: str) -> str:
    form = "{{.State.Health.Status}}"
    return device.podman("inspect", "--format", form, container).out.strip()


def _commands_with(word: str) -> list[str]:
    found = []
    for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in command and pid != os.getpid():
            found.append(command)
    return found
