"""Plans: what is left to do, in an order that works."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import osimage, planner, world
from agent.planner import (
    BackUp,
    Container,
    CreateContainer,
    FileState,
    Observed,
    RemoveContainer,
    RestartContainer,
    Restore,
    StartContainer,
    StopContainer,
    Wanted,
    WantedContainer,
    WantedFile,
    WriteFile,
)
from resources.records import replace

FILE = WantedFile("/etc/a", "d1", 0o644, 0, 0)
STATE = FileState(world.FILE, "d1", 0o644, 0, 0)
WEB = WantedContainer("web", "web-1-app", "web-1", "s1")
BOX = Container("id1", "web-1-app", "web-1", "s1", "running")


@pytest.mark.parametrize(
    ("found", "originals", "steps"),
    [
        (None, set(), [BackUp("/etc/a"), WriteFile("/etc/a", "d1")]),
        (STATE, set(), [BackUp("/etc/a")]),
        (STATE, {"/etc/a"}, []),
        (None, {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (replace(STATE, digest="d2"), {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (replace(STATE, mode=0o4644), {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (replace(STATE, uid=1), {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (replace(STATE, gid=1), {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (FileState(world.LINK), {"/etc/a"}, [WriteFile("/etc/a", "d1")]),
        (STATE, {"/etc/a", "/etc/b"}, [Restore("/etc/b")]),
    ],
)
def test_files(found: FileState | None, originals: set[str], steps: list[planner.Step]) -> None:
    files = {} if found is None else {"/etc/a": found}
    observed = Observed(files, frozenset(originals))
    assert list(planner.plan(Wanted((FILE,)), observed)) == steps


@pytest.mark.parametrize("kind", [world.DIRECTORY, world.OTHER])
def test_what_cannot_be_written_over_comes_last(kind: str) -> None:
    other = replace(FILE, path="/etc/b")
    observed = Observed({"/etc/a": FileState(kind)}, frozenset({"/etc/b"}))
    assert planner.plan(Wanted((FILE, other), (WEB,)), observed) == (
        WriteFile("/etc/b", "d1"),
        CreateContainer("web"),
        StartContainer("web"),
        BackUp("/etc/a"),
        WriteFile("/etc/a", "d1"),
    )


@pytest.mark.parametrize(
    ("wanted", "found", "steps"),
    [
        (WEB, [], [CreateContainer("web"), StartContainer("web")]),
        (WEB, [BOX], []),
        (WEB, [replace(BOX, state="created")], [StartContainer("web", "id1")]),
        (WEB, [replace(BOX, state="exited", exit_code=1)], [StartContainer("web", "id1")]),
        (WEB, [replace(BOX, state="exited")], []),
        (
            WEB,
            [replace(BOX, state="exited", is_of_this_boot=False)],
            [StartContainer("web", "id1")],
        ),
        (
            WEB,
            [replace(BOX, state="exited", stopped_by_hand=True)],
            [StartContainer("web", "id1")],
        ),
        (
            WEB,
            [replace(BOX, digest="s0")],
            [
                StopContainer("web-1", "id1"),
                RemoveContainer("web-1", "id1"),
                CreateContainer("web"),
                StartContainer("web"),
            ],
        ),
        (
            WEB,
            [replace(BOX, is_swapped=True)],
            [
                StopContainer("web-1", "id1"),
                RemoveContainer("web-1", "id1"),
                CreateContainer("web"),
                StartContainer("web"),
            ],
        ),
        (
            WEB,
            [replace(BOX, is_ours=False, state="exited")],
            [RemoveContainer("web-1", "id1"), CreateContainer("web"), StartContainer("web")],
        ),
        (
            WEB,
            [replace(BOX, state="unknown")],
            [RemoveContainer("web-1", "id1"), CreateContainer("web"), StartContainer("web")],
        ),
        (
            WEB,
            [BOX, replace(BOX, container="id2", state="created")],
            [RemoveContainer("web-1", "id2")],
        ),
        (None, [BOX], [StopContainer("web-1", "id1"), RemoveContainer("web-1", "id1")]),
        (None, [replace(BOX, is_ours=False)], []),
        (replace(WEB, is_stopped=True), [], [CreateContainer("web")]),
        (replace(WEB, is_stopped=True), [BOX], [StopContainer("web", "id1")]),
        (replace(WEB, is_stopped=True), [replace(BOX, state="exited", exit_code=137)], []),
        (replace(WEB, restart_generation=2), [BOX], [RestartContainer("web", "id1", 2)]),
        (replace(WEB, restart_generation=2), [replace(BOX, restart_generation=2)], []),
    ],
)
def test_containers(
    wanted: WantedContainer | None, found: list[Container], steps: list[planner.Step]
) -> None:
    given_wanted = Wanted(containers=(wanted,) if wanted else ())
    assert list(planner.plan(given_wanted, Observed(containers=tuple(found)))) == steps


def test_all_that_goes_has_gone_before_anything_is_made() -> None:
    other = WantedContainer("db", "db-1-app", "db-1", "s9")
    stale = (replace(BOX, digest="s0"), Container("id9", "x-app", "x", "s", "running"))
    steps = planner.plan(Wanted((FILE,), (WEB, other)), Observed(containers=stale))
    kinds = [type(step).__name__ for step in steps]
    assert kinds.index("WriteFile") < kinds.index("StopContainer")
    last_removal = max(i for i, kind in enumerate(kinds) if kind == "RemoveContainer")
    assert last_removal < kinds.index("CreateContainer")


def test_the_words_of_a_step_hold_no_content() -> None:
    assert planner.words(WriteFile("/etc/a", "d1")) == {
        "do": "WriteFile",
        "path": "/etc/a",
        "digest": "d1",
    }


# A device in a few lines: does doing the plan lead to where there is no plan?

paths = st.sampled_from(["/a", "/b", "/c"])
file_states = st.builds(
    FileState,
    kind=st.sampled_from([world.FILE, world.LINK]),
    digest=st.sampled_from(["d1", "d2"]),
    mode=st.sampled_from([0o644, 0o600, 0o4755]),
    uid=st.integers(0, 1),
    gid=st.integers(0, 1),
)
wanted_files = st.lists(
    st.builds(
        WantedFile,
        path=paths,
        digest=st.sampled_from(["d1", "d2"]),
        mode=st.sampled_from([0o644, 0o4755]),
        uid=st.integers(0, 1),
        gid=st.integers(0, 1),
    ),
    unique_by=lambda f: f.path,
)
wanted_containers = st.lists(
    st.builds(
        lambda app, digest, stopped, generation: WantedContainer(
            app, f"{app}-app", app, digest, stopped, generation
        ),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["s1", "s2"]),
        st.booleans(),
        st.integers(0, 2),
    ),
    unique_by=lambda c: c.app,
)
boxes = st.lists(
    st.builds(
        lambda app, digest, state, code, boot, ours: Container(
            "", f"{app}-app", app, digest, state, ours, code, boot
        ),
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["running", "exited", "created", "paused", "unknown"]),
        st.sampled_from([0, 1, 137]),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda c: c.name,
)


def done(step: planner.Step, wanted: Wanted, seen: dict[str, Any]) -> None:
    files, originals, found = seen["files"], seen["originals"], seen["boxes"]
    match step:
        case BackUp(path):
            originals.add(path)
        case WriteFile(path):
            assert path in originals, "written before it was backed up"
            one = next(f for f in wanted.files if f.path == path)
            files[path] = FileState(world.FILE, one.digest, one.mode, one.uid, one.gid)
        case Restore(path):
            originals.discard(path)
            files.pop(path, None)
        case StopContainer(_, container):
            found[container] = replace(found[container], state="exited", exit_code=137)
        case RemoveContainer(_, container):
            assert found[container].state not in planner.RUNNING, "removed while it runs"
            del found[container]
        case CreateContainer(app):
            one_box = next(c for c in wanted.containers if c.app == app)
            assert all(b.name != one_box.container_name for b in found.values()), "name taken"
            found[f"new-{app}"] = Container(
                f"new-{app}",
                one_box.container_name,
                one_box.app_id,
                one_box.digest,
                "created",
                restart_generation=one_box.restart_generation,
            )
        case StartContainer(app, container):
            key = container or f"new-{app}"
            found[key] = replace(found[key], state="running", is_of_this_boot=True)
        case RestartContainer(_, container, generation):
            found[container] = replace(
                found[container], state="running", restart_generation=generation
            )


@given(
    wanted_files,
    wanted_containers,
    st.dictionaries(paths, file_states),
    st.sets(paths),
    boxes,
    st.data(),
)
def test_a_plan_that_is_done_leaves_no_plan_even_when_it_was_cut_off_and_begun_again(
    files: list[WantedFile],
    containers: list[WantedContainer],
    there: dict[str, FileState],
    originals: set[str],
    found: list[Container],
    data: st.DataObject,
) -> None:
    wanted = Wanted(tuple(files), tuple(containers))
    numbered = {f"id{i}": replace(c, container=f"id{i}") for i, c in enumerate(found)}
    seen: dict[str, Any] = {"files": there, "originals": originals, "boxes": numbered}

    def look() -> Observed:
        return Observed(seen["files"], frozenset(originals), tuple(numbered.values()))

    steps = planner.plan(wanted, look())
    for step in steps[: data.draw(st.integers(0, len(steps)))]:
        done(step, wanted, seen)
    for step in planner.plan(wanted, look()):
        done(step, wanted, seen)
    assert planner.plan(wanted, look()) == ()
    assert originals == {f.path for f in files}


OS_1 = osimage.Wanted("os:1", may_roll_back=True)
OS_2 = osimage.Wanted("os:2")
ON_1 = osimage.Slots(osimage.Slot("os:1", "", "a.0"))


def test_a_new_system_takes_the_files_over_and_the_applications_wait_for_it() -> None:
    steps = planner.plan(Wanted((FILE,), (WEB,), OS_2), Observed(os=ON_1))
    assert steps == (
        osimage.StageOs("os:2", "os:2"),
        BackUp("/etc/a"),
        WriteFile("/etc/a", "d1"),
        osimage.Reboot("os:2"),
    )
    there = osimage.Slots(osimage.Slot("os:2"), rollback=osimage.Slot("os:1"))
    done = Observed({"/etc/a": STATE}, frozenset({"/etc/a"}), os=there)
    steps = planner.plan(Wanted((FILE,), (WEB,), OS_2), done)
    assert steps == (CreateContainer("web"), StartContainer("web"))


def test_on_the_way_back_files_wait_for_the_old_system_too() -> None:
    slots = osimage.Slots(osimage.Slot("os:2"), rollback=osimage.Slot("os:1", "", "a.0"))
    steps = planner.plan(Wanted((FILE,), (WEB,), OS_1), Observed(os=slots))
    assert steps == (osimage.QueueRollback("os:1"), osimage.Reboot("os:1", "a.0"))


def test_nothing_is_given_back_where_it_is_not_known_which_system_runs() -> None:
    """It may be the failed one, with an `/etc` of its own; the old one has its file still."""
    found = Observed({"/etc/b": STATE}, frozenset({"/etc/b"}), os=None)
    steps = planner.plan(Wanted((FILE,), (), OS_1), found)
    assert steps == (BackUp("/etc/a"), WriteFile("/etc/a", "d1"))
    assert Restore("/etc/b") in planner.plan(Wanted((FILE,), (), None), found)


def test_every_step_of_the_system_has_words_for_the_journal() -> None:
    assert planner.words(osimage.Reboot("os:2", "a.0")) == {
        "do": "Reboot",
        "image": "os:2",
        "rollback_deployment": "a.0",
    }


def test_in_another_system_what_is_given_back_is_kept_in_mind_and_given_back_at_home() -> None:
    found = Observed(originals=frozenset({"/etc/b"}), given_back=frozenset({"/etc/c"}))
    assert planner.plan(Wanted(), found, keeps_records=True) == (Restore("/etc/b", True),)
    assert planner.plan(Wanted(), found) == (Restore("/etc/b"), Restore("/etc/c"))
    # What is wanted again becomes ours again, with the record that there is.
    again = planner.plan(Wanted((FILE,)), Observed(given_back=frozenset({FILE.path})))
    assert [type(step).__name__ for step in again] == ["BackUp", "WriteFile"]
