"""Further certificates: asked for, kept fresh, moved and removed; against a service on loopback."""

from __future__ import annotations

import errno
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import keys, provisioning, transport
from tests.fakes import agent_rig
from tests.fakes.service import Authority
from tests.unit.agent.test_provisions import entry

Json = dict[str, Any]

DAY_S = 86400.0
CERTS = "/etc/flightctl/certs.yaml"
CRT, KEY = "/etc/otel/certs/one.crt", "/etc/otel/certs/one.key"


class Subject:
    def __init__(self, rig: agent_rig.Rig) -> None:
        self.rig = rig
        settings = rig.settings()
        self.who = rig.admitted(settings)
        self.client = self.who.caller()
        self.looked_into = 0
        self.again()

    def again(self) -> None:
        """The next life."""
        self.subject = provisioning.Provisioning(
            self.rig.world,
            self.who,
            self.client,
            config_dir="/etc/flightctl",
            own_dir="/var/lib/flightctl/homeport",
            ask=self._ask,
        )

    def _ask(self, question: Json) -> Json:
        self.looked_into += question["do"] == "certificate"
        return keys.answer(question)

    def want(self, *entries: Any) -> None:
        self.rig.world.put(CERTS, yaml.safe_dump(list(entries)))

    def step(self) -> None:
        try:
            self.subject.step()
        finally:
            self.client.close()

    def asked(self) -> list[Json]:
        return [one.body for one in self.rig.service.seen("POST", "/certificatesigningrequests")]

    def facts(self) -> Json:
        """Of what is on the disk."""
        question = {"do": "certificate", "certificate": self.text(CRT), "key": self.text(KEY)}
        return keys.answer(question)

    def text(self, path: str) -> str:
        return (self.rig.world.read(path) or b"").decode()


@pytest.fixture
def subject(rig: agent_rig.Rig) -> Subject:
    made = Subject(rig)
    made.want(entry())
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_files_nothing_is_asked_and_nothing_written(rig: agent_rig.Rig) -> None:
    made = Subject(rig)
    made.step()
    assert rig.service.requests == []
    assert rig.world.listdir("/var/lib/flightctl/homeport") == []


def test_a_certificate_is_asked_for_once_with_a_key_of_its_own(subject: Subject) -> None:
    subject.want(entry(config={"expiration-seconds": 604800, "usages": ["digitalSignature"]}))
    subject.step()
    common = f"svc-otel-{subject.who.name}"
    (asked,) = subject.asked()
    assert asked["metadata"]["name"].rpartition("-")[0] == common
    assert len(asked["metadata"]["name"]) == len(common) + 9
    assert asked["spec"]["signerName"] == "flightctl.io/device-svc-client"
    assert asked["spec"]["usages"] == ["clientAuth", "CA:false", "digitalSignature"]
    assert asked["spec"]["expirationSeconds"] == 604800
    facts = subject.facts()
    assert facts["fitsKey"]
    assert facts["commonName"] == common
    assert subject.text(KEY).encode() != subject.who.credentials().key
    path = subject.rig.world.path
    assert [mode(path(p)) for p in (CRT, KEY, "/etc/otel/certs")] == [0o644, 0o600, 0o700]
    assert subject.subject.troubles() == ()
    for _ in range(3):
        subject.step()
    subject.again()
    subject.step()
    assert len(subject.asked()) == 1


def test_a_look_into_the_files_is_made_when_they_have_changed(subject: Subject) -> None:
    subject.step()
    before = subject.looked_into
    for _ in range(5):
        subject.step()
    assert subject.looked_into <= before + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.rig.world.remove(CRT),
        lambda s: s.rig.world.remove(KEY),
        lambda s: s.rig.world.put(CRT, "rot"),
        lambda s: s.rig.world.put(KEY, "rot"),
        lambda s: s.rig.world.put(KEY, keys.create()),
        lambda s: s.want(entry(config={"common-name": "svc-other-{{.DEVICE_ID}}"})),
    ],
    ids=["no certificate", "no key", "torn certificate", "torn key", "another key", "another name"],
)
def test_what_is_not_right_on_the_disk_is_asked_for_anew(subject: Subject, damage: Any) -> None:
    subject.step()
    damage(subject)
    subject.step()
    assert len(subject.asked()) == 2
    assert subject.facts()["fitsKey"]


def test_it_is_renewed_with_a_new_key_when_a_third_of_its_life_is_left(subject: Subject) -> None:
    subject.rig.service.lifetime = timedelta(days=90)
    subject.rig.world.chance = 0.0
    subject.again()
    subject.step()
    before = subject.text(KEY)
    subject.rig.world.elapsed_s += 59 * DAY_S
    subject.step()
    assert subject.text(KEY) == before
    subject.rig.world.elapsed_s += 2 * DAY_S
    subject.step()
    assert subject.text(KEY) != before
    assert subject.facts()["fitsKey"]


