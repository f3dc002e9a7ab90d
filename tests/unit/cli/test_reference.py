"""The reference page says what the program can do: no option less, none more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import program

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()
EVERYWHERE = {"--kubeconfig", "--data", "--context", "--namespace", "-n", "--help"}


def _commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Each verb by its words: `get`, `rollout status`."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= _commands(command, f"{prefix}{name} ") if inner else {prefix + name: command}
    return found


COMMANDS = _commands(typer.main.get_command(program()))


def section(command: str) -> str:
    """From the command's heading to the next heading."""
    found = re.search(rf"^## `homeport {command}[ `].*?(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"no section for {command}"
    return found[0]


def options(command: str) -> set[str]:
    return {
        name
        for parameter in COMMANDS[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_is_on_the_page_and_every_one_there_exists(command: str) -> None:
    written = set(re.findall(r"(?<![\w-])-{1,2}[a-zA-Z][\w-]*", section(command)))
    known = options(command) | {"--help"}
    assert options(command) - written - EVERYWHERE == set()
    assert written - known == set()


def test_the_page_knows_no_command_that_is_not_there() -> None:
    headings = re.findall(
        r"^## `homeport ((?:(?:rollout|certificate|app) )?[a-z-]+)", PAGE, re.MULTILINE
    )
    assert sorted(headings) == sorted(COMMANDS)
