"""Late binding: real cloud-init in a booted device takes our user data, the agent that was waiting
in the image enrols with it, and then lives without it.

The data source is NoCloud, which reads what somebody laid into the image: as real as the ones of
clouds but for where the bytes come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import devices, disks, processes, rootfs
from tests.e2e.devices import UNIT, Device
from tests.e2e.service import Service

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]
SEED = "/var/lib/cloud/seed/nocloud"
CREDENTIALS = [f"/var/lib/flightctl/certs/client-enrollment.{end}" for end in ("crt", "key")]


@pytest.fixture
def device(service: Service, tmp_path: Path) -> Iterator[Device]:
    """With an agent that nobody has enabled, and no configuration of it: not booted yet."""
    disk = disks.Layered(rootfs.make(("cloud-init",)))
    ports = {service.agent_port: service.agent_port}
    device = Device("late", disk, tmp_path / "late", ports)
    device.path(f"/etc/systemd/system/multi-user.target.wants/{UNIT}").unlink()
    try:
        yield device
    finally:
        device.destroy()


def test_cloud_init_brings_what_the_agent_enrols_with(service: Service, device: Device) -> None:
    user_data = service.homeport(
        "certificate", "request", "--expires", "1h", "--format", "cloud-init"
    )
    device.write(f"{SEED}/user-data", user_data, 0o600)
    device.write(f"{SEED}/meta-data", "instance-id: late-1\nlocal-hostname: late\n")
    device.boot(timeout_s=180)

    done = device.exec("cloud-init", "status", "--wait", "--long", timeout_s=180)
    assert "status: done" in done.out, done
    assert "DataSourceNoCloud" in done.out
    modes = device.exec("stat", "-c", "%a %U", *CREDENTIALS, "/etc/flightctl/config.yaml").out
    assert set(modes.splitlines()) == {"600 root"}
    assert device.exec("systemctl", "is-enabled", UNIT).out.strip() == "enabled"

    name = processes.until(lambda: asked(service), "it asks", timeout_s=60, state=device.journal)
    assert all(device.path(path).exists() for path in CREDENTIALS)
    service.homeport("approve", name)
    wait_connected(service, device, name)
    processes.until(
        lambda: not any(device.path(path).exists() for path in CREDENTIALS),
        "the credentials are removed",
        timeout_s=30,
        state=device.journal,
    )

    device.start_agent()
    follows(service, device, name, "after a restart")
    device.reboot()
    follows(service, device, name, "after a reboot")
    # One boot more is no new instance: cloud-init writes nothing again.
    assert not any(device.path(path).exists() for path in CREDENTIALS)
    (request,) = service.get("enrollmentrequests")["items"]
    assert request["metadata"]["name"] == name


def asked(service: Service) -> str:
    items = service.get("enrollmentrequests")["items"]
    return str(items[0]["metadata"]["name"]) if items else ""


def wait_connected(service: Service, device: Device, name: str) -> None:
    processes.until(
        lambda: service.get("devices", name)["status"]["summary"]["status"] == "Online",
        "it is online",
        timeout_s=90,
        state=device.journal,
    )


def follows(service: Service, device: Device, name: str, text: str) -> None:
    """What it should have, it gets, and the service hears of it."""
    config = [{"name": "motd", "inline": [{"path": "/etc/motd-late", "content": text}]}]
    patch = json.dumps({"spec": {"config": config}})
    service.homeport("patch", "device", name, "--type", "merge", "-p", patch)
    processes.until(
        lambda: (
            device.read("/etc/motd-late") == text
            and service.get("devices", name)["status"]["updated"]["status"] == "UpToDate"
        ),
        "it has the new specification",
        timeout_s=120,
        state=device.journal,
    )