def test_until_it_is_signed_what_is_there_stays_and_the_request_is_looked_at(
    subject: Subject,
) -> None:
    subject.step()
    old = subject.text(CRT), subject.text(KEY)
    subject.rig.service.signs_at_once = False
    subject.rig.world.elapsed_s += 300 * DAY_S
    subject.step()
    assert (subject.text(CRT), subject.text(KEY)) == old
    assert subject.subject.troubles() == ("certificate otel: not signed yet",)
    requests = len(subject.rig.service.requests)
    subject.step()
    assert len(subject.rig.service.requests) == requests, "not before the pause is over"
    subject.rig.world.elapsed_s += provisioning.RETRY_S * 1.2
    subject.step()
    assert len(subject.rig.service.requests) == requests + 1
    assert len(subject.asked()) == 2, "it is looked at, and not asked for anew"


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (503, {"message": "busy"}, "503: busy"),
        (400, {"message": "no such signer"}, "the service refuses it: 400: no such signer"),
        (
            201,
            {"status": {"conditions": [{"type": "Denied", "status": "True", "message": "no"}]}},
            "Denied: no",
        ),
        (
            201,
            {
                "status": {
                    "conditions": [{"type": "Approved", "status": "True"}],
                    "certificate": "bm90IGEgY2VydGlmaWNhdGU=",
                }
            },
            "what was granted is not for the key",
        ),
    ],
    ids=["busy", "refused", "denied", "nonsense"],
)
def test_what_does_not_work_is_told_and_tried_again(
    subject: Subject, status: int, answer: Json, words: str
) -> None:
    subject.rig.service.script("/certificatesigningrequests", status, answer)
    subject.step()
    assert subject.subject.troubles() == (f"certificate otel: {words}",)
    subject.step()
    assert len(subject.asked()) == 1
    subject.rig.world.elapsed_s += provisioning.REFUSED_S * 1.2
    subject.step()
    assert subject.facts()["fitsKey"]
    assert subject.subject.troubles() == ()


def test_a_service_out_of_reach_costs_no_pause(subject: Subject) -> None:
    subject.rig.service.script("/certificatesigningrequests", 200, "no JSON")
    with pytest.raises(transport.Unreachable):
        subject.step()
    subject.step()
    assert subject.facts()["fitsKey"]


def test_one_that_fails_does_not_hold_up_the_others(subject: Subject) -> None:
    subject.want(entry("bad", config={"common-name": "nobody"}), entry())
    subject.step()
    assert subject.facts()["fitsKey"]
    (trouble,) = subject.subject.troubles()
    assert trouble.startswith("certificate bad: the service refuses it: 400: the common name")


def test_files_that_are_named_no_more_are_removed_by_the_next_life_too(subject: Subject) -> None:
    subject.step()
    subject.again()
    subject.want()
    subject.step()
    assert subject.text(CRT) == subject.text(KEY) == ""
    assert "otel" not in subject.text("/var/lib/flightctl/homeport/provisions.json")


def test_a_key_whose_certificate_did_not_get_onto_the_disk_is_not_forgotten(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record comes first: nobody else would ever remove what is written after it."""
    write = subject.rig.world.write

    def full(path: str, *of: Any, **how: Any) -> None:
        if path == CRT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        write(path, *of, **how)

    with monkeypatch.context() as patch:
        patch.setattr(subject.rig.world, "write", full)
        subject.step()
    assert subject.text(KEY)
    assert not subject.text(CRT)
    subject.again()
    subject.want()
    subject.step()
    assert not subject.text(KEY)


def test_a_file_that_cannot_be_read_takes_nothing_back(subject: Subject) -> None:
    subject.step()
    subject.rig.world.put(CERTS, "}{")
    subject.step()
    assert subject.facts()["fitsKey"]
    (words,) = subject.subject.troubles()
    assert words.startswith(f"{CERTS}: cannot be read")


def test_another_path_is_served_and_the_old_files_go(subject: Subject) -> None:
    subject.step()
    subject.want(entry(stored={"key-path": "/etc/otel/certs/two.key"}))
    subject.step()
    assert subject.text(KEY) == ""
    assert subject.text("/etc/otel/certs/two.key").startswith("-----BEGIN EC PRIVATE KEY-----")
    assert subject.text(CRT) != ""


def test_what_another_agent_has_provisioned_is_kept_and_later_removed(subject: Subject) -> None:
    authority: Authority = subject.rig.service.authority
    certificate, key = authority.pair(f"svc-otel-{subject.who.name}", lifetime=timedelta(days=9))
    subject.rig.world.put(CRT, certificate.decode())
    subject.rig.world.put(KEY, key.decode())
    subject.step()
    assert subject.asked() == []
    subject.want()
    subject.step()
    assert subject.text(KEY) == ""


def test_files_of_the_folder_come_after_the_one_beside_it(subject: Subject) -> None:
    document = yaml.safe_dump(entry("more"))
    subject.rig.world.put("/etc/flightctl/certs.d/20-more.yml", document)
    subject.rig.world.put("/etc/flightctl/certs.d/readme.txt", document)
    subject.step()
    assert subject.text("/etc/more/certs/one.crt") != ""
    assert len(subject.asked()) == 2
