"""The Debian package on a device with a real systemd, dpkg and podman: installed, enrolled with a
real service, upgraded beside a running application, removed, installed again, purged.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import devices, disks, images, processes, rootfs, site
from tests.e2e.checkout import CHECKOUT
from tests.e2e.devices import UNIT, Device
from tests.e2e.registry import Registry
from tests.e2e.service import Service

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]
PACKAGE = "homeport-agent"
BUILD = CHECKOUT / "agent/packaging/build-deb.sh"
SETTINGS = {
    **site.IMPATIENT,
    "metrics-enabled": "true",
    "system-info": "[hostname, kernel, netInterfaceDefault]",
    "system-info-custom": "[shelf]",
}
# A disk that is more than one percent full for two seconds is worth a warning here.
WATCHED = {
    "systemd": {"matchPatterns": ["flightctl-agent.*", "no-such-thing.service"]},
    "resources": [
        {
            "monitorType": "Disk",
            "samplingInterval": "1s",
            "path": "/",
            "alertRules": [
                {"severity": "Warning", "percentage": 1, "duration": "2s", "description": "d"}
            ],
        }
    ],
}
IMAGE = f"localhost:{rootfs.REGISTRY_PORT}/web:v1"
KEY = "/var/lib/flightctl/certs/agent.key"
# What a purge may leave: the package manager's own records, logs, caches, what the fleet put onto
# the device, and what its owner did.
LEFT = (
    "/var/lib/dpkg",
    "/var/log/journal",
    "/var/log/dpkg.log",
    "/var/log/apt",
    "/var/lib/systemd",
    "/var/lib/containers",
    "/var/tmp/systemd-private",
    "/var/lib/private",
    "/var/cache",
    "/etc/motd-fleet",
    "/etc/systemd/system/web-",
    "/etc/flightctl/config.yaml",
    "/etc/cni",
    "/etc/containers",
    # Of the base system's tools: copies of the user database that they keep.
    *(f"/etc/{name}{end}" for name in ("passwd", "shadow", "group", "gshadow") for end in ("-",)),
    *(f"/etc/{name}{end}" for name in ("subuid", "subgid") for end in ("", "-")),
    "/etc/.pwd.lock",
)


def built(folder: Path, revision: int) -> str:
    """Path of a package that says of itself which one it is."""
    environ = {"PATH": "/usr/bin:/bin", "HOMEPORT_COMMIT": f"revision-{revision}"}
    argv = [BUILD, folder, str(revision)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextlib.contextmanager
def packaged(service: Service, folder: Path, packages: rootfs.Packages = ()) -> Iterator[Device]:
    """A device without an agent, not booted yet, and a registry beside it. `packages` of Debian's
    beside the usual ones."""
    with Registry(folder / "registry") as registry:
        registry.push("web", "v1", images.web("v1"))
        ports = {
            rootfs.REGISTRY_PORT: registry.port,
            service.agent_port: service.agent_port,
        }
        disk = disks.Layered(rootfs.make(packages), has_agent=False)
        device = Device("packaged", disk, folder / "packaged", ports)
        device.path("/root").mkdir(parents=True)
        try:
            yield device
        finally:
            device.destroy()


@pytest.fixture
def device(service: Service, tmp_path: Path) -> Iterator[Device]:
    """The packages lie in /root."""
    with packaged(service, tmp_path) as device:
        for revision in (1, 2):
            package = Path(built(tmp_path / "packages", revision))
            device.path(f"/root/{revision}.deb").write_bytes(package.read_bytes())
        device.boot()
        yield device


def dpkg(device: Device, *argv: str) -> str:
    done = device.exec("dpkg", *argv, timeout_s=180, check=True)
    return done.out + done.err


def files(device: Device) -> set[str]:
    found = device.exec("find", "/etc", "/usr", "/var", "/home", "-xdev").out.splitlines()
    return {path for path in found if not path.startswith(LEFT)}


def state_of(device: Device) -> str:
    return device.exec("systemctl", "is-active", UNIT).out.strip()


def container(device: Device) -> tuple[str, str]:
    """Its identity and the moment that it was started."""
    (found,) = json.loads(device.podman("ps", "--format", "json").out)
    return found["Id"], str(found["StartedAt"])


def device_of(service: Service, name: str) -> Any:
    return service.get("devices", name)


def given(service: Service, device: Device, name: str, text: str) -> None:
    """A specification with a file and an application, and the device has it."""
    spec = {
        "config": [{"name": "motd", "inline": [{"path": "/etc/motd-fleet", "content": text}]}],
        "applications": [{"name": "web", "appType": "container", "image": IMAGE}],
        **WATCHED,
    }
    service.homeport("patch", "device", name, "--type", "merge", "-p", json.dumps({"spec": spec}))
    processes.until(
        lambda: (
            device.read("/etc/motd-fleet") == text
            and device_of(service, name)["status"]["updated"]["status"] == "UpToDate"
        ),
        f"it has {text!r}",
        timeout_s=180,
        state=device.journal,
    )


def online(service: Service, device: Device, name: str) -> None:
    def is_online() -> bool:
        told = device.exec("flightctl-agent", "status", "-o", "json").out
        return json.loads(told or "{}").get("service", {}).get(
            "state"
        ) == "connected" and device_of(service, name)["status"]["summary"]["status"] in (
            "Online",
            "Degraded",
        )

    processes.until(is_online, "it is online", timeout_s=120, state=device.journal)


def test_a_device_lives_with_the_package_from_its_installation_to_its_purge(
    service: Service, device: Device
) -> None:
    before = files(device)

    # Installed: there, switched on, and waiting for a configuration.
    dpkg(device, "--install", "/root/1.deb")
    assert device.exec("systemctl", "is-enabled", UNIT).out.strip() == "enabled"
    assert device.exec("flightctl-agent", "version").out.splitlines()[1] == "revision-1"
    assert device.exec("homeport-agent", "version").out.splitlines()[1] == "revision-1"
    assert device.exec("flightctl-agent", "doctor").code == 1
    assert device.path("/var/lib/systemd/linger/flightctl").exists()
    # Documentation is left out of the root that devices share.
    verified = dpkg(device, "--verify", PACKAGE).splitlines()
    assert [line for line in verified if "/usr/share/doc" not in line] == []

    # Enrolled, with an application.
    settings = "".join(f"{key}: {value}\n" for key, value in SETTINGS.items())
    device.write(site.CONFIG, f"{service.agent_config()}\n{settings}", 0o600)
    script = "#!/bin/sh\necho third from the left\n"
    device.write("/usr/lib/flightctl/custom-info.d/20-shelf.sh", script, 0o755)
    device.start_agent()
    name = processes.until(
        lambda: next((r["metadata"]["name"] for r in requests(service)), ""),
        "it asks",
        timeout_s=60,
        state=device.journal,
    )
    service.homeport("approve", name)
    online(service, device, name)
    given(service, device, name, "first")
    runs, agent = container(device), device.agent_pid()
    told_of_itself(service, device, name)
    pages_and_doctor(device)

    # Upgraded: another agent, the same container.
    dpkg(device, "--install", "/root/2.deb")
    assert state_of(device) == "active"
    assert device.agent_pid() not in (0, agent)
    assert device.exec("flightctl-agent", "version").out.splitlines()[1] == "revision-2"
    given(service, device, name, "second")
    assert container(device) == runs

    # Removed: no agent, and the rest as it was.
    key = device.read(KEY)
    dpkg(device, "--remove", PACKAGE)
    assert state_of(device) != "active"
    assert not device.path("/usr/lib/homeport-agent").exists()
    assert not device.path("/usr/bin/flightctl-agent").exists()
    assert container(device) == runs
    assert device.read(KEY) == key != ""
    assert "server:" in device.read(site.CONFIG)

    # Installed again: the device that it was.
    dpkg(device, "--install", "/root/2.deb")
    online(service, device, name)
    given(service, device, name, "third")
    assert container(device) == runs
    assert [r["metadata"]["name"] for r in requests(service)] == [name]

    # Purged: nothing of ours is left, and nothing of others' is gone.
    device.path("/usr/lib/flightctl/custom-info.d/20-shelf.sh").unlink()
    dpkg(device, "--purge", PACKAGE)
    assert container(device) == runs
    assert device.read("/etc/motd-fleet") == "third"
    assert "server:" in device.read(site.CONFIG)
    after = files(device)
    assert before - after == set()
    assert after - before - {"/etc/flightctl"} == set()


def requests(service: Service) -> list[Any]:
    items: list[Any] = service.get("enrollmentrequests")["items"]
    return items


def told_of_itself(service: Service, device: Device, name: str) -> None:
    """Units that were asked for, an alert of a rule, facts, and what a script says."""

    def status() -> Any:
        return device_of(service, name)["status"]

    processes.until(
        lambda: status()["resources"]["disk"] == "Warning",
        "the disk's alert is reported",
        timeout_s=60,
        state=device.journal,
    )
    summary = status()["summary"]
    assert summary["status"] == "Degraded"
    assert "disk" in summary["info"].lower()
    units = {one["unit"]: one for one in status()["systemd"]}
    assert units[UNIT]["activeState"] == "active"
    assert units[UNIT]["enableState"] == "enabled"
    assert units[UNIT]["description"] == "Homeport agent"
    assert units["no-such-thing.service"]["loadState"] == "not-found"
    info = status()["systemInfo"]
    assert info["hostname"] == "packaged"
    assert info["customInfo"] == {"shelf": "third from the left"}
    told = json.loads(device.exec("flightctl-agent", "system-info").out)
    assert told["custom"] == {"shelf": "third from the left"}
    assert told["boot"]["bootID"] == info["bootID"]


def pages_and_doctor(device: Device) -> None:
    """What a person finds on the device itself, with the real tools of a device."""
    told = json.loads(device.exec("flightctl-agent", "doctor", "-o", "json").out)
    assert told["errors"] == 0, told
    assert any(one["message"].endswith("is reached") for one in told["findings"])
    status = device.exec("flightctl-agent", "status").out
    assert "application  web: Running, 1/1 ready" in status, status
    assert "connected, last answer" in status
    metrics = device.exec("curl", "-sf", "http://127.0.0.1:15690/metrics").out
    assert "flightctl_device_mgmt_cert_loaded 1\n" in metrics
    assert 'homeport_agent_applications{status="Running"} 1\n' in metrics
    listening = device.exec("ss", "--listening", "--tcp", "--numeric", "--no-header").out
    assert [line.split()[3] for line in listening.splitlines() if "15690" in line] == [
        "127.0.0.1:15690"
    ]
    audit = [json.loads(line) for line in device.read("/var/log/flightctl/audit.log").splitlines()]
    assert [one["reason"] for one in audit][:4] == ["bootstrap", "bootstrap", "bootstrap", "sync"]
    assert "upgrade" in [one["reason"] for one in audit]
