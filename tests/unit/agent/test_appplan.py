"""Plans for Compose and Quadlet applications: what is left to do, from what there is."""

from __future__ import annotations

import pytest

from agent import appplan
from agent.appplan import (
    ClearApp,
    FetchBundle,
    FillVolume,
    FoundApp,
    InstallApp,
    ReloadUnits,
    RemoveApp,
    RestartApp,
    Stamp,
    StartApp,
    StopApp,
    WantedApp,
    WantedVolume,
    Workload,
)
from resources.records import replace

FILES = {"/f/a": ("d", 0o644, 0, 0)}
UNITS = ("q.target", "a.service")
MODEL = WantedVolume("model", "q-model-1", "r/model:1", "image 1")
WANTED = WantedApp("q", "q-1", "quadlet", "/f", "d1", "", FILES, ("a.service",))
UP = Workload("a.service", appplan.RUNNING)
DOWN = Workload("a.service", appplan.FAILED)
FOUND = FoundApp("q-1", "quadlet", "/f", FILES, Stamp("d1", "b"), True, (UP,), UNITS)
TAKEN = replace(WANTED, spec_digest="s1")
THEIRS = {"/f/a": ("theirs", 0o644, 0, 0)}
ADOPTED = Stamp("adopted", "b", paths=("/f/a",), adopted_as="s1", adopted=THEIRS)
CHART = WantedApp("c", "n_c", "helm", "/v", "d1", "r/c:1", FILES)
RELEASE = FoundApp("n_c", "helm", "/v", FILES, Stamp("d1", "b"), True)
STOP, CLEAR = StopApp("q-1", "quadlet", UNITS), ClearApp("q-1", "quadlet")
MAKE = [InstallApp("q", "d1"), ReloadUnits(), StartApp("q")]
START = [StartApp("q")]


def plan(
    wanted: list[WantedApp],
    found: list[FoundApp],
    volumes: dict[str, str] | None = None,
    *,
    revives: bool = True,
) -> list[appplan.Step]:
    given = volumes or {}
    return [
        *appplan.removals(wanted, found, given),
        *appplan.creations(wanted, found, given, revives=revives),
    ]


@pytest.mark.parametrize(
    ("wanted", "found", "steps"),
    [
        pytest.param(WANTED, None, MAKE, id="new"),
        pytest.param(WANTED, FOUND, [], id="as it should be"),
        pytest.param(None, FOUND, [STOP, CLEAR, RemoveApp("q-1", "quadlet", "/f")], id="gone"),
        pytest.param(replace(WANTED, digest="d2"), FOUND,
                     [STOP, CLEAR, InstallApp("q", "d2"), ReloadUnits(), StartApp("q")],
                     id="changed"),
        pytest.param(WANTED, replace(FOUND, files={}), [STOP, CLEAR, *MAKE], id="file removed"),
        pytest.param(WANTED, replace(FOUND, files={**FILES, "/f/b": FILES["/f/a"]}),
                     [STOP, CLEAR, *MAKE], id="file added"),
        pytest.param(WANTED, replace(FOUND, is_swapped=True), [STOP, CLEAR, *MAKE],
                     id="other image"),
        pytest.param(WANTED, replace(FOUND, stamp=Stamp("")), [STOP, CLEAR, *MAKE],
                     id="cut off before the start"),
        pytest.param(WANTED, replace(FOUND, stamp=None), START, id="another agent's, right"),
        # Taken over: the other agent's bytes are right, for what they were made from.
        pytest.param(TAKEN, replace(FOUND, files=THEIRS, stamp=ADOPTED), [], id="taken over"),
        pytest.param(TAKEN, replace(FOUND, files=THEIRS, stamp=ADOPTED, workloads=(DOWN,)), START,
                     id="taken over, down"),
        pytest.param(TAKEN, replace(FOUND, files=FILES, stamp=ADOPTED), [STOP, CLEAR, *MAKE],
                     id="taken over, tampered with"),
        pytest.param(replace(TAKEN, spec_digest="s2"),
                     replace(FOUND, files=THEIRS, stamp=ADOPTED), [STOP, CLEAR, *MAKE],
                     id="taken over, changed"),
        pytest.param(WANTED, replace(FOUND, workloads=(DOWN,)), START, id="down"),
        pytest.param(WANTED, replace(FOUND, workloads=()), START, id="never ran"),
        pytest.param(WANTED, replace(FOUND, is_target_up=False), START, id="target stopped"),
        pytest.param(WANTED, replace(FOUND, workloads=(replace(UP, state="crashing"),)), [],
                     id="systemd is at it"),
        pytest.param(WANTED, replace(FOUND, workloads=(replace(UP, state="completed"),)), [],
                     id="completed"),
        pytest.param(replace(WANTED, is_stopped=True), FOUND, [STOP], id="to be stopped"),
        pytest.param(replace(WANTED, is_stopped=True), replace(FOUND, workloads=(DOWN,)), [],
                     id="stopped"),
        pytest.param(replace(WANTED, restart_generation=1), FOUND, [RestartApp("q", 1)],
                     id="restart asked"),
        pytest.param(replace(WANTED, digest="", image="r/q"), FOUND,
                     [FetchBundle("q", "r/q", is_repair=True)], id="content lost"),
        pytest.param(replace(WANTED, folder="/g"), FOUND,
                     [STOP, CLEAR, RemoveApp("q-1", "quadlet", "/f"), *MAKE], id="moved"),
    ],
)  # fmt: skip
def test_what_is_left_to_do(
    wanted: WantedApp | None, found: FoundApp | None, steps: list[appplan.Step]
) -> None:
    assert plan([wanted] if wanted else [], [found] if found else []) == steps


