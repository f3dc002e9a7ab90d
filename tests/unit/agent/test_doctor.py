"""`homeport-agent doctor`: each trouble is told with what to do, and a well device has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import __main__ as command_line
from agent import checks, config, configfiles, doctor, errors, findings, keys, world
from tests.fakes import agent_rig, clocked_world

UNIT = "UnitFileState=enabled\nActiveState=active\nNRestarts=0\nStatusText=Connected\n"


class Clinic:
    """A device that is enrolled and well, in front of a real service."""

    def __init__(self, rig: agent_rig.Rig) -> None:
        self.rig = rig
        self.world = rig.world
        self.said: dict[str, str] = {
            "systemctl": UNIT,
            "timedatectl": "yes\n",
            "podman": "5.4.2\n",
            "skopeo": "skopeo version 1.18\n",
        }
        self.world.answer = self._answer
        now = datetime.now(UTC)
        self.world.offset_s = (now - clocked_world.START).total_seconds()
        self.world.mkdir("/var/lib/flightctl/homeport", mode=0o700)
        self.settings = rig.settings()
        self.world.path(config.CONFIG_FILE).chmod(0o600)
        self.who = rig.admitted(self.settings)

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        if argv[0] not in self.said:
            return world.Completed(argv, world.NOT_STARTED, "", "no such file")
        return world.Completed(argv, 0, self.said[argv[0]], "")

    def examined(self) -> list[findings.Finding]:
        return doctor.examine(
            self.world,
            lambda: configfiles.load(self.world),
            real_path=lambda path: str(self.world.path(path)),
            ask=keys.answer,
        )

    def troubles(self) -> list[tuple[str, str, str]]:
        """Without the disks of the machine that the test runs on."""
        return [
            (one.level, one.check, one.message)
            for one in self.examined()
            if one.level != findings.OK and one.check != "disk"
        ]


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    with agent_rig.rigged(tmp_path) as rig:
        yield Clinic(rig)


def test_a_device_that_is_well_has_nothing_and_was_looked_at_everywhere(clinic: Clinic) -> None:
    assert clinic.troubles() == []
    found = clinic.examined()
    looked_at = {one.check for one in found}
    assert looked_at >= {
        "configuration",
        "clock",
        "agent",
        "data directory",
        "certificate",
        "service",
        "tools",
    }
    assert any(one.message.endswith("is reached") for one in found)
    # Nothing was changed, and the service saw one look, as the agent makes it.
    assert clinic.world.stat("/run/flightctl-agent") is None


def edit(clinic: Clinic, **changes: Any) -> None:
    clinic.rig.settings(**changes)
    clinic.world.path(config.CONFIG_FILE).chmod(0o600)


def drop_in(clinic: Clinic) -> None:
    clinic.world.put("/etc/flightctl/conf.d/10.yaml", "log-level: [", mode=0o600)


def open_configuration(clinic: Clinic) -> None:
    clinic.world.path(config.CONFIG_FILE).chmod(0o644)


def old_clock(clinic: Clinic) -> None:
    clinic.world.offset_s -= timedelta(days=9000).total_seconds()


def late(clinic: Clinic) -> None:
    clinic.world.offset_s += timedelta(days=355).total_seconds()


def over(clinic: Clinic) -> None:
    clinic.world.offset_s += timedelta(days=366).total_seconds()


def other_key(clinic: Clinic) -> None:
    clinic.world.put("/var/lib/flightctl/certs/agent.key", keys.create(), mode=0o600)


def no_key(clinic: Clinic) -> None:
    clinic.world.remove("/var/lib/flightctl/certs/agent.key")


def loose_key(clinic: Clinic) -> None:
    clinic.world.path("/var/lib/flightctl/certs/agent.key").chmod(0o644)


def open_folder(clinic: Clinic) -> None:
    clinic.world.path("/var/lib/flightctl").chmod(0o777)


def torn_spec(clinic: Clinic) -> None:
    clinic.world.put("/var/lib/flightctl/desired.json", '{"meta', mode=0o600)


def rotten_journal(clinic: Clinic) -> None:
    clinic.world.put("/var/lib/flightctl/homeport/journal.jsonl", "00000000 {}\n", mode=0o600)


def put_aside(clinic: Clinic) -> None:
    clinic.world.put("/var/lib/flightctl/homeport/current.json.damaged", "{", mode=0o600)


def said(program: str, text: str) -> Callable[[Clinic], None]:
    return lambda clinic: clinic.said.update({program: text})


def gone(program: str) -> Callable[[Clinic], None]:
    return lambda clinic: clinic.said.pop(program, None)


def bad_hook(clinic: Clinic) -> None:
    clinic.world.put("/etc/flightctl/hooks.d/afterupdating/9.yaml", "- when: now\n")


def elsewhere(clinic: Clinic) -> None:
    section = dict(clinic.rig.document["enrollment-service"])
    section["service"] = {**section["service"], "server": "https://127.0.0.1:1"}
    edit(clinic, **{"enrollment-service": section})


def stranger(clinic: Clinic) -> None:
    section = dict(clinic.rig.document["enrollment-service"])
    section["service"] = {"server": clinic.rig.service.url}
    edit(clinic, **{"enrollment-service": section})


def careless(clinic: Clinic) -> None:
    section = dict(clinic.rig.document["enrollment-service"])
    section["service"] = {**section["service"], "insecureSkipVerify": True}
    edit(clinic, **{"enrollment-service": section})


@pytest.mark.parametrize(
    ("harm", "level", "check", "words"),
    [
        (drop_in, "warning", "configuration", "drop-in skipped: /etc/flightctl/conf.d/10.yaml"),
        (open_configuration, "warning", "configuration", "others may read it"),
        (old_clock, "error", "clock", "before this agent was made"),
        (old_clock, "error", "certificate", "not valid yet by this clock"),
        (said("timedatectl", "no\n"), "warning", "clock", "nothing keeps the clock right"),
        (late, "warning", "certificate", "the management certificate ends at"),
        (over, "error", "certificate", "the management certificate ended at"),
        (other_key, "error", "certificate", "it belongs to another key"),
        (no_key, "error", "certificate", "a certificate and no key"),
        (loose_key, "error", "data directory", "others may read it (mode 0644)"),
        (open_folder, "error", "data directory", "others may write to it (mode 0777)"),
        (torn_spec, "warning", "data directory", "desired.json is damaged"),
        (rotten_journal, "warning", "data directory", "the journal has a damaged line"),
        (put_aside, "warning", "data directory", "current.json.damaged was put aside"),
        (gone("systemctl"), "warning", "agent", "systemd does not answer"),
        (said("systemctl", "ActiveState=inactive\n"), "error", "agent", "no such unit"),
        (said("systemctl", UNIT.replace("=active", "=failed")), "error", "agent", "is failed"),
        (said("systemctl", UNIT.replace("ts=0", "ts=7")), "warning", "agent", "restarted 7 times"),
        (gone("podman"), "warning", "tools", "podman is not installed"),
        (said("podman", "4.3.1\n"), "warning", "tools", "podman 4 is too old"),
        (gone("skopeo"), "warning", "tools", "skopeo is not installed"),
        (elsewhere, "error", "service", "https://127.0.0.1:1 is out of reach"),
        (stranger, "error", "service", "is not trusted"),
        (careless, "warning", "service", "its certificate is not verified"),
        (bad_hook, "error", "hooks", "/etc/flightctl/hooks.d/afterupdating/9.yaml: action 1"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_wrong_is_found(
    clinic: Clinic, harm: Callable[[Clinic], None], level: str, check: str, words: str
) -> None:
    harm(clinic)
    found = clinic.troubles()
    assert [one for one in found if one[:2] == (level, check) and words in one[2]], found


PASSWD = "root:x:0:0::/root:/bin/sh\nkiosk:x:1001:1001::/home/kiosk:/bin/sh\n"
PRIVATE = "/run/user/1001/systemd/private"


def for_a_user(clinic: Clinic) -> None:
    """The device runs an application of kiosk's, who has all that it takes."""
    app = {"name": "web", "appType": "container", "image": "quay.example/web:1", "runAs": "kiosk"}
    document = {"metadata": {"name": "d"}, "spec": {"applications": [app]}}
    where = clinic.world
    where.put("/var/lib/flightctl/current.json", json.dumps(document), mode=0o600)
    where.put("/etc/passwd", PASSWD)
    where.mkdir("/home/kiosk")
    where.put("/var/lib/systemd/linger/kiosk", "")
    where.put(PRIVATE, "")
    where.put("/etc/subuid", "other:100000:65536\nkiosk:165536:65536\n")
    where.put("/etc/subgid", "1001:165536:65536\n")
    clinic.said |= {"newuidmap": "", "newgidmap": "", "pasta": "pasta", "slirp4netns": "1.2"}


