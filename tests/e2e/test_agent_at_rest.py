"""What the agent takes of a device that has nothing to do: installed from the Debian package, with
the settings that it comes with, three applications, two minutes. Printed beside the reference's.

No limits are asserted: how fast and how big things are is the business of `make bench`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench import atrest
from bench.figures import show
from tests.e2e import devices, processes, site
from tests.e2e.service import Service
from tests.e2e.test_packages import IMAGE, built, device_of, dpkg, packaged, requests

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.bench,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]
REST_S = 120.0
SETTLE_S = 45.0
SCOPE = "a device"
PRIVATE = "/usr/lib/homeport-agent"


def test_three_applications_and_nothing_to_do(service: Service, tmp_path: Path) -> None:
    with packaged(service, tmp_path) as device:
        device.path("/root/agent.deb").write_bytes(Path(built(tmp_path, 1)).read_bytes())
        device.boot()
        dpkg(device, "--install", "/root/agent.deb")
        device.write(site.CONFIG, service.agent_config(), 0o600)
        device.start_agent()
        name = processes.until(
            lambda: next((r["metadata"]["name"] for r in requests(service)), ""),
            "it asks",
            timeout_s=90,
            state=device.journal,
        )
        service.homeport("approve", name)
        applications = [
            {"name": app, "appType": "container", "image": IMAGE} for app in ("one", "two", "three")
        ]
        processes.until(lambda: device_of(service, name), "it is there", timeout_s=60)
        patch = json.dumps({"spec": {"applications": applications}})
        service.homeport("patch", "device", name, "--type", "merge", "-p", patch)
        processes.until(
            lambda: (
                device_of(service, name)["status"]["updated"]["status"] == "UpToDate"
                and len(device.podman("ps", "--quiet").out.split()) == len(applications)
            ),
            "it has three applications",
            timeout_s=240,
            state=device.journal,
        )
        # As after a boot: nothing of the update is left in memory.
        device.start_agent()
        time.sleep(SETTLE_S)
        pid = device.agent_pid()
        before = atrest.spent(device.read(f"/proc/{pid}/stat"))
        time.sleep(REST_S)
        assert device.agent_pid() == pid, device.journal()
        after = atrest.spent(device.read(f"/proc/{pid}/stat"))
        begun = device.exec(*atrest.imports("python3", PRIVATE), check=True).out
        print(f"\nbound: {REST_S:g} s at rest with {len(applications)} applications")
        show(
            [
                *atrest.figures(
                    lambda name: device.read(f"/proc/{pid}/{name}"), REST_S, before, after, SCOPE
                ),
                *atrest.of_start(begun, SCOPE),
            ]
        )
