"""Alerts on CPU, memory and disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import monitors, sources
from tests.fakes.clocked_world import ClockedWorld

RULES = (
    monitors.Rule("Critical", 90, 600),
    monitors.Rule("Warning", 80, 1800),
    monitors.Rule("Info", 10, 0),
)


def levels(*samples: tuple[float, float | None]) -> list[str]:
    alerts = monitors.Alerts()
    return [alerts.level(RULES, usage, at_s) for at_s, usage in samples]


def test_an_alert_fires_after_longer_than_its_duration_strictly_above() -> None:
    assert levels((0, 95), (600, 95), (601, 95)) == ["Healthy", "Healthy", "Critical"]
    assert levels((0, 90), (5000, 90)) == ["Healthy", "Warning"]
    assert levels((0, 80), (9000, 80)) == ["Healthy", "Healthy"]


def test_one_sample_below_resets_the_clock() -> None:
    assert levels((0, 95), (599, 90), (601, 95), (1202, 95))[2:] == ["Healthy", "Critical"]


def test_both_severities_are_measured_and_the_worse_one_shown() -> None:
    assert levels((0, 95), (1801, 95), (1802, 85)) == ["Healthy", "Critical", "Warning"]


def test_information_alone_is_healthy() -> None:
    assert levels((0, 50), (10, 50)) == ["Healthy", "Healthy"]


def test_a_sample_that_fails_clears_nothing() -> None:
    assert levels((0, None)) == ["Error"]
    assert levels((0, 95), (601, 95), (602, None), (603, 95))[1:] == ["Critical"] * 3
    assert levels((0, 50), (1, None), (2, 50)) == ["Healthy", "Error", "Healthy"]


def spec(kind: str, **more: Any) -> dict[str, Any]:
    rule = {"severity": "Warning", "percentage": 50, "duration": "10m", "description": ""}
    return {"resources": [{"monitorType": kind, "alertRules": [rule], **more}]}


def test_rules_of_the_specification_replace_those_of_their_kind_only() -> None:
    rules, path = monitors.configured(spec("Disk", path="/data"))
    assert rules["disk"] == (monitors.Rule("Warning", 50, 600),)
    assert rules["cpu"] == monitors.DEFAULTS["cpu"]
    assert path == "/data"
    assert monitors.configured({}) == (dict(monitors.DEFAULTS), "")


@pytest.mark.parametrize(
    "broken",
    [
        None,
        3,
        {"monitorType": 4},
        {"monitorType": "CPU", "alertRules": [{}, None, {"severity": 1}]},
    ],
)
def test_rules_that_cannot_be_read_are_left_out(broken: Any) -> None:
    rules, _ = monitors.configured({"resources": [broken]})
    assert rules["memory"] == monitors.DEFAULTS["memory"]


def subject(
    tmp_path: Path, disks: dict[str, float | None]
) -> tuple[monitors.Monitors, ClockedWorld]:
    device = ClockedWorld(tmp_path)
    machine = sources.Machine(device, real=lambda path: None)
    return monitors.Monitors(machine, disk_usage=disks.get), device


def meminfo(available: int) -> str:
    return f"MemTotal: 1000 kB\nMemFree: {available} kB\nBuffers: 0 kB\nCached: 0 kB\nShmem: 0 kB\n"


def test_usage_is_measured_between_two_looks(tmp_path: Path) -> None:
    made, device = subject(tmp_path, {"/": 5.0})
    device.put("/proc/meminfo", meminfo(900))
    device.put("/proc/stat", "cpu 0 0 0 1000 0 0 0 0 0 0\ncpu0 1 1 1\n")
    assert made.sample({}, at_s=0) == dict.fromkeys(monitors.RESOURCES, "Healthy")
    rules = spec("CPU")
    made.sample(rules, at_s=1)
    for at_s, busy in ((2.0, 80), (700.0, 160)):
        device.put("/proc/stat", f"cpu {busy} 0 0 {1000 + busy // 4} 0 0 0 0 0 0\n")
        found = made.sample(rules, at_s=at_s)
    assert found["cpu"] == "Warning"


def test_memory_that_is_nearly_gone_is_critical_after_half_an_hour(tmp_path: Path) -> None:
    made, device = subject(tmp_path, {"/": 5.0})
    device.put("/proc/meminfo", meminfo(50))
    assert made.sample({}, at_s=0)["memory"] == "Healthy"
    assert made.sample({}, at_s=1801)["memory"] == "Critical"


def test_the_disk_of_a_device_without_images_is_watched_too(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {"/": 95.0})
    made.sample({}, at_s=0)
    assert made.sample({}, at_s=601)["disk"] == "Critical"
    image, _ = subject(tmp_path, {"/": 95.0, "/sysroot": 10.0})
    image.sample({}, at_s=0)
    assert image.sample({}, at_s=601)["disk"] == "Healthy"


def test_nothing_can_be_measured_is_an_error_and_no_crash(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {})
    assert made.sample({}, at_s=0) == dict.fromkeys(monitors.RESOURCES, "Error")


def test_the_summary_names_what_is_short_in_a_fixed_order() -> None:
    assert monitors.summarised({"cpu": "Critical", "disk": "Critical", "memory": "Warning"}) == (
        "Error",
        "Critical resource alert: CPU, Disk",
    )
    assert monitors.summarised({"memory": "Warning"}) == (
        "Degraded",
        "Degraded resource alert: Memory",
    )
    assert monitors.summarised({"cpu": "Error"}) == ("Online", "")


def test_a_real_disk_has_a_usage() -> None:
    usage = monitors.disk_usage_of("/")
    assert usage is not None
    assert 0 <= usage <= 100
    assert monitors.disk_usage_of("/no/such/path") is None
