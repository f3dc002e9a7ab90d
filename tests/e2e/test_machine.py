"""Once in a machine with a kernel of its own: a new system that does not come up, started by real
reboots, and the old one again, which knows what happened. Behind `make soak`; takes a quarter of an
hour, for the CPU is emulated.

What is done before the reboot (enrolment, download, staging) is done in a container, as ever.
[simulated]: bootc, greenboot and the boot loader. Real: kernel, boot, systemd, deployments, agent,
service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, machines, osimages, processes
from tests.e2e.devices import Device
from tests.e2e.machines import Machine
from tests.e2e.osimages import File
from tests.e2e.site import Site
from tests.e2e.yard import condition

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
    pytest.mark.skipif(bool(machines.cannot_run()), reason=machines.cannot_run()),
]
Json = dict[str, Any]
PATIENCE_S = float(os.environ.get("HOMEPORT_MACHINE_S", "1500"))
# An emulated CPU takes its time; health checks of a dead agent end late enough as it is.
SLOW = {
    "etc/systemd/system.conf.d/slow.conf": File(b"[Manager]\nDefaultTimeoutStartSec=600s\n"),
    "etc/greenboot/greenboot.conf": File(
        b"GREENBOOT_MAX_BOOT_ATTEMPTS=2\nFLIGHTCTL_HEALTH_CHECK_TIMEOUT=60\n"
        b"FLIGHTCTL_HEALTH_STABILITY_WINDOW=2\nFLIGHTCTL_HEALTH_POLL_INTERVAL=5\n"
    ),
}
UNHURRIED = {"service-reach-grace-after-boot": "600s", "application-start-grace": "120s"}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(system="v1", settings=UNHURRIED) as site:
        yield site


def statuses(site: Site) -> list[Json]:
    return [item["status"] for item in site.service.get("devices")["items"]]


def test_a_system_that_does_not_come_up_is_left_by_real_reboots(site: Site) -> None:
    site.start_registry()
    dead = osimages.system("v2", has_agent=False, extra=SLOW)
    osimages.push(site.registry, "v2", dead)
    site.start_service()
    site.add_devices("deep")
    (device,) = site.devices
    assert isinstance(device, Device)
    name = processes.until(
        lambda: next((r["metadata"]["name"] for r in requests(site)), ""),
        "it asks",
        timeout_s=120,
        state=device.journal,
    )
    site.service.homeport("approve", name)
    processes.until(
        lambda: [s for s in statuses(site) if s["summary"]["status"] == "Online"],
        "it is online",
        timeout_s=120,
        state=device.journal,
    )
    # The old system must be able to come up slowly too, and to reach us from a machine.
    ports = (site.service.agent_port,)
    wanted = {f"/{path}": file.content.decode() for path, file in SLOW.items()}
    for path, text in {**wanted, **machines.units(ports)}.items():
        device.write(path, text)
    sockets = [f"host-{port}.socket" for port in ports]
    device.exec("systemctl", "enable", *sockets, check=True)

    device.boot_no_more()
    spec = json.dumps({"spec": {"os": {"image": osimages.reference("v2")}}})
    site.service.homeport("patch", "device", name, "--type", "merge", "-p", spec)
    device.wait_off(300)

    disk = site.folder / "deep/disk"
    with Machine(disk, site.folder / "machine") as machine:
        machine.until(
            lambda: (
                condition(statuses(site)[0]).get("reason") == "Error"
                and statuses(site)[0]["summary"]["status"] != "Unknown"
            ),
            "the old system has told of the new one",
            PATIENCE_S,
        )
    (status,) = statuses(site)
    print(f"\nbooted: {machine.booted}\n{condition(status)['message']}")
    new, again, old, *more = machine.booted
    assert new == again != old
    assert more == []
    assert status["os"]["image"] == osimages.reference("v1")
    assert "-cloud-amd64" in status["systemInfo"]["kernel"]


def requests(site: Site) -> list[Json]:
    items: list[Json] = site.service.get("enrollmentrequests")["items"]
    return items
