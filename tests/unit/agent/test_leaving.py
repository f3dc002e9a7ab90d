"""Dismissed by the service: what the reference does then, sentence by sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import leaving, mailbox, telling
from agent.linux import LinuxWorld
from tests.fakes.clocked_world import ClockedWorld

DATA = "/var/lib/flightctl"
OWN = f"{DATA}/homeport"


class Mail(mailbox.Mailbox):
    """`heard`: whether the service takes the reports, one after the other."""

    def __init__(self, *heard: bool) -> None:
        super().__init__()
        self._heard = list(heard)
        self.said: list[tuple[str, str, str]] = []

    def wait_for_push(self, timeout_s: float) -> bool:
        (condition,) = self.status()["conditions"]
        self.said.append((condition["type"], condition["status"], condition["reason"]))
        self.message = str(condition["message"])
        return self._heard.pop(0)


STARTED, COMPLETED, ERROR = (
    ("DeviceDecommissioning", "True", reason) for reason in ("Started", "Completed", "Error")
)


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ((True, True), [STARTED, COMPLETED]),
        ((True, False), [STARTED, COMPLETED]),
        ((False, True), [STARTED, ERROR]),
        ((False, False), [STARTED, ERROR]),
    ],
    ids=["heard", "the end is not heard", "the beginning is not heard", "nothing is heard"],
)
def test_the_service_is_told_twice(
    tmp_path: Path, heard: tuple[bool, ...], said: list[tuple[str, str, str]]
) -> None:
    mail = Mail(*heard)
    teller = telling.Teller(mail)
    leaving.say_farewell(ClockedWorld(tmp_path), mail, teller, 60, is_reset=False)
    assert mail.said == said


@pytest.mark.parametrize(("is_reset", "words"), [(False, "its identity"), (True, "their data")])
def test_what_goes_is_told_before_it_goes(tmp_path: Path, is_reset: bool, words: str) -> None:
    mail = Mail(True, True)
    leaving.say_farewell(ClockedWorld(tmp_path), mail, telling.Teller(mail), 60, is_reset=is_reset)
    assert mail.message.endswith(f"{words} and its identity" if is_reset else words)


class Shredding(ClockedWorld):
    shredded: list[str]
    removed: list[str]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.shredded, self.removed = [], []

    def shred(self, path: str) -> None:
        self.shredded.append(path)
        super().shred(path)

    def remove(self, path: str) -> None:
        self.removed.append(path)
        super().remove(path)


@pytest.fixture
def device(tmp_path: Path) -> Shredding:
    made = Shredding(tmp_path)
    for name in ("agent.key", "agent.crt", "agent.csr"):
        made.put(f"{DATA}/certs/{name}", name, mode=0o600)
    for name in ("current.json", "desired.json", "tpm-blob.yaml", "deep/er/file"):
        made.put(f"{DATA}/{name}", "{}")
    made.path(f"{DATA}/link").symlink_to("/etc/app.conf")
    for name in ("journal.jsonl", "originals/1"):
        made.put(f"{OWN}/{name}", "")
    made.put("/etc/flightctl/certs/client-enrollment.key", "stays")
    made.put("/etc/app.conf", "stays")
    made.put("/etc/containers/systemd/web/app.container", "stays")
    return made


def test_the_identity_is_overwritten_before_all_else_and_the_journal_goes_last(
    device: Shredding,
) -> None:
    leaving.wipe(device, DATA, OWN)
    identity = {f"{DATA}/certs/agent.{end}" for end in ("key", "crt", "csr")}
    assert set(device.shredded) == identity
    assert set(device.removed[:3]) == identity
    assert device.removed[-2:] == [f"{OWN}/journal.jsonl", OWN]


def test_every_entry_of_the_data_directory_goes_and_nothing_else(device: Shredding) -> None:
    leaving.wipe(device, DATA, OWN)
    assert device.path(DATA).is_dir()
    assert not list(device.path(DATA).iterdir())
    for path in (
        "/etc/flightctl/certs/client-enrollment.key",
        "/etc/app.conf",
        "/etc/containers/systemd/web/app.container",
    ):
        assert device.read(path) == b"stays"
    assert device.commands == [], "no hook, no podman"


def test_a_wipe_may_be_repeated(device: Shredding) -> None:
    leaving.wipe(device, DATA, OWN)
    leaving.wipe(device, DATA, OWN)


def test_a_key_is_overwritten_on_the_disk(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    with key.open("rb") as held:
        where.shred("/key")
        left = held.read()
    assert not key.exists()
    assert len(left) == 6
    assert left != b"secret"
