"""Root is led nowhere by what a user puts in a folder of theirs: not by a link, not by another name
of a file, not at whatever moment it is put there. What root itself has put there it follows.

Folders that others may write to stand for those of users, so that this can be seen by anybody; with
the rights of root they are real users' folders too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import errors, files, specs, walking, world
from agent.linux import LinuxWorld
from tests.fakes.clocked_world import ClockedWorld

ME, GROUP = os.geteuid(), os.getegid()
HOME = "/home/app"
FILE = f"{HOME}/conf/app.conf"


def wary(where: LinuxWorld) -> LinuxWorld:
    """As root would walk, whoever runs the test."""
    where._walk = walking.Walk(str(where.path("/")), ME)
    return where


def shared(folder: Path) -> Path:
    """A folder in which others may exchange what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return folder


@pytest.fixture
def where(tmp_path: Path) -> LinuxWorld:
    for name in ("etc", "var/home", "run"):
        (tmp_path / name).mkdir(parents=True)
    shared(tmp_path / "home/app")
    return wary(LinuxWorld(str(tmp_path)))


def reached(where: LinuxWorld, path: str, *, follow: bool = False) -> str:
    with where._walk.to(path, follow=follow) as place:
        return place.path


@pytest.mark.parametrize(
    ("links", "path", "follow", "found"),
    [
        ({}, "/etc/a", False, "/etc/a"),
        ({}, "/etc//./a/", False, "/etc/a"),
        ({}, "/etc/../run/a", False, "/run/a"),
        ({}, "/../../etc/a", False, "/etc/a"),
        ({}, "/", False, "/."),
        ({"var/run": "/run"}, "/var/run/a", False, "/run/a"),
        ({"var/run": "../run"}, "/var/run/a", False, "/run/a"),
        ({"var/run": "../../../../run"}, "/var/run/a", False, "/run/a"),
        ({"etc/one": "two", "etc/two": "/var"}, "/etc/one/home/a", False, "/var/home/a"),
        ({"etc/a": "/var"}, "/etc/a", False, "/etc/a"),
        ({"etc/a": "/var/x"}, "/etc/a", True, "/var/x"),
        ({"etc/a": "../home/app/x"}, "/etc/a", True, "/home/app/x"),
        ({"etc/home": "/home/app"}, "/etc/home/conf", False, "/home/app/conf"),
        ({}, "/home/app/../../etc/a", False, "/etc/a"),
        # The last step of what is written, removed or looked at is never a link's.
        ({"home/app/a": "/etc"}, "/home/app/a", False, "/home/app/a"),
    ],
)
def test_roots_own_links_lead_on(
    where: LinuxWorld, links: dict[str, str], path: str, follow: bool, found: str
) -> None:
    for name, target in links.items():
        where.path(f"/{name}").symlink_to(target)
    assert reached(where, path, follow=follow) == found


@pytest.mark.parametrize(
    ("path", "follow"),
    [
        ("/home/app/link/shadow", False),
        ("/home/app/link", True),
        ("/home/app/link/../a", False),
        ("/etc/home/link/shadow", False),
        # Root's folder, and root's link in it; but somebody else says which folder of root's it is.
        ("/home/app/roots/link/shadow", False),
    ],
)
def test_nobody_elses_link_does(where: LinuxWorld, path: str, follow: bool) -> None:
    where.path("/home/app/roots").mkdir(0o755)
    for place in ("/home/app/link", "/home/app/roots/link"):
        where.path(place).symlink_to("/etc")
    where.path("/etc/home").symlink_to("/home/app")
    with pytest.raises(world.Astray) as caught:
        reached(where, path, follow=follow)
    assert caught.value.filename == path
    assert "is a link that root does not follow, for others may write to /home/app: name" in str(
        caught.value
    )


