"""The command line, and what the agent carries onto a small box."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __main__ as command_line
from agent import config, configfiles, version

REPOSITORY = Path(__file__).resolve().parents[3]
HEAVY = {
    # Read in a process of its own.
    "yaml",
    "cryptography",
    "asyncio",
    "concurrent.futures",
    "urllib.request",
    "pydantic",
    "aiohttp",
    "sqlalchemy",
    "kubernetes",
    "kopf",
    "orjson",
    "qrcode",
    # A megabyte that only a command line, or nothing here, has a use for.
    "argparse",
    "gettext",
    "tempfile",
    "shutil",
    "lzma",
    "http.server",
    "xml",
    "unittest",
    "tomllib",
}


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    assert first == parser["metadata"]["version"] == version.VERSION
    assert second


def test_system_info_is_one_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = tmp_path / "usr/lib/flightctl/custom-info.d"
    scripts.mkdir(parents=True)
    (scripts / "10-site.sh").write_text("#!/bin/sh\necho here\n")
    (scripts / "10-site.sh").chmod(0o755)
    (scripts / "notes.txt").write_text("no script")
    assert command_line.main(["--root", str(tmp_path), "system-info"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report["operatingSystem"] == "linux"
    assert report["custom"] == {"site": "here"}
    assert report["boot"]["bootID"]


@pytest.mark.parametrize("argv", [["--nope"], ["unknown-verb"], ["--config"]])
def test_wrong_usage_ends_with_1_and_the_usage(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(argv)
    assert caught.value.code == 1
    assert "usage:" in capsys.readouterr().err


def test_help_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--help"])
    assert caught.value.code == 0
    assert "system-info" in capsys.readouterr().out


@pytest.mark.parametrize("spelling", ["inside", "outside", "elsewhere"])
def test_the_configuration_may_be_named_from_inside_or_outside_the_root(
    tmp_path: Path, spelling: str
) -> None:
    root = tmp_path / "root"
    (root / "etc/flightctl").mkdir(parents=True)
    text = "log-prefix: found\n"
    named = {
        "inside": "/etc/flightctl/config.yaml",
        "outside": str(root / "etc/flightctl/config.yaml"),
        "elsewhere": str(tmp_path / "config.yaml"),
    }[spelling]
    place = tmp_path / "config.yaml" if spelling == "elsewhere" else root / config.CONFIG_FILE[1:]
    place.write_text(text)
    settings = configfiles.read(named, str(root))
    assert settings.log_prefix == "found"


def run_bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As on a device with nothing but python3: no installed package, any working directory."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
        check=False,
    )


def test_an_unusable_configuration_ends_with_1_and_its_name(tmp_path: Path) -> None:
    done = run_bare("-m", "agent", "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "none.yaml: the configuration file does not exist" in done.stderr


def test_the_agent_at_rest_carries_nothing_heavy() -> None:
    code = (
        "import sys, agent.__main__\n"
        "from agent import config, starting, process\n"
        "print(' '.join(sorted(sys.modules)))"
    )
    done = run_bare("-I", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not {name for name in loaded if name in HEAVY or name.split(".")[0] in HEAVY}


def test_the_agent_at_rest_fits_its_memory() -> None:
    """30 MB, with all that it imports and a TLS context."""
    code = (
        "import agent.process, ssl\n"
        "context = ssl.create_default_context()\n"
        "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    )
    done = run_bare("-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30 * 1024
