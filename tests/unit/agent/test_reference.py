"""The reference page of the agent has all it can: commands, options, metrics, checks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import audit, bulletin, checks, config, configfiles, doctor, metrics
from agent import commands as command_line
from agent.linux import LinuxWorld

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/reference/agent.md").read_text()
HEAD, _, METRICS, AUDIT, FILES = re.split(r"^# ", PAGE, flags=re.MULTILINE)[1:]


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = command_line.commands()
    (chosen,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {"": parser, **chosen.choices}


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings}


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_option_is_on_the_page_and_every_one_there_exists(command: str) -> None:
    sections = re.split(r"^## `homeport-agent ", HEAD, flags=re.MULTILINE)
    named = {"" if i == 0 else text.split("`")[0].strip(): text for i, text in enumerate(sections)}
    written = set(re.findall(r"`(--?[a-z][\w-]*)", named[command]))
    known = options(commands()[command])
    assert known - written - {"--help", "-h"} == set()
    assert written - known == set()


def test_the_page_knows_no_command_that_is_not_there() -> None:
    headings = re.findall(r"^## `homeport-agent ([a-z-]+)`", HEAD, re.MULTILINE)
    assert sorted(headings) == sorted(set(commands()) - {""})


def test_every_series_is_on_the_page_and_every_one_there_exists() -> None:
    written = set(re.findall(r"`((?:[a-z]+_)+[a-z]+)`", METRICS.partition("`/debug")[0]))
    assert written - {"get_rendered_device_spec"} == set(metrics.MEANINGS)


def test_every_check_is_on_the_page() -> None:
    found = doctor.examine(*_nowhere())
    named = {one.check for one in found} | {"certificate", "service", "hooks"}
    assert len(checks.CHECKS) == _doctor().count("\n| `")
    assert {name for name in named if f"| `{name}` |" not in _doctor()} == set()


def _doctor() -> str:
    return HEAD.partition("## `homeport-agent doctor`")[2].partition("| option")[0]


def _nowhere() -> tuple[LinuxWorld, Callable[[], config.Settings]]:
    where = LinuxWorld("/nowhere")
    return where, lambda: configfiles.load(where)


def test_every_reason_of_the_audit_is_on_the_page() -> None:
    reasons = (
        audit.BOOTSTRAP,
        audit.SYNC,
        audit.UPGRADE,
        audit.ROLLED_BACK,
        audit.RECOVERY,
        audit.INITIALIZATION,
    )
    assert {reason for reason in reasons if f"`{reason}`" not in AUDIT} == set()


@pytest.mark.parametrize("path", [audit.PATH, bulletin.PATH, "/etc/issue.d/flightctl-banner.issue"])
def test_files_of_ours_are_on_the_page(path: str) -> None:
    assert f"`{path}`" in FILES
