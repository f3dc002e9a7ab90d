"""Files of applications: looked at and changed here for root, and by a child for a user."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import errors, homefiles, world
from agent.accounts import Accounts, runtime_of
from agent.linux import LinuxWorld
from agent.places import Places
from tests.fakes.clocked_world import ClockedWorld

TARGET = f"app-1{homefiles.TARGET_SUFFIX}"
UNITS, TARGETS = "/etc/containers/systemd", "/etc/systemd/system"


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def put(where: ClockedWorld, files: dict[str, str], *gone: str) -> None:
    content = {f"{UNITS}/app/{k}": (v.encode(), 0o640) for k, v in files.items()}
    places = Places(where, Accounts(where))
    places.put("", content, folder=f"{UNITS}/app", gone=gone, app="app")


def test_what_is_put_takes_the_place_of_all_that_was_there(where: ClockedWorld) -> None:
    where.put(f"{UNITS}/app/old.container", "x")
    where.put(f"{UNITS}/app/old.container.d/a.conf", "x")
    where.put(f"{TARGETS}/{TARGET}", "x")
    put(where, {"new.container": "y"}, f"{TARGETS}/{TARGET}")
    look = Places(where, Accounts(where)).look("", [f"{UNITS}/app"])
    assert list(look.marks) == [f"{UNITS}/app/new.container"]
    assert look.marks[f"{UNITS}/app/new.container"][1] == 0o640
    # The places themselves stay, though nothing is left in one of them.
    assert where.stat(TARGETS) is not None


def test_only_folders_with_a_target_and_those_that_are_asked_for_are_looked_at(
    where: ClockedWorld,
) -> None:
    where.put(f"{UNITS}/app/{TARGET}", "[Unit]\nWants=a.service\n")
    where.put(f"{UNITS}/somebodys/x.container", "x")
    look = Places(where, Accounts(where)).look("", [])
    assert set(look.apps) == {f"{UNITS}/app"}
    assert set(look.marks) == {f"{UNITS}/app/{TARGET}"}
    assert look.texts == {f"{UNITS}/app/{TARGET}": "[Unit]\nWants=a.service\n"}


def test_a_disk_that_does_not_take_it_is_told_by_path(where: ClockedWorld) -> None:
    where.put(f"{UNITS}/app", "a file in the way")
    with pytest.raises(errors.Retry, match="/app"):
        put(where, {"a.container": "x"})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Of nobody's, where they can come to: the folders of a test are root's alone."""
    made = Path("/var/tmp") / f"homeport-test-{tmp_path.name}-{os.getpid()}"
    made.mkdir(mode=0o755)
    os.chown(made, 65534, 65534)
    yield made
    shutil.rmtree(made)


class NobodysWorld(LinuxWorld):
    """The real one, in which nobody has a home and a systemd that is awake."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.account = world.Account("nobody", 65534, 65534, str(home))

    def account_of(self, user: str) -> world.Account | None:
        return self.account if user == "nobody" else None

    def stat(self, path: str) -> world.Stat | None:
        if path.startswith(runtime_of(self.account)):
            return world.Stat(world.OTHER, 0, 0, 0, 0)
        return super().stat(path)


@pytest.mark.skipif(bool(os.geteuid()), reason="becoming somebody else needs root")
def test_in_a_home_a_child_does_it_that_can_do_no_more_than_its_user(home: Path) -> None:
    where = NobodysWorld(home)
    accounts = Accounts(where)
    ask = ["-c", "import sys; sys.path.insert(0, sys.argv[1]); import agent.homefiles, agent.linux"]
    checkout = str(Path(homefiles.__file__).parent.parent)
    for interpreter in (sys.executable, "/usr/bin/python3"):
        if accounts.run("nobody", [interpreter, *ask, checkout], timeout_s=20).ok:
            break
    else:
        pytest.skip("nobody may read neither this checkout nor its interpreter")
    places = Places(where, accounts, interpreter)
    site = places.site("nobody")
    folder = f"{site.units}/app"
    content = {f"{folder}/a.container": (b"one", 0o644)}
    places.put("nobody", content, folder=folder, app="app")
    look = places.look("nobody", [folder])
    assert [mark[1:] for mark in look.marks.values()] == [(0o644, 65534, 65534)]
    # A link in place of the folder leads to what root alone may write to.
    shutil.rmtree(folder)
    Path(folder).symlink_to("/etc")
    with pytest.raises(errors.Retry, match=r"as nobody: .*Permission denied"):
        places.put("nobody", content, folder="", app="app")
    assert not Path("/etc/a.container").exists()