def test_between_two_specifications_what_does_not_stay_up_is_left_to_the_verdict() -> None:
    down = replace(FOUND, workloads=(DOWN,))
    assert plan([WANTED], [down], revives=False) == []
    # But what this boot has not seen started is started once.
    earlier = replace(down, is_of_this_boot=False)
    assert plan([WANTED], [earlier], revives=False) == START


def test_a_volume_is_filled_while_its_application_is_down_and_not_again() -> None:
    wanted = replace(WANTED, volumes=(MODEL,))
    fill = FillVolume("q", "model", "r/model:1")
    made = [*MAKE[:2], fill, StartApp("q")]
    assert plan([wanted], []) == made
    assert plan([wanted], [FOUND], {MODEL.volume: "image 0"}) == [STOP, CLEAR, *made]
    assert plan([wanted], [FOUND], {MODEL.volume: "image 1"}) == []


def test_all_that_goes_has_gone_before_anything_is_made() -> None:
    other = replace(WANTED, app="c", app_id="c-1", kind="compose", folder="/c")
    steps = plan([other, replace(WANTED, digest="d2")], [FOUND])
    kinds = [type(step).__name__ for step in steps]
    assert (
        kinds
        == ["StopApp", "ClearApp", "InstallApp", "InstallApp", "ReloadUnits"] + ["StartApp"] * 2
    )


@pytest.mark.parametrize(
    ("wanted", "found", "steps"),
    [
        pytest.param(CHART, None, [InstallApp("c", "d1"), StartApp("c")], id="new"),
        pytest.param(CHART, RELEASE, [], id="as it should be"),
        # No stop, no removal: helm goes from what there is to what there should be.
        pytest.param(
            replace(CHART, digest="d2"),
            RELEASE,
            [InstallApp("c", "d2"), StartApp("c")],
            id="changed",
        ),
        pytest.param(None, RELEASE, [RemoveApp("n_c", "helm", "/v")], id="gone"),
        pytest.param(
            replace(CHART, digest=""),
            RELEASE,
            [appplan.FetchChart("c", "r/c:1", is_repair=True)],
            id="chart lost",
        ),
        pytest.param(
            replace(CHART, is_stopped=True),
            replace(RELEASE, workloads=(UP,)),
            [StopApp("n_c", "helm")],
            id="to be stopped",
        ),
        pytest.param(
            replace(CHART, is_stopped=True),
            replace(RELEASE, workloads=(UP,), is_of_this_boot=False),
            [],
            id="stopped, as far as it goes",
        ),
        pytest.param(
            CHART, replace(RELEASE, is_target_up=False), [StartApp("c")], id="uninstalled"
        ),
    ],
)
def test_charts(
    wanted: WantedApp | None, found: FoundApp | None, steps: list[appplan.Step]
) -> None:
    assert plan([wanted] if wanted else [], [found] if found else []) == steps
