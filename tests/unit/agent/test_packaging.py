"""What packages and images have of the agent: what it needs, nothing more, each time the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import version

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGING = REPOSITORY / "agent/packaging"
PRIVATE = "usr/lib/homeport-agent"


def run(*argv: str | Path, **environ: str) -> str:
    environ = {"PATH": os.environ["PATH"], **environ}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{argv}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    run(PACKAGING / "install.sh", folder, HOMEPORT_COMMIT="abc")
    return folder


def test_every_module_can_be_imported_from_what_is_laid_out(tree: Path) -> None:
    """Isolated, as the launcher is: from nowhere but the private folder and the libraries."""
    names = [p.stem for p in (tree / PRIVATE / "agent").glob("*.py") if p.stem != "__main__"]
    assert len(names) > 50
    code = f"import sys; sys.path.insert(0, {str(tree / PRIVATE)!r})\n"
    # Without libtss2 the modules of the TPM cannot be imported anywhere.
    code += "\n".join(f"import agent.{name}" for name in names if name != "tpm")
    code += "\nprint(*{m.__file__ for n, m in sys.modules.items() if n.startswith('resources')})"
    places = run(sys.executable, "-I", "-B", "-c", code).split()
    assert places
    assert all(place.startswith(str(tree)) for place in places)


def test_the_launcher_knows_its_commit_and_heeds_no_environment(tree: Path) -> None:
    launcher = (tree / "usr/bin/flightctl-agent").read_text()
    assert launcher.startswith("#!/usr/bin/python3 -I\n")
    here = tree / "launcher"
    here.write_text(launcher.replace("/usr/lib", f"{tree}/usr/lib"))
    said = run(sys.executable, "-I", "-B", here, "version", PYTHONPATH="/nowhere")
    here.unlink()
    assert said.splitlines() == [version.VERSION, "abc"]


def test_nothing_else_is_laid_out(tree: Path) -> None:
    found = {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()}
    rest = {path for path in found if not path.startswith(f"{PRIVATE}/")}
    assert rest == {
        "usr/bin/flightctl-agent",
        "usr/bin/homeport-agent",
        "usr/lib/systemd/system/flightctl-agent.service",
        "usr/lib/tmpfiles.d/homeport-agent.conf",
        "usr/libexec/flightctl/mask-bootc-timer.sh",
        "usr/lib/flightctl/hooks.d/afterupdating/00-default.yaml",
        "usr/lib/greenboot/check/required.d/20_check_flightctl_agent.sh",
        "usr/lib/greenboot/red.d/40_flightctl_agent_pre_rollback.sh",
    }
    assert not [p for p in tree.rglob("*") if p.is_file() and p.stat().st_mode & 0o022]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb")
def test_the_same_sources_make_the_same_package(tmp_path: Path) -> None:
    fixed = {"HOMEPORT_COMMIT": "abc", "SOURCE_DATE_EPOCH": "1767225600"}
    one, two = (
        Path(run(PACKAGING / "build-deb.sh", tmp_path / name, **fixed).strip())
        for name in ("one", "two")
    )
    assert one.name == f"homeport-agent_{version.VERSION}-1_all.deb"
    assert one.read_bytes() == two.read_bytes()
    fields = run("dpkg-deb", "--field", one)
    assert "Conflicts: flightctl-agent" in fields
    (recommended,) = [line for line in fields.splitlines() if line.startswith("Recommends: ")]
    # For applications of users: numbers, a network, and a systemd of theirs.
    wanted = {"podman (>= 5)", "uidmap", "passt", "libpam-systemd", "dbus-user-session"}
    assert wanted <= set(recommended.removeprefix("Recommends: ").split(", "))


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck (make setup installs it)")
def test_scripts_that_run_as_root_are_sound() -> None:
    scripts = [
        p for p in PACKAGING.rglob("*") if p.is_file() and p.read_bytes()[:9] == b"#!/bin/sh"
    ]
    assert len(scripts) >= 10
    run("shellcheck", "--external-sources", "--exclude=SC1091", *scripts)


@pytest.mark.parametrize("is_there", [False, True], ids=["no timer", "a timer"])
def test_bootcs_own_timer_is_masked_once(tmp_path: Path, is_there: bool) -> None:
    """As the unit runs it before each start; below another root, with a systemctl that notes."""
    script = (PACKAGING / "mask-bootc-timer.sh").read_text()
    for folder in ("/usr/lib/systemd", "/etc/systemd", "/var/log"):
        (tmp_path / folder[1:] / "system").mkdir(parents=True)
        script = script.replace(folder, f"{tmp_path}{folder}")
    script = script.replace(f"{tmp_path}{tmp_path}", str(tmp_path))
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n')
    (tmp_path / "systemctl").chmod(0o755)
    timer = "bootc-fetch-apply-updates.timer"
    if is_there:
        (tmp_path / "usr/lib/systemd/system" / timer).touch()
    for _ in range(2):
        run("/bin/sh", "-c", script, PATH=f"{tmp_path}:{os.environ['PATH']}")
    link = tmp_path / "etc/systemd/system" / timer
    said = tmp_path / "said"
    if not is_there:
        assert not link.is_symlink()
        assert not said.exists()
        return
    assert str(link.readlink()) == "/dev/null"
    assert said.read_text().splitlines() == ["daemon-reload", f"mask --now {timer}"]


def test_the_unit_is_what_others_know_of_it() -> None:
    """Its name, how it says that it is up, and that it is never given up."""
    text = (REPOSITORY / "agent/flightctl-agent.service").read_text()
    keys = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert {
        "Type": "notify",
        "After": "network.target",
        "Before": "getty@tty1.service",
        "WantedBy": "multi-user.target",
        "Restart": "always",
        "RestartSec": "5",
        "RestartSteps": "20",
        "RestartMaxDelaySec": "61",
        "StartLimitIntervalSec": "5",
        "StartLimitBurst": "1000",
        "KillMode": "process",
        "KillSignal": "SIGINT",
        "ExecStart": "/usr/bin/flightctl-agent",
        "ExecReload": "/bin/kill -HUP $MAINPID",
    }.items() <= keys.items()
