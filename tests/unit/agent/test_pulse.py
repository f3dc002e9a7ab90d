"""What runs is asked about again when it may have moved, and not before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import planner, pulse, quadlet, systemd, walking, world
from agent.accounts import Accounts
from agent.places import Places
from tests.fakes.clocked_world import ClockedWorld

PODMAN, SYSTEMD = ("podman", "ps"), ("systemctl", "show")
LOG = "/run/containers/one/healthcheck.log"


class Device:
    """A container with a health check, and its unit; what podman and systemd would say of them."""

    def __init__(self, folder: Path) -> None:
        self.world = ClockedWorld(folder)
        self.world.answer = self._answer
        self.pulse = pulse.Pulse(self.world, Accounts(self.world))
        self.state, self.health, self.active = "running", "healthy", "active"
        self.pids = {"container": 100, "unit": 200}
        self.is_up = True
        for pid in self.pids.values():
            self.begin(pid, "7000")
        self.write_health()

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        return world.Completed(argv, 0 if self.is_up else 1, self.truth(), "")

    def truth(self) -> str:
        return json.dumps([self.state, self.health, self.active, self.pids])

    def begin(self, pid: int, at: str) -> None:
        rest = ["S", *["0"] * 18, at, "0"]
        self.world.put(f"/proc/{pid}/stat", f"{pid} (a name) with) blanks) {' '.join(rest)}")

    def end(self, pid: int) -> None:
        self.world.remove(f"/proc/{pid}/stat")

    def write_health(self) -> None:
        self.world.put(LOG, json.dumps({"Status": self.health, "Log": []}))

    def look(self, *, closely: bool = False) -> str:
        """What an observation is told."""
        self.pulse.look(closely=closely)
        state, health, active, pids = json.loads(self.pulse.ask(PODMAN).stdout)
        container = planner.Container(
            "c", "c", "c", "", state, pid=pids["container"], health=health, has_healthcheck=True,
            health_log=LOG,
        )  # fmt: skip
        self.pulse.watch_containers([container])
        told = self.pulse.ask(SYSTEMD).stdout
        unit = systemd.Unit("u", "loaded", active, pid=pids["unit"])
        self.pulse.watch_units([unit, systemd.Unit("u.target", "loaded", "active")])
        return told

    def asked(self) -> int:
        commands, self.world.commands = len(self.world.commands), []
        return commands


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path)
    made.look()
    assert made.asked() == 2
    return made


def test_while_nothing_moves_nothing_is_asked_for_five_minutes(device: Device) -> None:
    for _ in range(9):
        device.world.sleep(30)
        device.look()
    assert device.asked() == 0
    device.world.sleep(30)
    device.look()
    assert device.asked() == 2


def ended(device: Device) -> None:
    device.end(100)


def unit_ended(device: Device) -> None:
    device.end(200)


def other_process(device: Device) -> None:
    """Its number was given out again."""
    device.begin(100, "9000")


def ill(device: Device) -> None:
    device.health = "unhealthy"
    device.write_health()


def log_gone(device: Device) -> None:
    device.world.remove(LOG)


def log_damaged(device: Device) -> None:
    device.world.put(LOG, "[")


def disturbed(device: Device) -> None:
    device.pulse.disturb()


@pytest.mark.parametrize(
    "event", [ended, unit_ended, other_process, ill, log_gone, log_damaged, disturbed]
)
def test_what_moves_is_asked_about(device: Device, event: Callable[[Device], None]) -> None:
    event(device)
    device.look()
    assert device.asked() == 2


def test_a_close_look_asks_always_and_serves_the_next_one(device: Device) -> None:
    device.look(closely=True)
    assert device.asked() == 2
    device.look()
    assert device.asked() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", "exited"), ("health", "starting"), ("active", "failed"), ("pids", "none")],
)
def test_what_cannot_be_watched_is_asked_about_each_time(
    device: Device, name: str, value: str
) -> None:
    pids = {"container": 0, "unit": 200}
    setattr(device, name, pids if name == "pids" else value)
    device.pulse.disturb()
    for _ in range(3):
        device.look()
    assert device.asked() == 6


def test_who_does_not_answer_is_asked_again(device: Device) -> None:
    device.pulse.disturb()
    device.is_up = False
    device.look()
    device.look()
    assert device.asked() == 4


class Home:
    """Folders of a user's, with one application; what they would answer about them."""

    SITE = quadlet.site_of("/home/web")
    FOLDER = f"{SITE.units}/app"
    FILE = f"{FOLDER}/app.container"

    def __init__(self, folder: Path) -> None:
        self.world = ClockedWorld(folder)
        self.world.put("/etc/passwd", "web:x:1001:1001::/home/web:/bin/sh\n")
        self.world.put("/run/user/1001/systemd/private", "")
        self.world.put(self.FILE, "one")
        self.world.put(f"{self.SITE.targets}/app.target", "")
        self.world.answer = self._answer
        accounts = Accounts(self.world)
        self.pulse = pulse.Pulse(self.world, accounts)
        self.places = Places(self.world, accounts)

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        return world.Completed(argv, 0, json.dumps({"apps": {}, "marks": {}, "texts": {}}), "")

    def look(self) -> int:
        """How often the user was asked, of two looks."""
        self.world.commands = []
        for _ in range(2):
            self.places.look("web", [self.FOLDER], self.pulse)
        return len(self.world.commands)

    def write(self) -> None:
        """At a moment that differs from the one before, on whatever clock the disk has."""
        before = self.world.touched_ns(self.FILE)
        while self.world.touched_ns(self.FILE) == before:
            self.world.path(self.FILE).write_text("two")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    assert made.look() == 1
    return made


