"""[simulated] The whole agent, with its service and the network, cut off at every effect of a life.

Each scenario runs once undisturbed and its effects are counted: files, commands, journal records,
what is sent to the service. Then it is run again for each of them, with the agent killed or the
power cut there, before it, after it, or in the middle of it; the next life finds what that left.
All must end as the undisturbed one did, whole on one specification, and claim nothing else on the
way, to the service either (`SimAgent` looks at every turn).

`SIM_SEED` and the numbers that a failure names repeat it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent import settings, world
from resources.records import replace
from tests.fakes import sim_device
from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED, cuts, naming
from tests.fakes.sim_agent import SimAgent
from tests.fakes.sim_device import DATA, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_service import SimService
from tests.fakes.sim_world import KINDS, Crash, Node, SimWorld

Json = dict[str, Any]

pytestmark = pytest.mark.timeout(LIMIT_S)

SAMPLES = 1000 if IS_SOAK else 40
HOUR_S, DAY_S = 3600.0, 86400.0
HOOKS = "/etc/flightctl/hooks.d/afterupdating"

V1_FILES = [
    file("/etc/motd", "one"),
    file("/etc/app/secret", "hunter2", mode=0o600, user="web", group="web"),
    file("/etc/app/gone", "only in one"),
]
V2_FILES = [file("/etc/motd", "two"), file("/etc/hosts", "new here"), V1_FILES[1]]
WEB1 = application("web", "r/web:1")
V1 = document(1, V1_FILES, [WEB1])
IMAGES = {
    "r/web:1": Image(health=True),
    "r/web:2": Image(health=True),
    "r/web:late": Image(health=True, well_s=10.0),
}


@dataclass(frozen=True)
class Scenario:
    name: str
    latest: Json
    reason: str = "Updated"
    words: str = ""
    times: settings.LoopSettings = sim_device.TIMES
    prepare: Callable[[SimAgent], None] = lambda device: None


def fails(device: SimAgent) -> None:
    device.world.mkdir(HOOKS)
    device.world.nodes[f"{HOOKS}/10.yaml"] = Node(world.FILE, b"- run: /bin/check\n")
    device.world.hooks = {"/bin/check": 3}


def fills_the_disk(device: SimAgent) -> None:
    """When the update has begun, for two minutes."""
    began = device.world.elapsed_s
    device.world.is_full = lambda: began + 1.0 < device.world.elapsed_s < began + 120.0


def just_before_the_window_ends(device: SimAgent) -> None:
    device.world.elapsed_s = HOUR_S + 57.0


HOURLY = {"at": "0 * * * *", "timeZone": "UTC", "startGraceDuration": "1m"}
SCENARIOS = [
    Scenario("files only", document(2, V2_FILES, [WEB1])),
    Scenario("files and applications", document(2, V2_FILES, [application("web", "r/web:2")])),
    Scenario(
        "an application fails its check late",
        document(2, V2_FILES, [application("web", "r/web:late")]),
        "Error",
        "applications failed for web",
        replace(sim_device.TIMES, stability_s=60.0),
    ),
    Scenario(
        "a hook fails",
        document(2, V2_FILES, [WEB1]),
        "Error",
        "/bin/check: exit status 3",
        prepare=fails,
    ),
    Scenario("the disk is full", document(2, V2_FILES, [WEB1]), prepare=fills_the_disk),
    Scenario(
        "the window closes midway",
        document(
            2,
            V2_FILES,
            [application("web", "r/web:2")],
            updatePolicy={"downloadSchedule": HOURLY, "updateSchedule": HOURLY},
        ),
        prepare=just_before_the_window_ends,
    ),
]


def new_device(times: settings.LoopSettings = sim_device.TIMES) -> SimAgent:
    where = SimWorld(SEED)
    where.podman.registry = dict(IMAGES)
    device = SimAgent(where, SimService(where, first=V1), times=times)
    device.known["1"] = V1
    device.put_original("/etc/motd", Node(world.LINK, b"/run/motd", 0o777))
    device.put_original("/etc/hosts", Node(world.FILE, b"of the image", 0o640, 0, 1001))
    where.effects.clear()
    return device


def settled() -> SimAgent:
    device = new_device()
    device.live()
    assert device.picture(running=True) == device.expected("1", running=True)
    return device


def again(base: SimAgent, scenario: Scenario, seed: int) -> SimAgent:
    device = base.twin(seed, times=scenario.times)
    scenario.prepare(device)
    device.publish(scenario.latest)
    return device


def check_end(device: SimAgent, scenario: Scenario) -> None:
    end = "2" if scenario.reason == "Updated" else "1"
    device.check_secrets()
    assert device.picture(running=True) == device.expected(end, running=True)
    told = device.service.statuses[-1][1]
    updating = next(one for one in told["conditions"] if one["type"] == "Updating")
    assert (updating["status"], updating["reason"]) == ("False", scenario.reason), updating
    assert scenario.words in updating["message"]
    assert told["config"]["renderedVersion"] == end


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_life_that_is_cut_off_anywhere_ends_as_it_would_have(
    scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    base = settled()
    whole = again(base, scenario, SEED)
    whole.live(whole.world.elapsed_s + DAY_S)
    check_end(whole, scenario)
    effects = list(whole.world.effects)
    whole.check_lasts()
    count, points = len(effects), 0
    for k, kind in cuts(count, KINDS):
        device = again(base, scenario, SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        with naming(k, kind, effects[k]):
            device.live_through_crashes(device.world.elapsed_s + DAY_S, power=k % 2 == 0)
            check_end(device, scenario)
        points += 1
    with capsys.disabled():
        print(f"\n[simulated] {scenario.name}: {count} effects, cut off at {points} points")


def test_two_cuts_anywhere_end_whole(capsys: pytest.CaptureFixture[str]) -> None:
    base, rng = settled(), random.Random(SEED)
    for sample in range(SAMPLES):
        scenario = rng.choice(SCENARIOS)
        device = again(base, scenario, SEED * 100_000 + sample)
        first = rng.randrange(50)
        later = first + 1 + rng.randrange(50)
        device.world.crash_at = {first: rng.choice(KINDS), later: rng.choice(KINDS)}
        with naming(scenario.name, sample, device.world.crash_at):
            device.live_through_crashes(device.world.elapsed_s + DAY_S, power=rng.random() < 0.5)
            check_end(device, scenario)
    with capsys.disabled():
        print(f"\n[simulated] two cuts: {SAMPLES} samples, SIM_SEED={SEED}, all whole")


def test_the_first_life_ever_may_be_cut_off_from_its_key_to_its_first_application(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = new_device()
    whole.live(DAY_S)
    count = len(whole.world.effects)
    for k, kind in cuts(count, KINDS):
        device = new_device()
        device.world.rng.seed(SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        with naming(k, kind, whole.world.effects[k]):
            assert device.live_through_crashes(DAY_S, power=k % 2 == 0) == 1
            assert device.picture(running=True) == device.expected("1", running=True)
            assert device.service.statuses[-1][1]["config"]["renderedVersion"] == "1"
            assert len(device.service.requests) == 1, "another key is another device"
            device.check_secrets()
    with capsys.disabled():
        points = len(cuts(count, KINDS))
        print(f"\n[simulated] first life: {count} effects, cut off at {points} points")


def test_a_device_that_nobody_lets_in_for_days_asks_with_one_key_through_all_its_lives() -> None:
    device = new_device()
    device.service.approves = False
    for life in range(6):
        device.live(device.world.elapsed_s + 8 * HOUR_S, lambda: False)
        if life % 2:
            device.world.power_cut()
    (name,) = device.service.requests
    assert device.service.keys_made == 1
    device.service.approves = True
    device.live(device.world.elapsed_s + DAY_S)
    assert list(device.service.devices) == [name]
    assert device.picture(running=True) == device.expected("1", running=True)


@pytest.mark.parametrize(
    ("seconds", "every"), [(HOUR_S, 1), (DAY_S, 1 if IS_SOAK else 30)], ids=["hour", "day"]
)
def test_a_network_that_goes_at_any_step_holds_an_update_up_and_nothing_more(
    seconds: float, every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that is away is no fault of the update: it is applied in the end."""
    base, scenario = settled(), SCENARIOS[1]
    whole = again(base, scenario, SEED)
    whole.live()
    steps = range(0, len(whole.world.effects), every)
    for k in steps:
        device = again(base, scenario, SEED * 1000 + k)
        device.lose_network(at=k, seconds=seconds)
        with naming(k, whole.world.effects[k]):
            device.live(device.world.elapsed_s + 2 * DAY_S)
            check_end(device, scenario)
    with capsys.disabled():
        hours = seconds / HOUR_S
        print(f"\n[simulated] network gone for {hours:g} h at {len(steps)} steps: all updated")