LINKS = {
    "etc/link": "../run",
    "etc/file": "../run/a",
    "etc/nowhere": "../gone",
    "home/app/link": "../../run",
    "home/app/file": "../../run/a",
}
# Paths of all kinds: plain, by links of root's and of others, that end at one, that are not there.
WAYS = [
    f"{folder}{name}"
    for folder in ("/run", "/etc", "/etc/link", "/etc/nowhere", HOME, f"{HOME}/link", "/etc/../run")
    for name in ("", "/", "/a", "/a/b", "/file", "/link", "/none", "//a", "/../run/a")
]


@pytest.mark.parametrize("follow", [False, True])
def test_a_look_is_what_a_walk_comes_to(where: LinuxWorld, *, follow: bool) -> None:
    """Links are relative, so that the kernel would follow all of them."""
    where.path("/run/a").write_text("a")
    for name, target in LINKS.items():
        where.path(f"/{name}").symlink_to(target)

    def walked(path: str) -> object:
        with where._walk.to(path, follow=follow) as place:
            found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        return found.st_ino

    def looked(path: str) -> object:
        handle = where._walk.look(path, follow=follow)
        try:
            return os.fstat(handle).st_ino
        finally:
            os.close(handle)

    answers = []
    for path in WAYS:
        seen: list[object] = []
        for way in (walked, looked):
            try:
                seen.append(way(path))
            except OSError as error:
                seen.append((type(error), error.errno))
        assert seen[0] == seen[1], path
        answers.append(seen[0])
    kinds = {one[0] for one in answers if isinstance(one, tuple)}
    assert kinds == {world.Astray, FileNotFoundError, NotADirectoryError}
    assert sum(isinstance(one, int) for one in answers) > len(WAYS) / 4


