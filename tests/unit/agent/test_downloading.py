"""A download in a process of its own: what it leaves, when it stops. Shell scripts download."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import child, downloading, downloads, resuming, room

PLENTY = 10**12


def order(folder: Path, script: str) -> downloads.Order:
    return downloads.Order(("sh", "-c", script), str(folder), ("/watched",))


def begun(folder: Path) -> Path:
    blob = folder / downloads.BLOBS / "aa"
    blob.parent.mkdir(parents=True)
    blob.write_text("begun")
    return blob


def test_an_order_is_understood_as_it_was_meant() -> None:
    made = downloads.Order(("podman", "pull"), "/f", ("/a", "/b"), "q.io/x:1", "/auth")
    assert downloads.decode(made.encode()) == made


def test_the_tool_has_a_folder_for_a_while_and_ends_as_it_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    blob = begun(tmp_path)
    left = tmp_path / downloads.SCRATCH / "of-a-killed-one"
    left.mkdir(parents=True)
    script = 'ls "$TMPDIR"; echo x > "$TMPDIR/big"; echo said >&2; exit 125'
    status = downloading.run(order(tmp_path, script), lambda _: {"/watched": PLENTY})
    assert status == 125
    out, err = capfd.readouterr()
    assert (out, err) == ("errors\n", "said\n"), "nothing else was in it"
    assert sorted(p.name for p in tmp_path.iterdir()) == [downloads.BLOBS]
    assert blob.exists(), "the next one goes on from it"


def test_when_it_has_all_nothing_is_left(tmp_path: Path) -> None:
    begun(tmp_path)
    assert downloading.run(order(tmp_path, "true"), lambda _: {"/watched": PLENTY}) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("after", "keeps"), [(3 * room.RESERVE_BYTES, True), (room.RESERVE_BYTES + 1, False)]
)
def test_it_stops_with_all_that_it_has_started_before_the_disk_is_full(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], after: int, keeps: bool
) -> None:
    blob = begun(tmp_path)
    pids = tmp_path / "pids"
    script = f"sh -c 'echo $$ >> {pids}; sleep 60; :' & echo $$ >> {pids}; wait"
    seen: list[int] = []

    def free(_: tuple[str, ...]) -> dict[str, int]:
        if not pids.exists() or len(pids.read_text().split()) < 2:
            return {"/watched": PLENTY}
        seen.append(5 << 20 if not seen else after)
        return {"/watched": seen[-1]}

    assert downloading.run(order(tmp_path, script), free) == downloading.STOPPED
    assert "Error: no space left for it: 5 MiB are free in /watched" in capfd.readouterr().err
    _until_stopped(pids)
    assert blob.exists() is keeps


def _until_stopped(pids: Path) -> None:
    deadline = time.monotonic() + 20
    while any(_is_alive(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_tool_that_is_not_there_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = downloads.Order(("/no/such/tool",), str(tmp_path))
    assert downloading.run(made) == downloading.STOPPED
    assert "/no/such/tool: No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize(("script", "shown"), [("true", ""), ("exit 1", "retry-after: 7\n")])
def test_what_the_mirror_has_heard_is_told_with_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, shown: str
) -> None:
    def offered(*_: object) -> contextlib.AbstractContextManager[resuming.Offer]:
        return contextlib.nullcontext(resuming.Offer(notes=lambda: ["retry-after: 7"]))

    downloading.run(order(tmp_path, script), lambda _: {"/watched": PLENTY}, offered)
    assert capfd.readouterr().err == shown


def test_if_the_agent_dies_so_does_the_download(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    made = order(tmp_path / "own", f"echo $$ > {pids}; exec sleep 60")
    agent = (
        "import subprocess, sys, time, pathlib\n"
        f"p = subprocess.Popen({list(child.command(downloads.MODULE))!r}, stdin=subprocess.PIPE)\n"
        f"p.stdin.write({made.encode()!r}); p.stdin.close()\n"
        f"pids = pathlib.Path({str(pids)!r})\n"
        "while not (pids.exists() and pids.read_text().strip()): time.sleep(0.02)\n"
        "import os; os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", agent], timeout=30, check=True)
    _until_stopped(pids)


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    made = order(tmp_path / "file/own", "true").encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(made)))
    assert downloading.main() == downloading.STOPPED
    assert capfd.readouterr().err == f"Error: {tmp_path}/file/own: Not a directory\n"