def dismissed(target: str) -> Json:
    return document(2, V1_FILES, [WEB1], decommissioning={"target": target})


def is_wiped(device: SimAgent) -> bool:
    """Of what it was; the next life may have begun to ask to be let in."""
    left = device.world.read(f"{DATA}/current.json") or b'"device-controller/renderedVersion":"0"'
    return (
        device.world.stat(f"{DATA}/certs/agent.crt") is None
        and device.world.stat(f"{DATA}/homeport/originals") is None
        and b'"device-controller/renderedVersion":"0"' in left
    )


@pytest.mark.parametrize("target", ["Unenroll", "FactoryReset"])
def test_a_device_that_is_dismissed_leaves_nothing_of_itself_wherever_it_is_cut_off(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And has said so before. What it worked with stays, but for a factory reset."""
    base = settled()
    keys = base.world.read(f"{DATA}/certs/agent.key")

    def leaving(seed: int) -> SimAgent:
        device = base.twin(seed, times=replace(sim_device.TIMES, farewell_s=60.0))
        device.service.approves = False
        device.is_tampered = True
        device.publish(dismissed(target))
        return device

    def live(device: SimAgent) -> int:
        crashes = 0
        while not is_wiped(device):
            try:
                device.live(device.world.elapsed_s + HOUR_S, lambda: is_wiped(device))
            except Crash:
                crashes += 1
                device.world.power_cut()
        return crashes

    assert keys
    whole = leaving(SEED)
    live(whole)
    count = len(whole.world.effects)
    for k, kind in cuts(count, KINDS):
        device = leaving(SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        with naming(k, kind, whole.world.effects[k]):
            assert live(device) <= 1
            said = device.service.statuses[-1][1]["conditions"]
            reasons = {one["type"]: one["reason"] for one in said}
            assert reasons["DeviceDecommissioning"] == "Completed"
            motd = device.world.read("/etc/motd")
            # As it was before there was a fleet: a link.
            assert motd == (b"/run/motd" if target == "FactoryReset" else b"one")
            assert bool(device.world.podman.boxes) == (target == "Unenroll")
    with capsys.disabled():
        points = len(cuts(count, KINDS))
        print(f"\n[simulated] {target}: {count} effects, cut off at {points} points")


def serial(device: SimAgent) -> str:
    raw = device.world.read(f"{DATA}/certs/agent.crt") or b"{}"
    return str(json.loads(raw).get("serial", ""))


@pytest.mark.parametrize("is_away", [False, True], ids=["in time", "after its end"])
def test_a_certificate_is_renewed_wherever_that_is_cut_off(
    is_away: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In time, by the old one; after its end, by enrolling again under the old name."""
    base = new_device()
    base.service.lifetime_s = 600.0
    base.live()
    before = serial(base)

    def renewed(seed: int) -> SimAgent:
        device = base.twin(seed)
        device.offer(V1)
        if is_away:
            since = device.world.elapsed_s
            device.service.is_up = lambda at_s: at_s > since + 1200.0
        return device

    def is_over(device: SimAgent) -> Callable[[], bool]:
        def over() -> bool:
            told = device.service.statuses[-1][1]["systemInfo"]["managementCertSerial"]
            return told == serial(device) != before

        return over

    whole = renewed(SEED)
    whole.live(whole.world.elapsed_s + DAY_S, is_over(whole))
    count = len(whole.world.effects)
    assert count > 2
    for k, kind in cuts(count, KINDS):
        device = renewed(SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        with naming(k, kind, whole.world.effects[k]):
            try:
                device.live(device.world.elapsed_s + DAY_S, is_over(device))
            except Crash:
                device.live(device.world.elapsed_s + DAY_S, is_over(device))
            assert is_over(device)(), "not renewed within a day"
            assert list(device.service.requests) == [device.name]
            asked = [one for one in device.world.effects if "/enrollmentrequests" in one]
            assert bool(asked) == is_away, "in time, nobody has to approve anything"
            assert device.picture(running=True) == device.expected("1", running=True)
    with capsys.disabled():
        how = "after its end" if is_away else "in time"
        points = len(cuts(count, KINDS))
        print(f"\n[simulated] renewal {how}: {count} effects, cut off at {points} points")


def test_what_this_agent_does_not_know_of_a_specification_is_kept_as_it_came() -> None:
    """Another agent may read it after this one."""
    device = settled()
    latest = document(2, [{**V2_FILES[0], "tomorrow": {"a": [1]}}], [{**WEB1, "novel": True}])
    latest |= {"future": {"x": None}}
    latest["metadata"]["annotations"]["unheard/of"] = "kept"
    latest["spec"]["invented"] = [{"b": 2}]
    device.publish(latest)
    device.live(device.world.elapsed_s + DAY_S)
    device.world.power_cut()
    device.live(device.world.elapsed_s + DAY_S)
    for name in ("current.json", "desired.json"):
        stored = json.loads(device.world.read(f"{DATA}/{name}") or b"{}")
        assert stored == device.service.devices[device.name]
