"""Holds: files and a socket by which a workload keeps updates away, for a time."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from agent import holddoor, holding
from tests.fakes.clocked_world import START, ClockedWorld
from tests.fakes.waiting import PATIENCE_S, until_so

UNTIL = "2026-11-23T12:30:00Z"


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def put(where: ClockedWorld, name: str, **fields: object) -> None:
    where.put(f"{holding.FOLDER}/{name}", json.dumps(fields))


def test_files_hold_until_their_time(where: ClockedWorld) -> None:
    holds = holding.Holds(where)
    assert holds.current() == ((), "")
    put(where, "press.json", owner="press", reason="batch\n7", until=UNTIL)
    put(where, "oven", until="2026-11-23T13:00:00+00:00")
    found, trouble = holds.current()
    assert [(h.owner, h.reason) for h in found] == [("oven", ""), ("press", "batch 7")]
    assert not trouble
    where.elapsed_s = 1800.0
    assert [h.owner for h in holds.current()[0]] == ["oven"]
    where.elapsed_s = 3600.0
    assert holds.current() == ((), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write {owner, reason, until"),
        ("[]", "write {owner, reason, until"),
        ('{"until": "tomorrow"}', "write {owner, reason, until"),
        ('{"until": "2026-11-23T12:30:00"}', "has no time zone"),
        ('{"until": "2026-11-25T12:30:00Z"}', "more than a day away"),
        ('{"until": "2026-11-23T12:30:00Z", "owner": "a b"}', "owner: letters"),
    ],
)
def test_a_file_that_cannot_be_understood_holds_nothing_and_is_told(
    where: ClockedWorld, text: str, words: str
) -> None:
    where.put(f"{holding.FOLDER}/press", text)
    found, trouble = holding.Holds(where).current()
    assert found == ()
    assert "hold.d/press holds nothing" in trouble
    assert words in trouble


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hold press 30m batch 7 of 9", "ok held until 2026-11-23T12:30:00Z"),
        ("hold press 25h", "error: until is more than a day away"),
        ("hold press soon", "error: 'soon' is not a duration"),
        ("hold press -5m", "error: a hold lasts longer"),
        ("hold ../x 5m", "error: owner: letters"),
        ("release press", "ok"),
        ("release ../x", "error: owner: letters"),
        ("list", "ok"),
        ("open sesame", "error: 'open sesame' is none of: hold OWNER DURATION"),
        ("", "error: '' is none of"),
    ],
)
def test_lines_of_the_socket(where: ClockedWorld, line: str, said: str) -> None:
    assert holddoor.answer(holding.Holds(where), line).startswith(said)


def test_there_is_an_end_to_how_many_hold(where: ClockedWorld) -> None:
    holds = holding.Holds(where)
    for n in range(holding.HOLDS_MAX):
        holds.put(f"w{n}", "", 60)
    assert "64 holds already" in holddoor.answer(holds, "hold one-more 5m")
    assert holddoor.answer(holds, "hold w1 5m again").startswith("ok")


def test_the_socket_answers_outlives_silence_and_goes_with_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The silent one is waited for; who speaks has begun to long before.
    monkeypatch.setattr(holddoor, "PATIENCE_S", 1.0)
    monkeypatch.setattr(holddoor, "LOOK_S", 0.05)
    where = ClockedWorld(tmp_path)
    changed = threading.Event()
    door = holddoor.Door(holding.Holds(where), lambda p: str(where.path(p)), changed.set)
    stop = threading.Event()
    thread = threading.Thread(target=door.run, args=(stop.wait,))
    thread.start()
    path = where.path(holddoor.SOCKET)
    try:
        until_so(path.exists)
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(path))
        assert ask(path, "hold press 10m batch 7\n") == "ok held until 2026-11-23T12:10:00Z\n"
        assert ask(path, "list\n") == "ok\npress until 2026-11-23T12:10:00Z batch 7\n"
        assert ask(path, "x" * 5000).startswith("error: ")
        silent.close()
        assert path.stat().st_mode & 0o777 == holddoor.MODE
        assert changed.is_set()
        assert holding.Holds(where).current()[0][0].until > START
        assert ask(path, "release press\n") == "ok\n"
        assert holding.Holds(where).current() == ((), "")
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not path.exists()


def ask(path: Path, line: str) -> str:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(str(path))
        caller.sendall(line.encode())
        return caller.recv(4096).decode()
