"""`examples/os-image-update`: a device gets another operating system, and goes back from bad ones.

Real: the service, the agent (a part of the image that boots), systemd and its reboots, podman, the
registry, ostree's deployments. [simulated]: bootc, greenboot and the boot loader.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, osimages, processes
from tests.e2e.checkout import CHECKOUT
from tests.e2e.osimages import File
from tests.e2e.yard import Yard, condition

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

EXAMPLE = CHECKOUT / "examples/os-image-update"
REBOOTS_OF_A_DEAD_SYSTEM = 4  # three attempts, and the old one again
# Connections to high ports are dropped: the service, but neither registry nor applications.
RULES = """table inet wrong {
  chain out {
    type filter hook output priority 0;
    tcp dport >= 10000 tcp flags & (syn | ack) == syn drop
  }
}
"""
FIREWALL = """[Unit]
Description=A firewall that somebody got wrong
Before=flightctl-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft --file /usr/lib/wrong.nft

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    print("[simulated] bootc, greenboot and the boot loader are stand-ins")
    with Yard(tmp_path_factory.mktemp("yard"), system="v1") as yard:
        registry = yard.site.registry
        osimages.push(registry, "v2", osimages.system("v2"))
        osimages.push(registry, "dead-agent", osimages.system("dead-agent", has_agent=False))
        extra = {
            "usr/lib/wrong.nft": File(RULES.encode()),
            f"{osimages.UNITS}/firewall.service": File(FIREWALL.encode()),
            f"{osimages.UNITS}/multi-user.target.wants/firewall.service": File(
                target="../firewall.service"
            ),
        }
        osimages.push(registry, "cut-off", osimages.system("cut-off", extra=extra))
        yield yard


def test_the_story_of_the_example(yard: Yard) -> None:
    """One test, since each chapter begins where the one before has led."""
    _began(yard)
    _system_file_and_application_change_in_one_update(yard)
    _a_system_whose_agent_does_not_start_is_gone_back_from(yard)
    _a_system_that_cannot_reach_the_service_is_gone_back_from(yard)


def _began(yard: Yard) -> None:
    _apply(yard, "1-fleet.yaml")
    _until_runs(yard, "v1", "v1")
    assert yard.device.boots == 1, "it rebooted for a system that it ran already"


def _system_file_and_application_change_in_one_update(yard: Yard) -> None:
    started = time.monotonic()
    _apply(yard, "2-new-system.yaml")
    _until_runs(yard, "v2", "v2")
    assert yard.device.boots == 2, "one update, one reboot"
    status = yard.status()
    assert status["os"]["image"] == osimages.reference("v2")
    print(f"[simulated] system, file and application after {time.monotonic() - started:.0f} s")


def _a_system_whose_agent_does_not_start_is_gone_back_from(yard: Yard) -> None:
    boots = yard.device.boots
    _apply(yard, "3-agent-does-not-start.yaml")
    said = _until_refused(yard)
    assert yard.device.boots == boots + REBOOTS_OF_A_DEAD_SYSTEM
    assert osimages.reference("dead-agent") in said, said
    _until_is_v2(yard)


def _a_system_that_cannot_reach_the_service_is_gone_back_from(yard: Yard) -> None:
    boots = yard.device.boots
    _apply(yard, "4-cut-off.yaml")
    said = _until_refused(yard)
    assert yard.device.boots == boots + 2, "there, and back"
    print(said)
    _until_is_v2(yard)


def _apply(yard: Yard, manifest: str) -> None:
    yard.site.service.kubectl("apply", "-f", str(EXAMPLE / manifest))


def _is_running(yard: Yard, system: str, page: str) -> bool:
    device = yard.device
    return (
        device.read("/usr/lib/os-version") == f"{system}\n"
        and device.read("/etc/kiosk/greeting") == f"Welcome to {page}.\n"
        and device.http(8080) == f"web {page}\n"
    )


def _until_runs(yard: Yard, system: str, page: str) -> None:
    def is_there() -> bool:
        return (
            _is_running(yard, system, page)
            and yard.status()["updated"]["status"] == "UpToDate"
            and condition(yard.status()).get("reason") == "Updated"
        )

    processes.until(is_there, f"it runs {system}", timeout_s=120, every_s=0.5, state=yard.how_it_is)


def _until_refused(yard: Yard) -> str:
    """What the device says about it."""
    before = condition(yard.status()).get("message")

    def is_said() -> str:
        found = condition(yard.status())
        is_new = found.get("reason") == "Error" and found.get("message") != before
        return found["message"] if is_new else ""

    return processes.until(
        is_said, "the device says why", timeout_s=170, every_s=0.5, state=yard.how_it_is
    )


def _until_is_v2(yard: Yard) -> None:
    processes.until(
        lambda: _is_running(yard, "v2", "v2"),
        "it is v2 again, system, file and application",
        timeout_s=60,
        every_s=0.5,
        state=yard.how_it_is,
    )
    shown = yard.site.service.kubectl("describe", "device", yard.uid)
    assert "Error" in shown
