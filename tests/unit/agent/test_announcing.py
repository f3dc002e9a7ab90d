"""What systemd and a person at the console are told."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import banner, notify, world
from tests.fakes.clocked_world import ClockedWorld


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(5)
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
        heard.settimeout(5)
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


def test_the_picture_is_drawn_in_a_child_or_left_out(tmp_path: Path) -> None:
    drawn = banner.picture(ClockedWorld(tmp_path), "https://ui/enroll/x")
    with contextlib.suppress(ImportError):
        import qrcode  # noqa: F401

        assert drawn
        return
    assert drawn == ""
