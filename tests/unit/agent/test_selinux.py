"""[simulated] SELinux: its three programs are played; there is none on machines that test."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import files, planner, selinux, specs, world
from tests.fakes.clocked_world import ClockedWorld

PATH = "/etc/app.conf"
POLICY, WRONG = "system_u:object_r:etc_t:s0", "system_u:object_r:user_tmp_t:s0"


class Policy:
    """What the kernel keeps: a label for each path; new files get the one of the agent's folder."""

    def __init__(self, where: ClockedWorld) -> None:
        self.where = where
        self.labels: dict[str, str] = {}
        self.is_stuck = False
        where.answer = self.answer

    def answer(self, argv: tuple[str, ...]) -> world.Completed:
        path = argv[-1]
        match argv[0]:
            case "restorecon" if "-n" in argv:
                found = [p for p in argv if p.startswith("/") and self.label(p) != POLICY]
                said = [f"Would relabel {p} from {WRONG} to {POLICY}" for p in found]
                return world.Completed(argv, 0, "\n".join(said), "")
            case "restorecon":
                if not self.is_stuck:
                    self.labels[path] = POLICY
            case "chcon":
                self.labels[path] = argv[-2]
            case "stat":
                return world.Completed(argv, 0, f"{self.label(path)}\n", "")
        return world.Completed(argv, 0, "", "")

    def label(self, path: str) -> str:
        return self.labels.get(path, WRONG)


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    made = ClockedWorld(tmp_path)
    made.mkdir("/var/lib/flightctl/homeport")
    made.mkdir("/etc")
    return made


def managed(where: ClockedWorld) -> files.Files:
    return files.Files(where, "/var/lib/flightctl", "/var/lib/flightctl/homeport")


SPEC = specs.FileSpec(PATH, b"ours", 0o644, "root", "root")


def test_without_selinux_nothing_is_called(where: ClockedWorld) -> None:
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled
    kept.restore(PATH)
    assert where.commands == []


def test_a_file_gets_the_policys_label_and_an_original_its_own(where: ClockedWorld) -> None:
    where.put(selinux.MARK, "1")
    policy = Policy(where)
    where.put(PATH, "theirs")
    policy.labels[PATH] = "system_u:object_r:special_t:s0"
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    assert policy.label(PATH) == POLICY
    assert kept.states([PATH])[PATH].is_labelled
    kept.restore(PATH)
    assert policy.label(PATH) == "system_u:object_r:special_t:s0"


def test_a_wrong_label_is_drift_and_is_put_right(where: ClockedWorld) -> None:
    where.put(selinux.MARK, "1")
    policy = Policy(where)
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    policy.labels[PATH] = WRONG
    states = kept.states([PATH])
    wanted = planner.Wanted((kept.wanted(SPEC),))
    observed = planner.Observed(states, frozenset([PATH]))
    assert [type(step) for step in planner.plan(wanted, observed)] == [planner.WriteFile]
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled


def test_what_cannot_be_labelled_is_held_against_nobody(where: ClockedWorld) -> None:
    where.put(selinux.MARK, "1")
    Policy(where).is_stuck = True
    kept = managed(where)
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Would relabel /etc/a b from u:o:x:s0 to u:o:y:s0", {"/etc/a b"}),
        ("restorecon would relabel /etc/a from u:o:x:s0 to u:o:y:s0\nelse", {"/etc/a"}),
        ("/etc/a not reset as customized by admin", set()),
    ],
)
def test_words_of_restorecon(text: str, paths: set[str]) -> None:
    assert selinux.relabelled(text) == paths
