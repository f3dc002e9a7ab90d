"""Managed files: what was there before comes back, however often and wherever it was cut off."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agent import errors, files, specs, world
from agent.planner import FileState
from resources import records
from tests.fakes.sim_world import Crash, Node, SimWorld

DATA = "/var/lib/flightctl"
OWN = f"{DATA}/homeport"
PATH = "/etc/app/conf"


def made() -> tuple[SimWorld, files.Files]:
    where = SimWorld()
    where.mkdir("/etc/app")
    return where, files.Files(where, DATA, OWN)


def spec(path: str = PATH, content: bytes = b"ours", **changes: object) -> specs.FileSpec:
    one = specs.FileSpec(path, content, 0o640, "web", "root")
    return records.replace(one, **changes)  # type: ignore[arg-type]


ORIGINALS = {
    "nothing": None,
    "file": Node(world.FILE, b"theirs\x00\xff", 0o4711, 5, 6),
    "empty": Node(world.FILE, b"", 0o600, 0, 0),
    "link": Node(world.LINK, b"../elsewhere", 0o777),
}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS.keys())
def test_what_was_there_comes_back_as_it_was(original: Node | None) -> None:
    where, managed = made()
    if original is not None:
        where.nodes[PATH] = original
    managed.back_up(PATH)
    assert managed.managed() == {PATH}
    managed.write(spec())
    managed.write(spec(content=b"ours again"))
    # A second backup must not take our own file for the original.
    managed.back_up(PATH)
    managed.restore(PATH)
    assert where.nodes.get(PATH) == original
    assert managed.managed() == frozenset()


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS.keys())
def test_what_was_given_back_with_its_record_kept_can_be_given_back_again(
    original: Node | None,
) -> None:
    where, managed = made()
    if original is not None:
        where.nodes[PATH] = original
    managed.back_up(PATH)
    managed.write(spec())
    managed.restore(PATH, is_kept=True)
    assert where.nodes.get(PATH) == original
    assert managed.recorded() == (frozenset(), {PATH})
    # Another system, with ours under the path still.
    where.nodes[PATH] = Node(world.FILE, b"ours")
    # It is wanted again: what was there at first stays the original.
    managed.back_up(PATH)
    assert managed.recorded() == ({PATH}, frozenset())
    managed.restore(PATH, is_kept=True)
    where.nodes[PATH] = Node(world.FILE, b"ours")
    managed.restore(PATH)
    assert where.nodes.get(PATH) == original
    assert managed.recorded() == (frozenset(), frozenset())


def test_only_records_of_what_was_given_back_are_forgotten() -> None:
    _, managed = made()
    for path in (PATH, f"{PATH}.2"):
        managed.back_up(path)
        managed.write(spec(path))
    managed.restore(PATH, is_kept=True)
    managed.forget_given_back()
    assert managed.recorded() == ({f"{PATH}.2"}, frozenset())


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS.keys())
@pytest.mark.parametrize("kind", ["before", "unsynced", "after"])
def test_giving_back_may_be_cut_off_and_done_again(original: Node | None, kind: str) -> None:
    for k in range(6):
        where, managed = made()
        if original is not None:
            where.nodes[PATH] = original
        managed.back_up(PATH)
        managed.write(spec())
        where.crash_at = {len(where.effects) + k: kind}
        try:
            managed.restore(PATH)
        except Crash:
            if PATH in managed.managed():
                managed.restore(PATH)
        assert where.nodes.get(PATH) == original


def test_originals_are_as_secret_as_the_files_may_be() -> None:
    where, managed = made()
    where.nodes[PATH] = Node(world.FILE, b"secret", 0o600)
    managed.back_up(PATH)
    (name,) = where.listdir(f"{OWN}/originals")
    assert where.nodes[f"{OWN}/originals/{name}"].mode == 0o600
    assert where.nodes[f"{OWN}/originals"].mode == 0o700


def test_a_file_is_written_with_owner_mode_and_parents() -> None:
    where, managed = made()
    managed.write(spec("/opt/new/deep/tool", mode=0o4750, user="web", group="0"))
    assert where.nodes["/opt/new/deep/tool"] == Node(world.FILE, b"ours", 0o4750, 1001, 0)
    assert where.nodes["/opt/new/deep"] == Node(world.DIRECTORY, b"", 0o755)
    wanted = managed.wanted(spec("/opt/new/deep/tool", mode=0o4750))
    assert wanted.digest == files.digest_of(b"ours")
    assert managed.state("/opt/new/deep/tool") == FileState(
        world.FILE, wanted.digest, 0o4750, 1001, 0
    )


@pytest.mark.parametrize(
    ("one", "cause", "words"),
    [
        (spec(user="nobody-here"), errors.NOT_FOUND, "there is no user 'nobody-here'"),
        (spec(group="none"), errors.NOT_FOUND, "there is no group 'none'"),
        (spec("/etc/app"), errors.INVALID_ARGUMENT, "/etc/app is a directory"),
        (spec("/dev/null"), errors.INVALID_ARGUMENT, "/dev/null is no regular file"),
        (spec(f"{DATA}/current.json"), errors.PERMISSION_DENIED, "its own data"),
        (spec(f"{OWN}/journal.jsonl"), errors.PERMISSION_DENIED, "its own data"),
    ],
)
def test_what_cannot_be_written_here_is_known_before(
    one: specs.FileSpec, cause: str, words: str
) -> None:
    where, managed = made()
    where.nodes["/dev"] = Node(world.DIRECTORY)
    where.nodes["/dev/null"] = Node(world.OTHER)
    found = managed.objection(one)
    assert found is not None
    assert (found.cause, found.element, found.component) == (cause, one.path, errors.CONFIG)
    assert words in found.detail
    with pytest.raises(errors.Reject):
        managed.write(one)
    assert managed.objection(spec()) is None


def test_a_directory_that_somebody_made_of_our_path_is_left_to_him() -> None:
    where, managed = made()
    managed.back_up(PATH)
    where.nodes[PATH] = Node(world.DIRECTORY)
    managed.restore(PATH)
    assert where.nodes[PATH].kind == world.DIRECTORY
    assert managed.managed() == frozenset()


def test_an_adopted_path_has_no_original() -> None:
    where, managed = made()
    where.nodes[PATH] = Node(world.FILE, b"of the agent before us")
    managed.adopt(PATH)
    managed.adopt(PATH)
    managed.restore(PATH)
    assert PATH not in where.nodes


def test_a_record_that_has_rotted_is_dropped_and_the_file_stays() -> None:
    where, managed = made()
    managed.back_up(PATH)
    managed.write(spec())
    (name,) = where.listdir(f"{OWN}/originals")
    where.nodes[f"{OWN}/originals/{name}"] = Node(world.FILE, b"{", 0o600)
    assert managed.managed() == frozenset()
    assert where.nodes[PATH].data == b"ours"


@pytest.mark.parametrize(
    ("number", "kind", "cause"),
    [
        (errno.ENOSPC, errors.Retry, errors.RESOURCE_EXHAUSTED),
        (errno.EIO, errors.Retry, errors.INTERNAL),
        (errno.EROFS, errors.Reject, errors.PERMISSION_DENIED),
        (errno.ENOTDIR, errors.Reject, errors.INVALID_ARGUMENT),
        (errno.ENAMETOOLONG, errors.Reject, errors.INVALID_ARGUMENT),
    ],
)
def test_troubles_of_the_disk_are_told_apart(number: int, kind: type, cause: str) -> None:
    found = files.error_of(PATH, OSError(number, "words"))
    assert type(found) is kind
    assert (found.cause, found.element, found.detail) == (cause, PATH, "words")
    assert Path(found.element).is_absolute()
