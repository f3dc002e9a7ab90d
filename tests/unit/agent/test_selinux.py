"""[simulated] SELinux: its program and the labels of files are played; there is none on machines
that test."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import files, planner, selinux, specs, world
from tests.fakes.clocked_world import ClockedWorld

PATH = "/etc/app.conf"
POLICY, WRONG = "system_u:object_r:etc_t:s0", "system_u:object_r:user_tmp_t:s0"


class Labelled(ClockedWorld):
    """What the kernel keeps: a label for each path; new files get the one of the agent's folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.labels: dict[str, str] = {}
        self.is_stuck = False
        self.answer = self._answer

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        assert argv[:4] == ("restorecon", "-n", "-v", "--"), argv
        found = [p for p in argv[4:] if self.label(p) != POLICY]
        said = [f"Would relabel {p} from {WRONG} to {POLICY}" for p in found]
        return world.Completed(argv, 0, "\n".join(said), "")

    def label(self, path: str) -> str:
        return self.labels.get(self.real(path), WRONG)

    def put_label(self, path: str, label: str) -> None:
        if self.is_stuck:
            raise OSError(95, "Operation not supported")
        self.labels[self.real(path)] = label


@pytest.fixture
def where(tmp_path: Path) -> Labelled:
    made = Labelled(tmp_path)
    made.mkdir("/var/lib/flightctl/homeport")
    made.mkdir("/etc")
    return made


def managed(where: Labelled) -> files.Files:
    return files.Files(where, "/var/lib/flightctl", "/var/lib/flightctl/homeport")


SPEC = specs.FileSpec(PATH, b"ours", 0o644, "root", "root")


def test_without_selinux_nothing_is_called(where: Labelled) -> None:
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled
    kept.restore(PATH)
    assert where.commands == []


def test_a_file_gets_the_policys_label_and_an_original_its_own(where: Labelled) -> None:
    where.put(selinux.MARK, "1")
    where.put(PATH, "theirs")
    where.labels[PATH] = "system_u:object_r:special_t:s0"
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    assert where.label(PATH) == POLICY
    assert kept.states([PATH])[PATH].is_labelled
    kept.restore(PATH)
    assert where.label(PATH) == "system_u:object_r:special_t:s0"


def test_a_wrong_label_is_drift_and_is_put_right(where: Labelled) -> None:
    where.put(selinux.MARK, "1")
    kept = managed(where)
    kept.back_up(PATH)
    kept.write(SPEC)
    where.labels[PATH] = WRONG
    states = kept.states([PATH])
    wanted = planner.Wanted((kept.wanted(SPEC),))
    observed = planner.Observed(states, frozenset([PATH]))
    assert [type(step) for step in planner.plan(wanted, observed)] == [planner.WriteFile]
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled


def test_a_folder_that_is_a_link_of_the_administrators_is_known_by_its_own_name(
    where: Labelled,
) -> None:
    """`restorecon` speaks of where things really are, as on systems whose /home is a link."""
    where.put(selinux.MARK, "1")
    where.mkdir("/var/home/app")
    where.symlink("/home", "/var/home")
    kept = managed(where)
    kept.write(specs.FileSpec("/home/app/conf", b"ours", 0o644, "root", "root"))
    assert where.labels == {"/var/home/app/conf": POLICY}
    where.labels.clear()
    assert not kept.states(["/home/app/conf"])["/home/app/conf"].is_labelled


def test_what_cannot_be_labelled_is_held_against_nobody(where: Labelled) -> None:
    where.put(selinux.MARK, "1")
    where.is_stuck = True
    kept = managed(where)
    kept.write(SPEC)
    assert kept.states([PATH])[PATH].is_labelled


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Would relabel /etc/a b from u:o:x:s0 to u:o:y:s0", {"/etc/a b": "u:o:y:s0"}),
        ("restorecon would relabel /etc/a from u:o:x:s0 to u:o:y:s0\n", {"/etc/a": "u:o:y:s0"}),
        ("/etc/a not reset as customized by admin", {}),
    ],
)
def test_words_of_restorecon(text: str, labels: dict[str, str]) -> None:
    assert selinux.relabelled(text) == labels