def written_to(home: Home) -> None:
    home.write()


def written_back(home: Home) -> None:
    """By somebody who sets the times that a user can set."""
    found = home.world.path(home.FILE).stat()
    home.write()
    os.utime(home.world.path(home.FILE), ns=(found.st_atime_ns, found.st_mtime_ns))


def file_gone(home: Home) -> None:
    home.world.remove(home.FILE)


def file_added(home: Home) -> None:
    home.world.put(f"{home.SITE.units}/other/deep/x.volume", "")


def target_gone(home: Home) -> None:
    home.world.remove(f"{home.SITE.targets}/app.target")


def replaced_by_a_link(home: Home) -> None:
    home.world.remove(home.FILE)
    home.world.path(home.FILE).symlink_to("/etc/passwd")


def all_disturbed(home: Home) -> None:
    home.pulse.disturb()


@pytest.mark.parametrize(
    "event",
    [
        *(written_to, written_back, file_gone, file_added, target_gone),
        *(replaced_by_a_link, all_disturbed),
    ],
)
def test_a_user_is_asked_about_their_folders_when_something_there_moved(
    home: Home, event: Callable[[Home], None]
) -> None:
    assert home.look() == 0
    event(home)
    assert home.look() == 1
    assert home.look() == 0


def test_a_user_whose_folders_cannot_be_seen_is_asked_each_time(home: Home) -> None:
    home.world._walk = walking.Walk(str(home.world.path("/")), os.geteuid())
    home.world.path("/home/web").chmod(0o777)
    home.world.path("/home/web/.config").rename(home.world.path("/home/web/mine"))
    home.world.path("/home/web/.config").symlink_to("mine")
    assert home.look() == 2


def test_what_one_user_was_answered_is_not_told_to_another(device: Device) -> None:
    device.world.put("/etc/passwd", "web:x:1001:1001::/home/web:/bin/sh\n")
    device.world.put("/run/user/1001/systemd/private", "")
    for _ in range(2):
        device.pulse.ask(PODMAN, "web")
    (command,) = device.world.commands
    assert command[-2:] == PODMAN
    assert command[0] == "setpriv"
    device.pulse.ask(PODMAN)
    assert device.asked() == 1


def test_a_result_of_a_check_that_is_too_large_to_read_is_none(device: Device) -> None:
    text = json.dumps({"Status": "healthy", "Log": ["x" * pulse.HEALTH_BYTES_MAX]})
    device.world.put(LOG, text)
    for _ in range(2):
        device.look()
    assert device.asked() == 4


EVENTS = st.lists(st.sampled_from(["restart", "stop", "ill", "well", "fail", "wait"]), max_size=12)


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_nobody_is_told_what_was_true_before_something_moved(events: list[str]) -> None:
    with TemporaryDirectory() as folder:
        device = Device(Path(folder))
        device.look()
        for number, event in enumerate(events):
            happen(device, event, number)
            assert device.look() == device.truth()


def happen(device: Device, event: str, number: int) -> None:
    device.world.sleep(30)
    match event:
        case "restart" | "stop" | "fail":
            for pid in device.pids.values():
                device.end(pid)
            is_up = event == "restart"
            device.state = "running" if is_up else "exited"
            device.active = "active" if is_up else "failed" if event == "fail" else "inactive"
            device.pids = {"container": 1000 + number, "unit": 2000 + number}
            for pid in device.pids.values() if is_up else ():
                device.begin(pid, str(number))
        case "ill" | "well" if device.state == "running":
            device.health = "unhealthy" if event == "ill" else "healthy"
            device.write_health()
