"""What the agent takes of a device that has nothing to do: installed from the Debian package, with
the settings that it comes with, three applications, two minutes. Printed beside the reference's.

No limits are asserted: how fast and how big things are is the business of `make bench`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench.figures import Figure, show
from tests.e2e import devices, processes, site
from tests.e2e.devices import Device
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
TICKS = 100
SCOPE = "a device"
IMPORTS = """import sys, time
sys.path.insert(0, "/usr/lib/homeport-agent")
begun = time.perf_counter()
import agent.process
print((time.perf_counter() - begun) * 1000, len(sys.modules))
"""


def spent(device: Device, pid: int) -> tuple[float, float]:
    """CPU seconds of the process, and of the commands that it has run."""
    words = device.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    own, commands = (sum(int(w) for w in words[at : at + 2]) / TICKS for at in (11, 13))
    return own, commands


def kilobytes(device: Device, pid: int, name: str) -> int:
    text = device.read(f"/proc/{pid}/smaps_rollup")
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


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
        own, commands = spent(device, pid)
        time.sleep(REST_S)
        assert device.agent_pid() == pid, device.journal()
        own, commands = (b - a for a, b in zip((own, commands), spent(device, pid), strict=True))
        imported, modules = device.exec("python3", "-I", "-c", IMPORTS, check=True).out.split()
        print(f"\nbound: {REST_S:g} s at rest with {len(applications)} applications")
        show(
            [
                Figure(
                    "agent: resident",
                    kilobytes(device, pid, "Rss") / 1024,
                    "MB",
                    "≤ 30",
                    "29.7",
                    SCOPE,
                ),
                Figure(
                    "agent: its own part",
                    kilobytes(device, pid, "Pss") / 1024,
                    "MB",
                    "-",
                    "-",
                    SCOPE,
                ),
                Figure("agent: CPU", own / REST_S * 100, "% of a core", "≤ 0.07", "0.07", SCOPE),
                Figure(
                    "its commands: CPU", commands / REST_S * 100, "% of a core", "-", "-", SCOPE
                ),
                Figure("import", float(imported), "ms", "-", "-", SCOPE),
                Figure("modules", float(modules), "", "-", "-", SCOPE),
            ]
        )