def test_a_look_without_links_on_the_way_is_no_walk(
    where: LinuxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    where.path("/run/a").write_bytes(b"a")
    opened: list[str] = []
    real = os.open

    def noted(path: str, *args: Any, **kwargs: Any) -> int:
        opened.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", noted)
    assert where.read("/run/a") == b"a"
    assert len(opened) == 2
    del opened[:]
    assert where.stat("/run/a") is not None
    assert len(opened) == 1


@pytest.mark.parametrize("mode", [0o1777, 0o775, 0o757])
def test_a_folder_is_nobody_elses_only_if_nobody_else_may_write(
    where: LinuxWorld, mode: int
) -> None:
    where.path("/var/link").symlink_to("/etc")
    assert reached(where, "/var/link/a") == "/etc/a"
    where.path("/var").chmod(mode)
    with pytest.raises(world.Astray):
        reached(where, "/var/link/a")


@pytest.mark.skipif(ME != 0, reason="changes owners")
def test_a_users_folder_is_the_users(where: LinuxWorld) -> None:
    where.path(HOME).chmod(0o755)
    where.path(f"{HOME}/link").symlink_to("/etc")
    assert reached(where, f"{HOME}/link/a") == "/etc/a"
    os.chown(where.path(HOME), 1001, 1001)
    with pytest.raises(world.Astray, match="/home/app belongs to user 1001"):
        reached(where, f"{HOME}/link/a")


@pytest.mark.skipif(ME != 0, reason="changes owners")
def test_folders_made_in_a_users_folder_are_theirs_and_others_are_roots(where: LinuxWorld) -> None:
    os.chown(where.path(HOME), 1001, 1002)
    where.mkdir(f"{HOME}/.config/containers", mode=0o755)
    where.mkdir("/etc/a/b", mode=0o750)
    made = {path: where.stat(path) for path in (f"{HOME}/.config/containers", "/etc/a/b")}
    assert [(f.uid, f.gid, f.mode) for f in made.values() if f] == [
        (1001, 1002, 0o755),
        (0, 0, 0o750),
    ]


@pytest.mark.skipif(ME != 0, reason="changes owners")
def test_nothing_of_roots_becomes_theirs_who_put_it_in_place_of_a_new_folder(
    where: LinuxWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = where.path(HOME)
    os.chown(home, 1001, 1001)
    (home / "roots").mkdir(0o700)
    (home / "roots/secret").write_bytes(SECRET)
    make = os.mkdir

    def exchanged(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        (home / name).rename(home / "aside")
        (home / "roots").rename(home / name)

    monkeypatch.setattr(os, "mkdir", exchanged)
    where.mkdir(f"{HOME}/.config")
    found = where.stat(f"{HOME}/.config")
    assert found is not None
    assert (found.uid, found.mode) == (0, 0o700)


def test_who_is_not_root_goes_where_links_lead(tmp_path: Path) -> None:
    shared(tmp_path / "home/app")
    (tmp_path / "etc").mkdir()
    (tmp_path / "home/app/link").symlink_to("/etc")
    with walking.Walk(str(tmp_path), None).to("/home/app/link/a", follow=False) as place:
        assert place.path == "/etc/a"


def test_links_in_a_circle_end(where: LinuxWorld) -> None:
    where.path("/etc/a").symlink_to("b")
    where.path("/etc/b").symlink_to("a")
    with pytest.raises(OSError) as caught:
        reached(where, "/etc/a/c")
    assert caught.value.errno == errno.ELOOP
    assert not isinstance(caught.value, world.Astray)


def test_no_handle_is_left_open(where: LinuxWorld) -> None:
    where.path("/var/run").symlink_to("/run")
    where.path(f"{HOME}/link").symlink_to("/etc")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        where.mkdir("/var/run/a/b")
        where.write("/var/run/a/b/c", b"x", mode=0o644, uid=ME, gid=GROUP)
        assert where.hold("/var/run/a/b/c", bytes_max=9) is not None
        assert where.read("/etc/none/deeper") is None
        with pytest.raises(world.Astray):
            where.read(f"{HOME}/link/a")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# A user at work, between any two of root's calls to the system.


class Racer:
    """Does something once, right before the call to the system that is `at`-th."""

    CALLS = (
        *("open", "stat", "fstat", "mkdir", "unlink", "rmdir", "replace", "symlink", "readlink"),
        *("fchmod", "fchown", "getxattr", "setxattr"),
    )

    def __init__(self, at: int, prank: Callable[[], None]) -> None:
        self.at, self.prank, self.calls = at, prank, 0

    @contextmanager
    def racing(self) -> Iterator[None]:
        real = {name: getattr(os, name) for name in self.CALLS}

        def raced(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                if self.calls == self.at:
                    for one, function in real.items():
                        setattr(os, one, function)
                    self.prank()
                return real[name](*args, **kwargs)

            return call

        for name in self.CALLS:
            setattr(os, name, raced(name))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)


def seen(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        one = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(one.st_mode) else b""
        found[str(path)] = (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, data, label(path))
    return found


def label(path: Path) -> str:
    try:
        return os.getxattr(path, "security.selinux", follow_symlinks=False).decode()
    except OSError:
        return ""


PRANKS: dict[str, Callable[[Path], None]] = {}


def prank(function: Callable[[Path], None]) -> Callable[[Path], None]:
    PRANKS[function.__name__] = function
    return function


@prank
def a_link_in_place_of_the_folder(root: Path) -> None:
    (root / "home/app/conf").rename(root / "home/app/aside")
    (root / "home/app/conf").symlink_to("/victim")


@prank
def a_link_that_the_kernel_could_follow(root: Path) -> None:
    (root / "home/app/conf").rename(root / "home/app/aside")
    (root / "home/app/conf").symlink_to("../../victim")


@prank
def a_link_in_place_of_the_file(root: Path) -> None:
    (root / FILE[1:]).unlink(missing_ok=True)
    (root / FILE[1:]).symlink_to("/victim/app.conf")


@prank
def another_name_of_roots_file(root: Path) -> None:
    (root / FILE[1:]).unlink(missing_ok=True)
    (root / FILE[1:]).hardlink_to(root / "victim/app.conf")


@prank
def a_link_in_place_of_the_temporary_file(root: Path) -> None:
    for one in (root / "home/app/conf").glob(".homeport-*"):
        one.unlink()
        one.symlink_to("/victim/app.conf")


@prank
def a_pipe_in_place_of_the_file(root: Path) -> None:
    (root / FILE[1:]).unlink(missing_ok=True)
    os.mkfifo(root / FILE[1:])


@prank
def no_folder(root: Path) -> None:
    (root / "home/app/conf").rename(root / "home/app/aside")


SECRET = b"root's alone"
SPEC = specs.FileSpec(FILE, b"wanted", 0o640, str(ME), str(GROUP))
DEED = Callable[[ClockedWorld, files.Files], object]
DEEDS: dict[str, DEED] = {
    "write": lambda where, managed: managed.write(SPEC),
    "keep": lambda where, managed: managed.back_up(FILE),
    "give back": lambda where, managed: managed.restore(FILE),
    "look": lambda where, managed: managed.states([FILE]),
    "remove": lambda where, managed: where.remove(FILE),
    "remove folder": lambda where, managed: where.remove(f"{HOME}/conf"),
    "shred": lambda where, managed: where.shred(FILE),
    "append": lambda where, managed: where.append(FILE, b"more"),
    "make folders": lambda where, managed: where.mkdir(f"{HOME}/conf/a/b", mode=0o777),
    "link": lambda where, managed: where.symlink(FILE, "anywhere"),
    "label": lambda where, managed: where.put_label(FILE, "system_u:object_r:etc_t:s0"),
    "read": lambda where, managed: where.read(FILE),
}


def device(root: Path) -> tuple[ClockedWorld, files.Files]:
    where = ClockedWorld(root)
    wary(where)
    where.answer = lambda argv: world.Completed(argv, 0, "", "")
    (root / "victim").mkdir(parents=True, mode=0o750)
    (root / "victim/app.conf").write_bytes(SECRET)
    (root / "victim/app.conf").chmod(0o600)
    shared(root / "home/app")
    shared(root / "home/app/conf")
    (root / FILE[1:]).write_bytes(b"the user's")
    (root / FILE[1:]).chmod(0o644)
    where.mkdir("/var/lib/flightctl/homeport")
    return where, files.Files(where, "/var/lib/flightctl", "/var/lib/flightctl/homeport")


def prepared(root: Path, deed: str) -> tuple[ClockedWorld, files.Files]:
    where, managed = device(root)
    if deed == "give back":
        managed.back_up(FILE)
        managed.write(SPEC)
    return where, managed


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("name", PRANKS)
def test_whatever_a_user_does_at_whatever_moment_harms_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, name: str
) -> None:
    """Each moment: before the first call to the system, the second, ... until none is left."""
    # Whether it is on the disk is not asked here, and disks are slow.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for at in range(1, 200):
        root = tmp_path / str(at)
        root.mkdir()
        where, managed = prepared(root, deed)
        before = seen(root / "victim")
        racer = Racer(at, lambda root=root: PRANKS[name](root))  # type: ignore[misc]
        told: object = None
        with racer.racing():
            try:
                told = DEEDS[deed](where, managed)
            except (OSError, errors.Reject, errors.Retry) as error:
                told = error
        # NB of a file with a second name, `append` is the one that writes into it: it is used for
        # the agent's own alone.
        if not (deed == "append" and name == "another_name_of_roots_file"):
            assert seen(root / "victim") == before, (deed, name, at, told)
        kept_is_consistent(where, root, name)
        if racer.calls < at:
            assert at > 3, "nothing was raced"
            return
    pytest.fail("never at an end")


def kept_is_consistent(where: ClockedWorld, root: Path, name: str) -> None:
    """What root keeps as the original has the content and the rights of one and the same file."""
    folder = root / "var/lib/flightctl/homeport/originals"
    texts = [one.read_text() for one in folder.iterdir()] if folder.is_dir() else []
    for text in texts:
        if files.base64.b64encode(SECRET).decode() in text:
            assert name == "another_name_of_roots_file"
            assert f'"mode":{0o600},' in text


def test_a_file_of_a_user_is_managed_like_any_other(tmp_path: Path) -> None:
    where, managed = device(tmp_path)
    place = where.path(FILE)
    assert managed.objection(SPEC) is None
    managed.back_up(FILE)
    managed.write(SPEC)
    assert place.read_bytes() == b"wanted"
    assert managed.states([FILE])[FILE].mode == 0o640
    managed.restore(FILE)
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (b"the user's", 0o644)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_labels_are_those_of_files_and_of_links_themselves(tmp_path: Path, kind: str) -> None:
    where = LinuxWorld(str(tmp_path))
    place = tmp_path / "one"
    place.symlink_to("nowhere") if kind == "link" else place.touch()
    assert where.label("/one") == where.label("/none") == ""
    try:
        where.put_label("/one", "system_u:object_r:etc_t:s0")
    except OSError as error:
        pytest.skip(f"no labels without SELinux for who runs this: {error}")
    assert where.label("/one") == label(place) == "system_u:object_r:etc_t:s0"


@pytest.mark.parametrize("others", [False, True], ids=["root's folder", "a user's"])
def test_another_name_of_a_file_is_not_labelled_where_anybody_may_have_given_it(
    tmp_path: Path, others: bool
) -> None:
    where, _ = device(tmp_path)
    (tmp_path / "home/app").chmod(0o777 if others else 0o755)
    (tmp_path / "home/app/conf").chmod(0o755)
    another_name_of_roots_file(tmp_path)
    with pytest.raises(OSError) if others else contextlib.suppress(PermissionError):
        where.put_label(FILE, "system_u:object_r:etc_t:s0")
    assert not others or label(tmp_path / "victim/app.conf") == ""


def test_a_link_in_the_way_refuses_the_version_and_says_where_it_is(tmp_path: Path) -> None:
    where, managed = device(tmp_path)
    a_link_in_place_of_the_folder(tmp_path)
    found = managed.objection(SPEC)
    assert found is not None
    assert (found.cause, found.element) == (errors.PERMISSION_DENIED, FILE)
    assert found.detail == (
        "/home/app/conf is a link that root does not follow, for others may write to /home/app: "
        "name the folder itself"
    )
    assert managed.states([FILE])[FILE].kind == world.OTHER
    assert where.commands == []


def test_a_file_that_is_not_wanted_any_more_is_the_users_where_the_way_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else whoever puts a link there could keep the device from every other version."""
    _, managed = device(tmp_path)
    managed.back_up(FILE)
    managed.write(SPEC)
    a_link_in_place_of_the_folder(tmp_path)
    managed.restore(FILE)
    assert managed.managed() == frozenset()
    assert (tmp_path / "home/app/aside/app.conf").read_bytes() == b"wanted"
    assert "path not given back: /home/app/conf is a link" in caplog.text


def test_what_is_too_large_to_be_kept_is_refused_and_none_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BYTES_MAX", 9)
    _, managed = device(tmp_path)
    os.truncate(tmp_path / FILE[1:], 1 << 40)
    found = managed.objection(SPEC)
    assert found is not None
    assert f"has {1 << 40} bytes and cannot be kept" in found.detail
    with pytest.raises(errors.Reject):
        managed.back_up(FILE)
    assert managed.states([FILE])[FILE].digest == ""
    # One that was kept before it grew is mended.
    os.truncate(tmp_path / FILE[1:], 3)
    managed.back_up(FILE)
    os.truncate(tmp_path / FILE[1:], 1 << 40)
    assert managed.objection(SPEC) is None
    managed.write(SPEC)
    assert (tmp_path / FILE[1:]).read_bytes() == b"wanted"
