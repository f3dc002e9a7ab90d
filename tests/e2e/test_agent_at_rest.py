"""What the agent takes of a device that has nothing to do: installed from the Debian package, with
the settings that it comes with, three applications, two minutes. Printed beside the reference's.
Once with applications of root, and once with those of a user.

No limits are asserted: how fast and how big things are is the business of `make bench`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bench import atrest
from bench.figures import Figure, show
from tests.e2e import devices, processes, site
from tests.e2e.service import Service
from tests.e2e.test_applications_of_users import PACKAGES
from tests.e2e.test_packages import IMAGE, built, device_of, dpkg, packaged, requests

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.bench,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]
REST_S = 120.0
SETTLE_S = 45.0
PRIVATE = "/usr/lib/homeport-agent"


def running(status: dict[str, Any]) -> int:
    """How many applications are up, of a specification that it has."""
    is_updated = status["updated"]["status"] == "UpToDate"
    return is_updated * [one["ready"] for one in status.get("applications", [])].count("1/1")


@pytest.mark.parametrize(
    ("run_as", "packages", "scope"),
    [("", (), "a device"), ("web", PACKAGES, "applications of a user")],
    ids=["root", "user"],
)
def test_three_applications_and_nothing_to_do(
    service: Service, tmp_path: Path, run_as: str, packages: tuple[str, ...], scope: str
) -> None:
    with packaged(service, tmp_path, packages) as device:
        device.path("/root/agent.deb").write_bytes(Path(built(tmp_path, 1)).read_bytes())
        device.boot()
        dpkg(device, "--install", "/root/agent.deb")
        if run_as:
            device.exec("useradd", "--create-home", run_as, check=True)
            device.write(f"/var/lib/systemd/linger/{run_as}", "")
        device.write(site.CONFIG, service.agent_config(), 0o600)
        device.start_agent()
        name = processes.until(
            lambda: next((r["metadata"]["name"] for r in requests(service)), ""),
            "it asks",
            timeout_s=90,
            state=device.journal,
        )
        service.homeport("approve", name)
        owner = {"runAs": run_as} if run_as else {}
        applications = [
            {"name": app, "appType": "container", "image": IMAGE} | owner
            for app in ("one", "two", "three")
        ]
        processes.until(lambda: device_of(service, name), "it is there", timeout_s=60)
        patch = json.dumps({"spec": {"applications": applications}})
        service.homeport("patch", "device", name, "--type", "merge", "-p", patch)
        processes.until(
            lambda: running(device_of(service, name)["status"]) == len(applications),
            "it has three applications",
            timeout_s=240,
            state=device.journal,
        )
        rollup = device.read(f"/proc/{device.agent_pid()}/smaps_rollup")
        updated = atrest.megabytes(rollup, "Rss")
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
                    lambda name: device.read(f"/proc/{pid}/{name}"), REST_S, before, after, scope
                ),
                *atrest.of_start(begun, scope),
                Figure("agent: resident, after the update", updated, "MB", "≤ 30", "-", scope),
            ]
        )
