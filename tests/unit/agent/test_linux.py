"""The real world keeps what `World` promises; the simulated one is held to the same."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent import linux, world
from agent.linux import LinuxWorld
from tests.fakes.sim_world import SimWorld
from tests.fakes.waiting import until_so

UID, GID = os.geteuid(), os.getegid()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


@pytest.fixture(params=["linux", "simulated"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> world.World:
    made: world.World = LinuxWorld(str(tmp_path)) if request.param == "linux" else SimWorld()
    made.mkdir("/etc")
    return made


def put(where: world.World, path: str, data: bytes = b"x", mode: int = 0o644) -> None:
    where.write(path, data, mode=mode, uid=UID, gid=GID)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o4755, 0o2755, 0o1777, 0o7777, 0])
def test_a_file_has_the_bytes_and_the_mode_that_were_asked_for(
    where: world.World, mode: int
) -> None:
    put(where, "/etc/a", b"one")
    put(where, "/etc/a", b"two", mode)
    assert where.stat("/etc/a") == world.Stat(world.FILE, mode, UID, GID, 3)
    if mode & 0o400 or UID == 0:
        assert where.read("/etc/a") == b"two"
    assert where.listdir("/etc") == ["a"]


@needs_root
def test_a_file_has_its_owner_and_keeps_setuid(where: world.World) -> None:
    where.write("/etc/a", b"x", mode=0o6755, uid=1001, gid=1002)
    assert where.stat("/etc/a") == world.Stat(world.FILE, 0o6755, 1001, 1002, 1)


def test_what_is_not_there_is_none(where: world.World) -> None:
    assert where.read("/etc/none") is None
    assert where.stat("/etc/none/deeper") is None
    assert where.listdir("/nowhere") == []


def test_append_adds_and_is_private(where: world.World) -> None:
    where.append("/etc/log", b"one\n")
    where.append("/etc/log", b"two\n")
    assert where.read("/etc/log") == b"one\ntwo\n"
    found = where.stat("/etc/log")
    assert found is not None
    assert found.mode == 0o600


def test_a_link_is_seen_as_a_link_and_replaced_by_a_file(where: world.World) -> None:
    put(where, "/etc/target", b"safe")
    where.symlink("/etc/a", "target")
    found = where.stat("/etc/a")
    assert found is not None
    assert found.kind == world.LINK
    assert where.read_link("/etc/a") == "target"
    put(where, "/etc/a", b"new")
    assert where.read("/etc/target") == b"safe"
    where.symlink("/etc/a", "elsewhere")
    assert where.read_link("/etc/a") == "elsewhere"


def test_removing_takes_files_links_and_empty_directories_and_may_be_repeated(
    where: world.World,
) -> None:
    put(where, "/etc/a")
    where.symlink("/etc/l", "nowhere")
    where.mkdir("/etc/d/e")
    with pytest.raises(OSError):
        where.remove("/etc/d")
    for path in ("/etc/a", "/etc/l", "/etc/d/e", "/etc/d", "/etc/a", "/etc/none/deeper"):
        where.remove(path)
    assert where.listdir("/etc") == []


def test_directories_come_with_their_parents_and_are_left_as_they_are(where: world.World) -> None:
    where.mkdir("/etc/x", mode=0o700)
    where.mkdir("/etc/x/y/z")
    where.mkdir("/etc/x", mode=0o755)
    modes = {}
    for path in ("/etc/x", "/etc/x/y", "/etc/x/y/z"):
        found = where.stat(path)
        assert found is not None
        modes[path] = found.mode
    assert modes == {"/etc/x": 0o700, "/etc/x/y": 0o755, "/etc/x/y/z": 0o755}


def test_a_file_where_a_directory_must_be_is_an_error(where: world.World) -> None:
    put(where, "/etc/a")
    with pytest.raises(OSError):
        where.mkdir("/etc/a/b")


def test_writing_over_a_directory_is_an_error_and_leaves_no_litter(where: world.World) -> None:
    where.mkdir("/etc/d")
    with pytest.raises(OSError):
        put(where, "/etc/d")
    assert where.listdir("/etc") == ["d"]


def test_shredded_is_gone(where: world.World) -> None:
    put(where, "/etc/key", b"secret", 0o600)
    where.shred("/etc/key")
    where.shred("/etc/key")
    assert where.stat("/etc/key") is None


# The real one alone.


def test_what_a_crash_left_of_a_write_is_no_file_and_is_taken_away_by_the_next(
    tmp_path: Path,
) -> None:
    where = LinuxWorld(str(tmp_path))
    litter = tmp_path / linux._temporary("a")
    litter.write_bytes(b"half")
    assert where.listdir("/") == []
    put(where, "/a", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / linux._temporary("a")).symlink_to(victim)
    put(where, "/a", b"whole")
    assert victim.read_text() == "untouched"


SYNCED = {
    "w.write('/a', b'x', mode=0o600, uid=os.geteuid(), gid=os.getegid())": [
        "fsync file",
        "rename",
        "fsync directory",
    ],
    "w.append('/new', b'x')": ["fsync file", "fsync directory"],
    "w.append('/there', b'x')": ["fsync file"],
    "w.symlink('/link', 'there')": ["rename", "fsync directory"],
    "w.remove('/there')": ["fsync directory"],
    "w.shred('/there')": ["fsync file", "fsync directory"],
    "w.mkdir('/folder/below')": ["rename", "fsync directory", "rename", "fsync directory"],
}


@pytest.mark.parametrize(("effect", "order"), SYNCED.items(), ids=lambda one: str(one)[:12])
def test_what_is_done_is_on_the_disk_when_it_returns(
    tmp_path: Path, effect: str, order: list[str]
) -> None:
    """Seen from outside by strace's little brother: the order of system calls in a child. The
    simulation takes for granted that every effect is durable when it returns."""
    (tmp_path / "there").write_text("before")
    script = (
        "import os, sys\n"
        "calls = []\n"
        "fsync, replace = os.fsync, os.replace\n"
        "def synced(fd):\n"
        "    kind = 'directory' if os.path.isdir(f'/proc/self/fd/{fd}') else 'file'\n"
        "    calls.append(f'fsync {kind}'); fsync(fd)\n"
        "def replaced(*a, **k): calls.append('rename'); replace(*a, **k)\n"
        "os.fsync, os.replace, os.rename = synced, replaced, replaced\n"
        "from agent.linux import LinuxWorld\n"
        "w = LinuxWorld(sys.argv[1])\n"
        f"{effect}\n"
        "print(calls)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert answer.stdout.strip() == str(order), answer.stderr


def test_commands_answer_with_their_status_output_and_errors(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    script = "cat; echo err >&2; echo $X; exit 3"
    answer = where.run(["sh", "-c", script], timeout_s=10, stdin=b"in\n", env={"X": "y"})
    assert (answer.status, answer.stdout, answer.stderr) == (3, "in\ny\n", "err\n")
    assert not answer.ok
    assert answer.words == "err"


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["sh", "-c", "kill -9 $$"], 137),
        (["/no/such/command"], world.NOT_STARTED),
        (["true"], 0),
    ],
)
def test_the_statuses_that_existing_tools_use(tmp_path: Path, argv: list[str], status: int) -> None:
    assert LinuxWorld(str(tmp_path)).run(argv, timeout_s=10).status == status


def test_a_command_out_of_time_is_killed_with_all_its_children(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    # Enough for a shell to say a number; that it ends at all is because of it.
    answer = where.run(["sh", "-c", "sleep 600 & echo $!; wait"], timeout_s=3)
    assert (answer.status, answer.stderr) == (world.TIMED_OUT, "context deadline exceeded")
    pid = int(answer.stdout)

    def is_alive() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
        except FileNotFoundError:
            return False

    until_so(lambda: not is_alive())


def test_a_child_that_stays_behind_with_the_output_open_holds_nobody_up(tmp_path: Path) -> None:
    answer = LinuxWorld(str(tmp_path)).run(["sh", "-c", "sleep 600 & echo $!"], timeout_s=50)
    assert answer.status == 0, "it is not out of time"
    os.kill(int(answer.stdout), signal.SIGKILL)


def test_a_flood_of_output_is_cut_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "OUTPUT_BYTES_MAX", 10)
    answer = LinuxWorld(str(tmp_path)).run(["seq", "1", "1000"], timeout_s=10)
    assert answer.stdout == "\n999\n1000\n"


def test_waking_ends_a_sleep_and_is_not_lost_before_one(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    where.wake()
    where.sleep(600)
    threading.Timer(0.05, where.wake).start()
    where.sleep(600)


def test_names_are_looked_up_in_the_device_under_its_root(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    where.mkdir("/etc")
    assert where.uid_of("0") == 0
    assert where.uid_of("no-such-user-here") is None
    put(where, "/etc/passwd", b"root:x:0:0::/:\nweb:x:77:78::/:\n")
    put(where, "/etc/group", b"root:x:0:\nstaff:x:79:\n")
    assert (where.uid_of("web"), where.gid_of("staff")) == (77, 79)
    assert where.uid_of("nobody") is None
    assert LinuxWorld("/").uid_of("root") == 0
    assert LinuxWorld("/").gid_of("no-such-group") is None


def test_under_a_root_of_its_own_a_reboot_is_left_to_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LinuxWorld(str(tmp_path)).reboot()
    assert "a reboot is due" in caplog.text


def test_facts_of_the_machine(tmp_path: Path) -> None:
    where = LinuxWorld(str(tmp_path))
    assert len(where.boot_id()) == 36
    assert where.cgroup_controllers() >= frozenset()
    assert where.now().utcoffset() is not None
    assert 0 <= where.random() < 1
    assert where.monotonic() <= where.monotonic()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found = where.stat("/fifo")
    assert found is not None
    assert found.kind == world.OTHER
    assert stat.S_ISFIFO(fifo.stat().st_mode)
