"""What systemd and a person at the console are told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import banner, notify, world
from tests.fakes.clocked_world import ClockedWorld
from tests.fakes.waiting import PATIENCE_S


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(PATIENCE_S)
        yield heard, address


def test_messages_are_one_datagram_and_children_do_not_inherit_the_socket(
    listener: tuple[socket.socket, str],
) -> None:
    heard, address = listener
    environ = {notify.VARIABLE: address}
    subject = notify.Notifier(environ)
    assert environ == {}
    subject.tell(notify.READY, "STATUS=Starting")
    assert heard.recv(1000) == b"READY=1\nSTATUS=Starting\n"
    subject.status("two\nlines")
    assert heard.recv(1000) == b"STATUS=two lines\n"


def test_without_systemd_nothing_is_told(tmp_path: Path) -> None:
    notify.Notifier({}).tell(notify.READY)
    notify.Notifier({notify.VARIABLE: str(tmp_path / "gone")}).tell(notify.READY)


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0homeport-test-notify")
        heard.settimeout(PATIENCE_S)
        notify.Notifier({notify.VARIABLE: "@homeport-test-notify"}).tell("X=1")
        assert heard.recv(100) == b"X=1\n"


def test_the_banner_says_where_to_approve_and_later_where_to_manage(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 0, "[picture]", "")
    banner.write(device, "https://ui", "abc", is_enrolled=False)
    text = (device.read(banner.PATH) or b"").decode()
    assert "https://ui/enroll/abc\n" in text
    assert "[picture]" in text
    banner.write(device, "https://ui", "abc", is_enrolled=True)
    assert b"https://ui/manage/abc\n" in (device.read(banner.PATH) or b"")


def test_a_banner_that_cannot_be_written_is_only_a_pity(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 1, "", "")
    device.put("/etc/issue.d", "a file is in the way")
    assert "enroll/x" in banner.write(device, "https://ui", "x", is_enrolled=False)


FINDER = ("1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111")
# A glyph is two modules, one above the other; light ones are drawn.
MODULES = {"█": ("0", "0"), "▀": ("0", "1"), "▄": ("1", "0"), " ": ("1", "1"), "\xa0": ("1", "1")}


def test_the_picture_is_a_code_with_its_quiet_zone_light_on_dark(tmp_path: Path) -> None:
    """Drawn in a child: at rest the agent knows nothing of it."""
    url = f"https://homeport.example.com:7443/enroll/{'a' * 52}"
    lines = banner.picture(ClockedWorld(tmp_path), url).splitlines()
    assert max(map(len, lines)) <= 80
    rows = ["".join(MODULES[c][half] for c in line) for line in lines for half in (0, 1)]
    assert set(rows[0] + rows[1]) == {"0"}
    assert tuple(row[2:9] for row in rows[2:9]) == FINDER
    assert tuple(row[-9:-2] for row in rows[2:9]) == FINDER
    assert all(row[:2] == row[-2:] == "00" for row in rows[: len(rows[0])])


def test_without_the_library_there_is_no_picture(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 1, "", "")
    assert banner.picture(device, "https://ui/enroll/x") == ""
