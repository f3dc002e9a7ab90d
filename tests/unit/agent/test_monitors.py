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


def spec(kind: str, sampling: Any = "1m", **more: Any) -> dict[str, Any]:
    rule = {"severity": "Warning", "percentage": 50, "duration": "10m", "description": ""}
    item = {"monitorType": kind, "samplingInterval": sampling, "alertRules": [rule], **more}
    return {"resources": [item]}


RULE = monitors.Rule("Warning", 50, 600)


def test_without_a_word_there_are_the_references_monitors() -> None:
    load = monitors.Monitor(
        (monitors.Rule("Critical", 90, 30 * 60), monitors.Rule("Warning", 80, 60 * 60)), 60
    )
    disk = monitors.Monitor(
        (monitors.Rule("Critical", 90, 10 * 60), monitors.Rule("Warning", 80, 30 * 60)), 60
    )
    assert monitors.configured({}) == {"cpu": load, "memory": load, "disk": disk}


def test_monitors_of_the_specification_replace_those_of_their_kind_only() -> None:
    found = monitors.configured(spec("Disk", "30s", path="/data"))
    assert found["disk"] == monitors.Monitor((RULE,), 30, "/data")
    assert found["cpu"] == monitors.DEFAULTS["cpu"]


def test_of_two_monitors_of_a_kind_the_last_one_counts() -> None:
    both = spec("CPU", "5s")["resources"] + spec("CPU", "1h30m")["resources"]
    assert monitors.configured({"resources": both})["cpu"].sampling_s == 5400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("1m30s", 90), ("1ms", 1), ("0", 1), ("-5s", 1), ("soon", 60), (None, 60), (5, 60)],
)
def test_the_sampling_interval_is_a_duration_of_a_second_or_more(text: Any, seconds: float) -> None:
    assert monitors.configured(spec("Memory", text))["memory"] == monitors.Monitor((RULE,), seconds)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        3,
        {"monitorType": 4},
        {"monitorType": "CPU", "alertRules": [{}, None, {"severity": 1}]},
        {"monitorType": "CPU", "alertRules": 3},
    ],
)
def test_rules_that_cannot_be_read_are_left_out(broken: Any) -> None:
    found = monitors.configured({"resources": [broken]})
    assert found["memory"] == monitors.DEFAULTS["memory"]
    assert not isinstance(broken, dict) or broken["monitorType"] == 4 or not found["cpu"].rules
    assert monitors.configured({"resources": broken}) == dict(monitors.DEFAULTS)


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
    made.follow(spec("CPU"))
    assert made.sample(at_s=0) == dict.fromkeys(monitors.RESOURCES, "Healthy")
    for at_s, busy in ((60.0, 80), (700.0, 160)):
        device.put("/proc/stat", f"cpu {busy} 0 0 {1000 + busy // 4} 0 0 0 0 0 0\n")
        found = made.sample(at_s=at_s)
    assert found["cpu"] == "Warning"


def test_each_is_measured_at_its_own_interval(tmp_path: Path) -> None:
    asked: list[str] = []

    def usage(path: str) -> float:
        asked.append(path)
        return 60.0

    made = monitors.Monitors(
        sources.Machine(ClockedWorld(tmp_path), real=lambda path: None), disk_usage=usage
    )
    made.follow(spec("Disk", "10s", path="/data"))
    seen = []
    at_s = 0.0
    while at_s <= 120:
        before = len(asked)
        made.sample(at_s=at_s)
        seen += [at_s] * (len(asked) - before)
        at_s += 1.0
    assert seen == [10.0 * n for n in range(13)]
    assert made.due_at == 130.0
    made.follow(spec("Disk", "1h", path="/data"))
    made.sample(at_s=121)
    # What has changed is measured at once, the rest when it is due.
    assert len(asked) == 14
    assert made.due_at == 180.0


def test_a_level_lasts_between_two_samples(tmp_path: Path) -> None:
    usage: dict[str, float | None] = {"/": 95.0}
    made, _ = subject(tmp_path, usage)
    made.sample(at_s=0)
    assert made.sample(at_s=601)["disk"] == "Critical"
    usage["/"] = 5.0
    assert made.sample(at_s=630)["disk"] == "Critical"
    assert made.sample(at_s=661)["disk"] == "Healthy"


def test_rules_that_stay_keep_their_clock_and_a_new_disk_has_none(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {"/a": 60.0, "/b": 60.0})
    made.follow(spec("Disk", path="/a"))
    made.sample(at_s=0)
    made.follow(spec("Disk", "5s", path="/a"))
    assert made.sample(at_s=601)["disk"] == "Warning"
    made.follow(spec("Disk", "5s", path="/b"))
    assert made.sample(at_s=602)["disk"] == "Healthy"
    assert made.sample(at_s=1203)["disk"] == "Warning"


def test_when_the_specification_says_nothing_more_the_defaults_are_back(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {"/": 85.0})
    made.follow(spec("Disk"))
    made.sample(at_s=0)
    assert made.sample(at_s=601)["disk"] == "Warning"
    made.follow({})
    assert made.sample(at_s=602)["disk"] == "Healthy"
    assert made.sample(at_s=602 + 1801)["disk"] == "Warning"


def test_memory_that_is_nearly_gone_is_critical_after_half_an_hour(tmp_path: Path) -> None:
    made, device = subject(tmp_path, {"/": 5.0})
    device.put("/proc/meminfo", meminfo(50))
    assert made.sample(at_s=0)["memory"] == "Healthy"
    assert made.sample(at_s=1801)["memory"] == "Critical"


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"MemFree": 100, "Buffers": 50, "Cached": 200, "SReclaimable": 60, "Shmem": 10}, 60.0),
        ({"MemFree": 1000}, 0.0),
        # What the formula has no room for is no more than all, and no less than nothing.
        ({"MemFree": 100, "Shmem": 900}, 100.0),
        ({"MemFree": 900, "Cached": 900}, 0.0),
    ],
)
def test_memory_in_use_is_counted_as_the_reference_does(
    tmp_path: Path, fields: dict[str, int], usage: float
) -> None:
    made, device = subject(tmp_path, {})
    lines = [f"{name}: {kb} kB" for name, kb in {"MemTotal": 1000, **fields}.items()]
    device.put("/proc/meminfo", "\n".join(lines))
    for percentage, level in ((usage - 1, "Critical"), (usage, "Healthy")):
        rule = {"severity": "Critical", "percentage": percentage, "duration": "0"}
        item = {"monitorType": "Memory", "samplingInterval": "1s", "alertRules": [rule]}
        made.follow({"resources": [item]})
        made.sample(at_s=0)
        assert made.sample(at_s=10)["memory"] == level


def test_the_disk_of_a_device_without_images_is_watched_too(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {"/": 95.0})
    made.sample(at_s=0)
    assert made.sample(at_s=601)["disk"] == "Critical"
    image, _ = subject(tmp_path, {"/": 95.0, "/sysroot": 10.0})
    image.sample(at_s=0)
    assert image.sample(at_s=601)["disk"] == "Healthy"


def test_nothing_can_be_measured_is_an_error_and_no_crash(tmp_path: Path) -> None:
    made, _ = subject(tmp_path, {})
    assert made.sample(at_s=0) == dict.fromkeys(monitors.RESOURCES, "Error")


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
