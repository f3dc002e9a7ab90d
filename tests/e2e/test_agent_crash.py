"""The real agent's loop, real files and a real podman, killed by SIGKILL at every journal record.

Each cycle is one update; in it the agent is killed at every so-manieth of the moments that there
are, so that most updates see many deaths, at changing distances. After each cycle the device is
whole on the version that the status names, old or new: digest of files and containers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.sim_device import application, document, file

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

IS_SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
# Updates of each kind among which all moments are dealt out; the soak kills rarely in each.
HANDS = 40 if IS_SOAK else 2
# A death may make another moment impossible in the same update; those are dealt once more.
EXTRA_HANDS = 4
KILLS_LEAST = 3 if IS_SOAK else 1
LIVES_MAX = 300
LIFE_S = 60
Kind = tuple[str, str]
MODES = ("before", "torn", "after")
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
runroot = "{0}/run"
graphroot = "{0}/graph"
"""


class Rig:
    """A device: a root directory, a podman of its own, and the agent as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.plan = folder / "plan.json"
        self.report = folder / "report.json"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/hosts").write_text("of the image\n")
        (self.root / "etc/hosts").chmod(0o640)
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        (folder / "storage.conf").write_text(STORAGE_CONF.format(folder))
        self.env = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self.killed: Counter[str] = Counter()
        self.lives = 0

    def podman(self, *argv: str) -> str:
        answer = subprocess.run(
            ["podman", *argv], env=self.env, capture_output=True, text=True, timeout=120
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def make_images(self) -> None:
        tree = self.folder / "tree"
        (tree / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox
        shutil.copy(busybox, tree / "bin/busybox")
        for name in ("sh", "sleep", "cat", "echo", "true"):
            (tree / "bin" / name).symlink_to("busybox")
        with tarfile.open(self.folder / "tree.tar", "w") as archive:
            archive.add(tree, ".")
        command = ["-c", 'CMD ["/bin/sleep", "3000"]', "-c", "ENV PATH=/bin", "-c", "STOPSIGNAL 9"]
        self.podman("import", *command, str(self.folder / "tree.tar"), "localhost/app:1")
        for tag, check in (("2", "true"), ("bad", "echo the database is away; false")):
            recipe = self.folder / f"Recipe.{tag}"
            recipe.write_text(f"FROM localhost/app:1\nHEALTHCHECK CMD {check}\n")
            image = f"localhost/app:{tag}"
            self.podman("build", "-q", "--format", "docker", "-t", image, "-f", str(recipe))

    def life(self, device: Path) -> bool:
        """One life of the agent; True = it has settled, False = it was killed as planned."""
        self.lives += 1
        argv = [sys.executable, "-m", "tests.fakes.crashing_agent"]
        argv += [str(self.root), str(device), str(self.plan), str(self.report)]
        ended = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=LIFE_S)
        if ended.returncode == 0:
            return True
        assert ended.returncode == -9, ended.stderr
        return False

    def update(self, device: dict[str, object], moments: list[tuple[str, str]]) -> list[str]:
        """One update with these deaths; the labels that the journal saw."""
        given = self.folder / "device.json"
        given.write_text(json.dumps(device))
        self.plan.write_text(json.dumps(moments))
        done, seen = (self.plan.with_name(f"plan.json.{s}") for s in ("done", "seen"))
        for leftover in (done, seen):
            leftover.unlink(missing_ok=True)
        for _ in range(LIVES_MAX):
            if self.life(given):
                break
        else:
            raise AssertionError("does not settle")
        if done.exists():
            self.killed.update(line.split("\t")[0] for line in done.read_text().splitlines())
        return list(dict.fromkeys(seen.read_text().splitlines()))

    def picture(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for place in sorted((self.root / "etc").rglob("*")):
            if not place.is_dir():
                about = place.stat()
                name = str(place.relative_to(self.root))
                found[f"/{name}"] = (place.read_text(), oct(about.st_mode & 0o7777))
        listed = json.loads(self.podman("ps", "--all", "--format", "json"))
        found["containers"] = sorted((c["Names"][0], c["Image"], c["State"]) for c in listed)
        return found

    def claims(self) -> tuple[str, str]:
        status = json.loads(self.report.read_text())
        condition = next(c for c in status["conditions"] if c["type"] == "Updating")
        return status["config"]["renderedVersion"], condition["reason"]


def of_kind(kind: str, version: int) -> dict[str, object]:
    image = {"a": "localhost/app:1", "b": "localhost/app:2", "bad": "localhost/app:bad"}[kind]
    files = [
        file("/etc/one", f"one {kind}\n"),
        file("/etc/two", f"two {kind}\n", mode=0o600),
        file("/etc/app/three", f"three {kind}\n"),
        file("/etc/tool", "#!\n", mode=0o4755 if kind == "a" else 0o755),
    ]
    files.append(file("/etc/gone", "a\n") if kind == "a" else file("/etc/hosts", f"{kind}\n"))
    return document(version, files, [application("web", image, envVars={"KIND": kind})])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("podman", "runc", "busybox"))):
        pytest.skip("needs root, podman, runc and a static busybox")
    made = Rig(tmp_path)
    made.make_images()
    yield made
    made.podman("rm", "--all", "--force", "--time", "0")
    subprocess.run(["podman", "umount", "--all"], env=made.env, capture_output=True, timeout=60)
    for mount in _mounts_below(tmp_path):
        subprocess.run(["umount", mount], capture_output=True, timeout=60)


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [line.split()[1] for line in lines]
    return sorted((m for m in found if m.startswith(f"{folder}/")), reverse=True)


def moments_of(labels: list[str]) -> list[tuple[str, str]]:
    """All there are in soak; else one of each record, the ways of dying in turn."""
    found = [(label, mode) for label in labels for mode in MODES]
    found += [(label, "during") for label in labels if ": intent " in label]
    if IS_SOAK:
        return found
    ways: dict[str, list[str]] = {}
    for label, mode in found:
        ways.setdefault(label, []).append(mode)
    return [(label, modes[n % len(modes)]) for n, (label, modes) in enumerate(ways.items())]


def dealt(labels: dict[Kind, list[str]]) -> dict[Kind, list[tuple[str, str]]]:
    """Each moment to the first kind of update that has it; the soak repeats them in all."""
    taken: set[tuple[str, str]] = set()
    moments: dict[Kind, list[tuple[str, str]]] = {}
    for kind, found in labels.items():
        moments[kind] = [m for m in moments_of(found) if IS_SOAK or m not in taken]
        taken.update(moments[kind])
    return moments


def test_killed_at_every_record_of_the_journal_the_device_ends_whole(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    version = 1
    pictures: dict[str, dict[str, object]] = {}
    rig.update(of_kind("a", version), [])
    pictures["a"] = rig.picture()
    labels: dict[Kind, list[str]] = {}
    at = "a"
    for step in ("b", "bad", "a", "bad"):
        version += 1
        labels[at, step] = rig.update(of_kind(step, version), [])
        if step == "bad":
            assert rig.claims()[1] == "Error"
            assert rig.picture() == pictures[at]
        else:
            assert rig.claims() == (str(version), "Updated")
            pictures.setdefault(step, rig.picture())
            assert rig.picture() == pictures[step]
            at = step
    moments = dealt(labels)
    settled = version - 1
    cycles = 0
    for hand in range(2 * (HANDS + EXTRA_HANDS)):
        for step in ("bad", "b" if at == "a" else "a"):
            version += 1
            cycles += 1
            chosen = moments[at, step][hand // 2 :: HANDS]
            if hand >= 2 * HANDS:
                chosen = [m for m in moments[at, step] if rig.killed[m[0]] < KILLS_LEAST]
            if not chosen and step == "bad":
                continue
            rig.update(of_kind(step, version), chosen)
            if step != "bad":
                at, settled = step, version
            assert rig.picture() == pictures[at], (at, step, chosen)
            reason = "Error" if step == "bad" else "Updated"
            assert rig.claims() == (str(settled), reason), chosen
    all_labels = {label for found in labels.values() for label in found}
    with capsys.disabled():
        print(f"\nagent killed {sum(rig.killed.values())} times in {cycles} updates,", end=" ")
        print(f"{rig.lives} lives, {time.monotonic() - began:.0f} s, soak={IS_SOAK}; by record:")
        for label in sorted(all_labels):
            print(f"  {rig.killed[label]:4d}  {label}")
    assert min(rig.killed[label] for label in all_labels) >= KILLS_LEAST