def without(path: str) -> Callable[[Clinic], None]:
    return lambda clinic: clinic.world.remove(path)


def holds(path: str, text: str) -> Callable[[Clinic], None]:
    return lambda clinic: clinic.world.put(path, text)


def both(*harms: Callable[[Clinic], None]) -> Callable[[Clinic], None]:
    return lambda clinic: [harm(clinic) for harm in harms].clear()


def test_a_user_who_has_all_that_it_takes_is_said_to(clinic: Clinic) -> None:
    for_a_user(clinic)
    assert clinic.troubles() == []
    told = [one.message for one in clinic.examined() if one.check == "users"]
    assert told == ["kiosk lingers and has numbers for containers"]


def test_without_applications_of_users_nothing_is_said_of_them(clinic: Clinic) -> None:
    for_a_user(clinic)
    clinic.world.remove("/var/lib/flightctl/current.json")
    clinic.world.remove(PRIVATE)
    assert [one for one in clinic.examined() if one.check == "users"] == []


@pytest.mark.parametrize(
    ("harm", "level", "words", "hint"),
    [
        (
            holds("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            "error",
            "application web: runAs: no user 'kiosk' here",
            "useradd --create-home kiosk",
        ),
        (
            without("/home/kiosk"),
            "error",
            "application web: runAs: user 'kiosk' has no home",
            "mkhomedir_helper kiosk",
        ),
        (
            without("/var/lib/systemd/linger/kiosk"),
            "error",
            "application web: runAs: user 'kiosk' does not linger",
            "loginctl enable-linger kiosk",
        ),
        (
            without(PRIVATE),
            "warning",
            "kiosk lingers, but their systemd is not up",
            "systemctl start user@1001.service; systemctl status user@1001.service",
        ),
        (
            without("/etc/subuid"),
            "error",
            "kiosk has no numbers for containers in /etc/subuid: images with several owners fail",
            "usermod --add-subuids 100000-165535 kiosk; as kiosk: podman system migrate",
        ),
        (
            both(holds("/etc/subuid", "a:100000:65536\n"), without("/etc/subgid")),
            "error",
            "kiosk has no numbers for containers in /etc/subuid and /etc/subgid: images with "
            "several owners fail",
            "usermod --add-subuids 165536-231071 --add-subgids 100000-165535 kiosk; as kiosk: "
            "podman system migrate",
        ),
        (
            holds("/etc/subgid", "kiosk:100000:1000\n# nobody's\n"),
            "error",
            "kiosk has fewer than 65536 numbers for containers in /etc/subgid: images with several "
            "owners fail",
            "usermod --add-subgids 101000-166535 kiosk; as kiosk: podman system migrate",
        ),
        (
            gone("newuidmap"),
            "error",
            "newuidmap not installed: containers of users cannot run",
            "install uidmap (Debian) or shadow-utils (Fedora)",
        ),
        (
            gone("pasta"),
            "warning",
            "pasta is not installed, which this podman uses for the network of users",
            "install passt, or set default_rootless_network_cmd in containers.conf",
        ),
        (
            both(gone("pasta"), gone("slirp4netns")),
            "error",
            "neither pasta nor slirp4netns: containers of users have no network",
            "install passt",
        ),
    ],
)
def test_what_a_user_lacks_is_told_with_the_command_that_mends_it(
    clinic: Clinic, harm: Callable[[Clinic], None], level: str, words: str, hint: str
) -> None:
    for_a_user(clinic)
    harm(clinic)
    found = [
        (one.level, one.message, one.hint)
        for one in clinic.examined()
        if one.check == "users" and one.level != findings.OK
    ]
    assert found == [(level, words, hint)]


@pytest.mark.parametrize(
    "mend",
    [
        both(gone("slirp4netns")),
        both(gone("pasta"), said("podman", "4.9.3\n")),
        both(without("/etc/subuid"), holds("/etc/nsswitch.conf", "passwd: files\nsubid: sss\n")),
    ],
    ids=["pasta alone", "slirp4netns for an old podman", "numbers from a directory service"],
)
def test_what_is_enough_is_enough(clinic: Clinic, mend: Callable[[Clinic], None]) -> None:
    for_a_user(clinic)
    mend(clinic)
    assert [one for one in clinic.troubles() if one[1] == "users"] == []


@pytest.mark.parametrize(
    ("status", "level", "words"),
    [
        (401, "error", "refusing this device"),
        (404, "warning", "without this device"),
        (429, "warning", "busy"),
        (500, "warning", "ill"),
    ],
)
def test_what_the_service_answers_is_told_apart(
    clinic: Clinic, status: int, level: str, words: str
) -> None:
    clinic.rig.service.script(f"/devices/{clinic.who.name}/rendered", status)
    ((found_level, check, message),) = clinic.troubles()
    assert (found_level, check) == (level, "service")
    assert words in message
    assert str(status) in message


def test_a_device_that_is_not_enrolled_is_asked_for_what_it_enrols_with(clinic: Clinic) -> None:
    clinic.world.remove("/var/lib/flightctl/certs/agent.crt")
    assert clinic.troubles() == []
    assert any("enrolment certificate is valid" in one.message for one in clinic.examined())
    section = dict(clinic.rig.document["enrollment-service"])
    del section["authentication"]
    edit(clinic, **{"enrollment-service": section})
    assert ("error", "certificate") in [one[:2] for one in clinic.troubles()]


def test_without_a_configuration_the_rest_is_looked_at(clinic: Clinic) -> None:
    clinic.world.remove(config.CONFIG_FILE)
    ((level, check, message),) = clinic.troubles()
    assert (level, check) == ("error", "configuration")
    assert "does not exist" in message


def test_keys_that_cannot_be_handled_are_an_error_once(clinic: Clinic) -> None:
    def broken(question: dict[str, Any]) -> dict[str, Any]:
        raise errors.Fatal(
            errors.FAILED_PRECONDITION, "no module named cryptography", component="identity"
        )

    found = doctor.examine(clinic.world, lambda: configfiles.load(clinic.world), ask=broken)
    (one,) = [one for one in found if one.check == "tools" and one.level == findings.ERROR]
    assert one.hint == "install python3-cryptography"


@pytest.mark.parametrize(
    ("blocks", "free", "flags", "level"),
    [
        (1000, 500, 0, "ok"),
        (1000, 90, 0, "warning"),
        (1000, 40, 0, "error"),
        (1000, 500, 1, "error"),
    ],
)
def test_disks_by_what_is_free(blocks: int, free: int, flags: int, level: str) -> None:
    class Disk:
        f_blocks, f_bavail, f_frsize = blocks, free, 1 << 22
        f_files, f_favail, f_flag = 100, 50, flags

    (found,) = checks._space("/var", Disk(), is_needed=True)  # type: ignore[arg-type]
    assert found.level == level


def test_it_ends_with_1_where_there_is_an_error_and_speaks_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["--root", str(tmp_path), "doctor", "-o", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["errors"] == sum(one["level"] == "error" for one in told["findings"]) > 0
    assert set(told["findings"][0]) == {"level", "check", "message", "hint"}
    assert command_line.main(["--root", str(tmp_path), "doctor"]) == 1
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"{told['errors']} error")
