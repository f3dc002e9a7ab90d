"""[simulated] The world misbehaves around an agent that lives: registry, disk, podman, service."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from agent import settings, specs, states, world
from tests.fakes.sim_device import DATA, Device, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import Node, SimWorld

GOOD = Image(health=True)


def device_on(version: int = 1, **registry: Image) -> Device:
    where = SimWorld(7)
    where.podman.registry = {"r/web:1": GOOD, "r/web:2": GOOD, **registry}
    device = Device(where)
    device.offer(spec(version))
    device.run()
    assert device.version() == str(version)
    return device


def spec(version: int, image: str = "r/web:1", **fields: object) -> dict[str, object]:
    applications = [application("web", image)]
    return document(version, [file("/etc/motd", f"v{version}")], applications, **fields)


def refused(device: Device, version: int) -> str:
    condition = device.condition()
    assert (condition["status"], condition["reason"]) == ("False", "Error"), condition
    assert f"renderedVersion: {version}" in condition["message"]
    return str(condition["message"])


@pytest.mark.parametrize(
    "words",
    [
        "Error: toomanyrequests: slow down",
        "Error: received unexpected HTTP status: 503 Service Unavailable",
        "Error: net/http: TLS handshake timeout",
        "Error: lookup registry: Temporary failure in name resolution",
        "Error: read: connection reset by peer",
        "signal: killed",
        "Error: write /var/tmp: no space left on device",
        "something that nobody has ever read before",
    ],
)
def test_a_pull_that_may_work_later_is_tried_until_it_does(words: str) -> None:
    device = device_on()
    device.world.podman.faults = [words] * 9
    device.offer(spec(2, "r/web:2"))
    device.run()
    said = [claim for claim, _ in device.claims]
    assert device.version() == "2"
    assert device.world.podman.pulls == 1 + 10
    assert "Preparing" in said
    assert "RollingBack" not in said


def test_the_condition_names_the_application_and_the_cause_while_a_pull_is_retried() -> None:
    device = device_on()
    device.world.podman.faults = ["Error: connection refused"] * 9
    device.offer(spec(2, "r/web:2"))
    agent = device.start()
    for _ in range(12):
        device._poll()
        device.world.sleep(agent.run_once())
    words = device.condition()["message"]
    assert words == (
        "0/1 images complete, retrying: web"
        " (the registry does not answer as it should, tried again: Error: connection refused)"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("Error: manifest unknown", "required resource not found"),
        ("Error: unauthorized: no access", "permission denied"),
        ("Error: requested access to the resource is denied", "authentication failed"),
    ],
)
def test_a_pull_that_never_works_refuses_the_version_and_touches_nothing(
    words: str, text: str
) -> None:
    device = device_on()
    made = device.world.podman.made
    device.world.podman.faults = [words]
    device.offer(spec(2, "r/web:2"))
    device.run()
    message = refused(device, 2)
    assert f"While Preparing: prefetch failed for web: {text}" in message
    assert device.version() == "1"
    assert device.world.podman.made == made


def test_after_the_download_an_update_needs_no_registry_and_no_service() -> None:
    device = device_on()
    device.offer(spec(2, "r/web:2"))
    agent = device.start()
    while not isinstance(agent.state, states.Staging):
        device._poll()
        device.world.sleep(agent.run_once())
    device.world.podman.is_registry_down = True
    device.reachable = lambda: False
    device.latest = None
    for _ in range(50):
        device.world.sleep(agent.run_once())
    assert device.version() == "2"
    assert device.picture(running=True) == device.expected("2", running=True)


def test_an_update_that_cuts_the_device_off_is_undone_and_refused() -> None:
    device = device_on()
    motd = "/etc/motd"
    device.reachable = lambda: device.world.nodes[motd].data != b"v2"
    device.offer(spec(2))
    device.run()
    assert "no longer reaches the service" in refused(device, 2)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_probes_into_the_void_take_their_time_out_of_the_patience() -> None:
    device = device_on()
    begun: list[float] = []

    def reachable() -> bool:
        if device.world.nodes["/etc/motd"].data != b"v2":
            return True
        begun.append(device.world.elapsed_s)
        device.world.sleep(12)
        return False

    device.reachable = reachable
    device.offer(spec(2))
    device.run()
    assert "no longer reaches the service" in refused(device, 2)
    assert begun[-1] - begun[0] < device.times.reach_s, "one more was begun after the end"


def test_an_update_is_not_to_blame_for_a_service_that_stays_away_and_is_applied_again() -> None:
    device = device_on()
    # Gone from the first effect on, whatever the device does; back after ten minutes.
    away_from: list[float] = []

    def reachable() -> bool:
        if device.world.nodes["/etc/motd"].data == b"v2" and not away_from:
            away_from.append(device.world.elapsed_s)
        return not away_from or device.world.elapsed_s > away_from[0] + 600

    device.reachable = reachable
    device.offer(spec(2))
    device.run()
    assert "RollingBack" in [reason for reason, _ in device.claims]
    assert device.version() == "2"
    assert device.condition()["reason"] == "Updated"


@pytest.mark.parametrize(
    ("whose_fault", "attempts", "end"), [("network", 2, "2"), ("update", 2, "1")]
)
def test_an_update_with_which_the_network_went_for_a_while_is_tried_once_more(
    whose_fault: str, attempts: int, end: str
) -> None:
    """The network is back half a minute after the way back: by chance, or because of it."""
    device = device_on()
    lost, gone_back = [], []

    def reachable() -> bool:
        is_new = device.world.nodes["/etc/motd"].data == b"v2"
        now = device.world.elapsed_s
        if is_new and len(lost) == len(gone_back):
            lost.append(now)
        if not is_new and len(gone_back) < len(lost):
            gone_back.append(now)
        is_still_lost = is_new if whose_fault == "update" else is_new and len(lost) == 1
        return not is_still_lost and (not gone_back or now > gone_back[-1] + 30)

    device.reachable = reachable
    device.offer(spec(2))
    device.run()
    assert len(lost) == attempts
    assert device.version() == end
    assert device.picture(running=True) == device.expected(end, running=True)
    if end == "1":
        assert "no longer reaches the service" in refused(device, 2)


def test_a_commit_that_the_disk_does_not_take_is_not_told() -> None:
    device = device_on()
    device.offer(spec(2))
    agent = device.start()
    while not isinstance(agent.state, states.Verifying):
        device._poll()
        device.world.sleep(agent.run_once())
    device.world.full = True
    for _ in range(20):
        device.world.sleep(agent.run_once())
        device._check_claims()
    assert device.version() == "1"
    device.world.full = False
    device.run()
    assert device.version() == "2"


def test_a_service_that_was_away_before_is_no_judge_of_an_update() -> None:
    device = device_on()
    device.reachable = lambda: False
    device.offer(spec(2))
    device.run()
    assert device.version() == "2"


def drift_content(device: Device) -> None:
    device.world.nodes["/etc/motd"] = Node(world.FILE, b"edited by hand")


def drift_mode(device: Device) -> None:
    device.world.nodes["/etc/motd"] = dataclasses.replace(
        device.world.nodes["/etc/motd"], mode=0o666
    )


def drift_removed(device: Device) -> None:
    del device.world.nodes["/etc/motd"]


def drift_container_removed(device: Device) -> None:
    device.world.podman.boxes.clear()


def drift_container_died(device: Device) -> None:
    for box in device.world.podman.boxes.values():
        box.status, box.exit_code = "exited", 1


def drift_container_impostor(device: Device) -> None:
    ((_, box),) = device.world.podman.boxes.items()
    device.world.podman.boxes = {
        "f" * 64: dataclasses.replace(box, id="f" * 64, image="r/other", labels={})
    }


@pytest.mark.parametrize(
    "drift",
    [
        drift_content,
        drift_mode,
        drift_removed,
        drift_container_removed,
        drift_container_died,
        drift_container_impostor,
    ],
    ids=lambda f: f.__name__,
)
def test_what_drifts_is_repaired_within_half_a_minute(drift: Callable[[Device], None]) -> None:
    device = device_on()
    agent = device.loop
    assert agent is not None
    device.world.sleep(agent.run_once())
    drift(device)
    started = device.world.elapsed_s
    while device.picture(running=True) != device.expected("1", running=True):
        device.world.sleep(agent.run_once())
        assert device.world.elapsed_s - started < 35
    assert device.condition()["reason"] == "Updated"


def test_a_new_life_repairs_at_once() -> None:
    device = device_on()
    drift_removed(device)
    drift_container_removed(device)
    started = device.world.elapsed_s
    device.run()
    assert device.picture(running=True) == device.expected("1", running=True)
    assert device.world.elapsed_s - started < 2


def test_a_repair_that_cannot_be_made_shows_and_does_not_stop_a_new_specification() -> None:
    device = device_on()
    device.world.nodes["/etc/motd"] = Node(world.DIRECTORY, mode=0o755)
    device.is_tampered = True
    device.run(settle_s=200)
    summary = device.mailbox.status()["summary"]
    assert summary["status"] == "Degraded"
    assert "/etc/motd is a directory" in summary["info"]
    device.offer(document(2, [file("/etc/other", "x")], []))
    device.start()
    for _ in range(100):
        device._poll()
        assert device.loop is not None
        device.world.sleep(device.loop.run_once())
    assert device.version() == "2"
    assert device.mailbox.status()["summary"] == {"status": "Online"}


def test_a_directory_in_the_way_refuses_the_version_and_names_the_path() -> None:
    device = device_on()
    device.put_original("/etc/conf", Node(world.DIRECTORY, mode=0o755))
    device.offer(document(2, [file("/etc/conf", "x")], []))
    device.run()
    assert "config failed for /etc/conf: invalid configuration" in refused(device, 2)
    assert "is a directory" in refused(device, 2)


def test_an_unknown_owner_reads_as_existing_tools_expect() -> None:
    device = device_on()
    device.offer(document(2, [file("/etc/x", "x", user="nobody-here")], []))
    device.run()
    assert "config failed for /etc/x: required resource not found" in refused(device, 2)


@pytest.mark.parametrize(
    ("applications", "fields", "words"),
    [
        ([{"name": "h", "appType": "vm", "image": "r/h"}], {}, "type 'vm' are not supported"),
        ([application("c", "r/c", appType="compose")], {}, "install podman-compose"),
        ([application("q", "r/q", appType="quadlet")], {}, "quadlets need systemd"),
        ([], {"os": {"image": "quay.io/os:2"}}, "os failed for quay.io/os:2"),
        ([application("v", "r/v", runAs="web")], {}, "runAs needs systemd"),
    ],
)
def test_what_this_agent_cannot_do_refuses_the_whole_and_says_why(
    applications: list[dict[str, object]], fields: dict[str, object], words: str
) -> None:
    device = device_on()
    device.offer(document(2, [file("/etc/motd", "v2")], applications, **fields))
    device.run()
    assert words in refused(device, 2)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_limits_that_the_machine_cannot_enforce_are_refused_by_default() -> None:
    device = device_on()
    device.world.controllers = frozenset({"cpu"})
    limited = application("web", "r/web:1", resources={"limits": {"memory": "64m", "cpu": "1"}})
    device.offer(document(2, [], [limited]))
    device.run()
    assert "this device cannot limit memory" in refused(device, 2)


def test_limits_may_be_let_go_but_never_in_silence() -> None:
    where = SimWorld(1)
    where.controllers = frozenset()
    where.podman.registry = {"r/web:1": GOOD}
    device = Device(where, times=settings.LoopSettings(limits=settings.REPORT))
    limited = application("web", "r/web:1", resources={"limits": {"memory": "64m"}})
    device.offer(document(1, [], [limited]))
    device.run()
    device.run()
    assert "--memory" not in next(iter(where.podman.boxes.values())).argv
    assert "without their resource limits: web" in device.mailbox.status()["summary"]["info"]


def test_a_tool_that_never_works_ends_in_a_refusal_and_the_old_one_runs_again() -> None:
    device = device_on()
    podman = device.world.podman
    podman.registry["r/web:2"] = Image(health=True, refuses_to_start="Error: OCI runtime error")
    device.offer(spec(2, "r/web:2"))
    device.run()
    assert "OCI runtime error" in refused(device, 2)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_a_podman_that_breaks_between_two_specifications_cannot_hold_the_device_there() -> None:
    device = device_on()
    device.offer(spec(2, "r/web:2"))
    agent = device.start()
    while not isinstance(agent.state, states.Verifying):
        device._poll()
        device.world.sleep(agent.run_once())
    device.world.podman.is_broken = True
    for _ in range(200):
        device.world.sleep(agent.run_once())
    assert isinstance(agent.state, states.Refused)
    device.world.podman.is_broken = False
    device.run(settle_s=400)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_a_full_disk_is_survived_and_repaired_when_there_is_room() -> None:
    device = device_on()
    device.world.full = True
    agent = device.start()
    device.offer(spec(2))
    for _ in range(20):
        device._poll()
        device.world.sleep(agent.run_once())
    assert device.mailbox.status()["summary"]["status"] == "Degraded"
    device.world.full = False
    for _ in range(40):
        device._poll()
        device.world.sleep(agent.run_once())
    assert device.version() == "2"
    assert device.picture(running=True) == device.expected("2", running=True)


def test_of_several_quick_versions_the_last_one_stays() -> None:
    device = device_on()
    agent = device.start()
    for version in range(2, 9):
        device.offer(spec(version, "r/web:2" if version % 2 else "r/web:1"))
        for _ in range(version):
            device._poll()
            device.world.sleep(agent.run_once())
    device.run()
    assert device.version() == "8"
    assert device.picture(running=True) == device.expected("8", running=True)


def test_content_that_failed_is_refused_under_a_new_number_without_a_second_try() -> None:
    device = device_on(**{"r/bad": Image(health=False)})
    device.offer(spec(2, "r/bad"))
    device.run()
    made = device.world.podman.made
    same = spec(3, "r/bad")
    same["metadata"]["annotations"]["device-controller/renderedSpecHash"] = "hash-2"  # type: ignore[index]
    device.offer(same)
    device.run()
    refused(device, 3)
    assert device.world.podman.made == made


def test_an_older_version_is_passed_over() -> None:
    device = device_on(5)
    device.offer(spec(3))
    device.start()
    for _ in range(10):
        device._poll()
        assert device.loop is not None
        device.world.sleep(device.loop.run_once())
    assert device.version() == "5"


def test_a_new_number_for_the_same_content_restarts_nothing() -> None:
    device = device_on()
    made = device.world.podman.made
    device.offer(document(2, [file("/etc/motd", "v1")], [application("web", "r/web:1")]))
    device.run()
    assert device.version() == "2"
    assert device.world.podman.made == made


def test_stopped_and_restarted_as_the_specification_says() -> None:
    device = device_on()
    (box,) = device.world.podman.boxes.values()
    device.offer(document(2, [], [application("web", "r/web:1", desiredState="stopped")]))
    device.run()
    device.run()
    assert box.status == "exited"
    assert device.mailbox.status()["applications"][0]["status"] == "Stopped"
    device.offer(document(3, [], [application("web", "r/web:1", restartGeneration=1)]))
    device.run()
    assert box.status == "running"
    started = box.started_at
    device.run(settle_s=100)
    assert box.started_at == started
    assert list(device.world.podman.boxes.values()) == [box]


@pytest.mark.parametrize("name", [specs.CURRENT, specs.DESIRED, specs.ROLLBACK])
@pytest.mark.parametrize("raw", [b"", b'{"metadata', b"\xff\x00", b"[]", None])
def test_a_damaged_specification_file_is_mended_and_kept_aside(
    name: str, raw: bytes | None
) -> None:
    device = device_on(2)
    path = f"{DATA}/{name}"
    before = json.loads(device.world.nodes[path].data)
    if raw is None:
        del device.world.nodes[path]
    else:
        device.world.nodes[path] = Node(world.FILE, raw)
    device.latest = None
    device.run()
    assert json.loads(device.world.nodes[path].data) == before
    assert device.version() == "2"
    assert device.picture(running=True) == device.expected("2", running=True)
    aside = device.world.nodes.get(f"{DATA}/homeport/{name}.damaged")
    assert (aside is not None) == (raw is not None)


def test_with_everything_lost_nothing_is_removed_until_the_service_has_spoken() -> None:
    device = device_on(2)
    for path in list(device.world.nodes):
        if path.endswith((".json", ".jsonl")):
            device.world.nodes[path] = Node(world.FILE, b"")
    before = device.picture(running=True)
    latest, device.latest = device.latest, None
    device.run(settle_s=100)
    assert device.picture(running=True) == before
    device.latest = latest
    device.run()
    assert device.version() == "2"


def test_a_device_of_another_agent_is_taken_over_without_touching_what_is_right() -> None:
    where = SimWorld(3)
    device = Device(where)
    current = document(4, [file("/etc/motd", "theirs")], [])
    device.known["4"] = current
    where.mkdir(DATA)
    where.mkdir("/etc")
    where.nodes["/etc/motd"] = Node(world.FILE, b"theirs")
    for name in (specs.CURRENT, specs.DESIRED):
        where.nodes[f"{DATA}/{name}"] = Node(world.FILE, json.dumps(current).encode())
    device.run()
    assert device.version() == "4"
    device.offer(document(5, [], []))
    device.run()
    assert "/etc/motd" not in where.nodes


def left_by_another(*, tried: str) -> Device:
    """At rest on version 4, with what the other agent keeps of a system that it went back from."""
    device = Device(SimWorld(3))
    current = document(4, [], [])
    device.known |= {"4": current, "5": document(5, [], [])}
    device.world.mkdir(DATA)
    notes = {"agent/desiredVersion": tried, "agent/desiredSpecHash": f"hash-{tried}"}
    rollback = {"metadata": {"annotations": {specs.VERSION: "4", **notes}}, "spec": {"os": {}}}
    kept = {specs.CURRENT: current, specs.DESIRED: current, specs.ROLLBACK: rollback}
    for name, one in kept.items():
        device.world.nodes[f"{DATA}/{name}"] = Node(world.FILE, json.dumps(one).encode())
    return device


def test_what_another_agent_went_back_from_is_not_tried_again() -> None:
    device = left_by_another(tried="5")
    device.offer(document(5, [], []))
    device.run()
    assert device.version() == "4"
    assert "went back from it" in device.condition()["message"]
    device.offer(document(6, [file("/etc/motd", "six")], []))
    device.run()
    assert device.version() == "6"


def test_what_another_agent_has_committed_it_has_not_gone_back_from() -> None:
    """It may die between the two files of a commit, and then takes its own version for refused."""
    device = left_by_another(tried="4")
    device.run()
    assert device.condition()["reason"] == "Updated"


def test_the_journal_has_the_words_that_tools_look_for(caplog: pytest.LogCaptureFixture) -> None:
    device = device_on(**{"r/bad:1": Image(health=False)})
    device.offer(spec(2, "r/bad:1"))
    device.run()
    assert "Attempting to rollback to previous renderedVersion: 1" in caplog.text
    assert "Marking template version 2 as failed" in caplog.text


def test_leaving_tells_the_service_first_and_leaves_no_identity() -> None:
    device = device_on()
    device.world.mkdir(f"{DATA}/certs")
    device.world.nodes[f"{DATA}/certs/agent.key"] = Node(world.FILE, b"key", 0o600)
    latest = spec(2, decommissioning={"target": "Unenroll"})
    agent = device.start()
    device.offer(latest)
    for _ in range(10):
        device._poll()
        agent.run_once()
    found = {c["type"]: c for c in device.mailbox.status()["conditions"]}
    # Nobody takes what it says here.
    assert found["DeviceDecommissioning"]["reason"] == "Error"
    assert device.world.listdir(DATA) == []
    assert device.world.reboots_ordered == 1
    assert device.world.nodes["/etc/motd"].data == b"v1"


def until(device: Device, kind: type[states.State]) -> None:
    agent = device.start()
    for _ in range(400):
        if isinstance(agent.state, kind):
            return
        device._poll()
        device.world.sleep(agent.run_once())
    raise AssertionError(f"never {kind.__name__}")


def test_a_target_that_rots_away_in_the_middle_of_its_update_is_undone() -> None:
    device = device_on()
    device.offer(spec(2, "r/web:2"))
    until(device, states.Verifying)
    device.latest = None
    device.world.nodes[f"{DATA}/desired.json"] = Node(world.FILE, b"")
    device.run()
    assert "the specification was lost" in refused(device, 2)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_a_target_that_rots_away_before_its_update_began_is_asked_for_again() -> None:
    device = device_on()
    device.world.podman.faults = ["Error: connection refused"] * 3
    device.offer(spec(2, "r/web:2"))
    until(device, states.Fetching)
    device.world.nodes[f"{DATA}/desired.json"] = Node(world.FILE, b"")
    device.run()
    assert device.version() == "2"


def test_a_blameless_target_that_rots_away_is_asked_for_again() -> None:
    device = device_on()
    device.offer(spec(2))
    until(device, states.Applying)
    device.reachable = lambda: False
    agent = device.loop
    assert agent is not None
    while not isinstance(agent.state, states.RollingBack):
        device.world.sleep(agent.run_once())
    device.world.nodes[f"{DATA}/desired.json"] = Node(world.FILE, b"")
    device.run()
    assert device.version() == "2"
    assert "RollingBack" in [reason for reason, _ in device.claims]


def test_an_image_that_somebody_removed_is_pulled_again_for_a_repair() -> None:
    device = device_on()
    device.is_tampered = True
    device.world.podman.boxes.clear()
    device.world.podman.images.clear()
    device.run()
    assert device.picture(running=True) == device.expected("1", running=True)


def test_a_disk_that_is_full_at_the_start_is_waited_for() -> None:
    where = SimWorld(1)
    where.full = True
    device = Device(where)
    agent = device.start()
    assert agent.run_once() > 0
    assert "No space left" in device.mailbox.status()["summary"]["info"]
    where.full = False
    where.podman.registry = {"r/web:1": GOOD}
    device.offer(spec(1))
    device.run()
    assert device.version() == "1"


def test_without_podman_files_are_managed_and_applications_refused_with_the_reason() -> None:
    device = Device(SimWorld(1))
    device.world.podman.is_absent = True
    device.offer(document(1, [file("/etc/motd", "v1")], []))
    device.run()
    assert device.version() == "1"
    device.offer(spec(2))
    device.run()
    assert "podman is not installed" in refused(device, 2)


def test_an_application_that_ends_with_success_is_well_and_not_started_again() -> None:
    device = device_on(**{"r/once": Image(exits=0)})
    device.offer(spec(2, "r/once"))
    device.run()
    device.run(settle_s=100)
    assert device.version() == "2"
    (listed,) = device.mailbox.status()["applications"]
    assert (listed["status"], listed["restarts"]) == ("Completed", 0)
    (box,) = device.world.podman.boxes.values()
    started = box.started_at
    device.run(settle_s=100)
    assert box.started_at == started
    # A new boot is a new day: it runs once more.
    device.world.power_cut()
    device.run(settle_s=5)
    assert box.started_at > started


def test_a_stable_application_without_a_health_check_is_well_after_a_while() -> None:
    device = device_on(**{"r/plain": Image()})
    began = device.world.elapsed_s
    device.offer(spec(2, "r/plain"))
    device.run()
    assert device.version() == "2"
    assert 3 <= device.world.elapsed_s - began < 10


def test_an_application_that_falls_ill_late_is_gone_back_from() -> None:
    """Its check succeeds for half a minute; a longer look is a matter of configuration."""
    late = {"r/late": Image(health=True, well_s=30)}
    device = device_on(**late)
    device.offer(spec(2, "r/late"))
    device.run()
    assert device.version() == "2", "it was looked at for three seconds"

    where = SimWorld()
    device = Device(where, times=settings.LoopSettings(stability_s=35.0))
    device.offer(spec(1, "r/web:1"))
    where.podman.registry |= {"r/web:1": GOOD} | late
    device.run()
    assert device.version() == "1"
    device.offer(spec(2, "r/late"))
    device.run()
    assert "the database does not answer" in refused(device, 2)
    assert device.picture(running=True) == device.expected("1", running=True)


def test_many_applications_prove_themselves_side_by_side() -> None:
    device = device_on()
    device.world.podman.registry["r/plain"] = Image()
    device.offer(document(2, [], [application(f"a{i}", "r/plain") for i in range(15)]))
    device.run()
    assert device.condition()["reason"] == "Updated", device.condition()


def test_two_applications_with_one_identifier_are_refused() -> None:
    device = device_on()
    twins = [application("My App", "r/web:1"), application("my_app", "r/web:1")]
    device.offer(document(2, [], twins))
    device.run()
    assert "its identifier is that of My App too" in refused(device, 2)
