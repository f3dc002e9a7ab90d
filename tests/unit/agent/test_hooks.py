"""Hooks: files read, conditions held against changes, commands taken apart without a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import hooks
from agent.specs import FileSpec

WHAT = hooks.Changes(created=("/etc/app/new",), updated=("/etc/app/a b", "/etc/x"), removed=("/o",))


def one(text: str) -> hooks.Action:
    (action,) = hooks.parse(text.encode())
    return action


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("run: x", "not a list"),
        ("- 1", "action 1: not an object"),
        ("- {run: x, when: y}", "unknown when"),
        ("- {}", "run is missing"),
        ("- {run: 'a \"b'}", "no closing quotation"),
        ("- {run: x, envVars: {lower: a}}", "upper-case"),
        ("- {run: x, envVars: {A: ''}}", "with a value"),
        ("- {run: x, timeout: soon}", "is no duration"),
        ("- {run: x, timeout: 0s}", "more than nothing"),
        ("- {run: x, if: ['not rebooted == false']}", "is no condition"),
        ("- {run: x, if: [{path: relative, op: [created]}]}", "absolute path"),
        ("- {run: x, if: [{path: /a}]}", "op lists some of"),
        ("- {run: x, if: [{path: /a, op: [touched]}]}", "op lists some of"),
    ],
)
def test_what_is_no_hook_is_refused_with_the_action(text: str, words: str) -> None:
    with pytest.raises(hooks.Invalid) as caught:
        hooks.parse(text.encode())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("conditions", "files"),
    [
        ("[]", ()),
        ("[{path: /etc/app/, op: [created, updated]}]", ("/etc/app/a b", "/etc/app/new")),
        ("[{path: /etc/app/, op: [removed]}]", None),
        ("[{path: /etc/app, op: [created, updated, removed]}]", None),
        ("[{path: /etc/x, op: [updated]}]", ("/etc/x",)),
        ("[{path: /etc/x, op: [updated]}, {path: /o, op: [removed]}]", ("/o",)),
        ("[{path: /etc/x, op: [updated]}, {path: /none, op: [removed]}]", None),
        ("['rebooted == true']", None),
        ("['rebooted == false', {path: /o, op: [removed]}]", ("/o",)),
    ],
)
def test_all_conditions_must_hold_and_the_last_path_says_which_files(
    conditions: str, files: tuple[str, ...] | None
) -> None:
    found = hooks.due(one(f"- {{run: x, if: {conditions}}}"), WHAT, is_rebooted=False)
    assert (None if found is None else found.get("Files", ())) == files


@pytest.mark.parametrize(
    ("run", "argv", "env"),
    [
        ("systemctl reload app", ("systemctl", "reload", "app"), ()),
        ("a 'b c' d\\ e", ("a", "b c", "d e"), ()),
        ("A=1 B='x y' tool C=3", ("tool", "C=3"), (("A", "1"), ("B", "x y"))),
        ("tool ${ Files }", ("tool", "/etc/app/a b", "/etc/app/new"), ()),
        ("tool --all=${CreatedFiles}", ("tool", "--all=/etc/app/new"), ()),
        ("sh -c 'kill ${FLIGHTCTL_AGENT_PID}'", ("sh", "-c", "kill ${FLIGHTCTL_AGENT_PID}"), ()),
        ("tool ${Unknown} ${Path}", ("tool", "${Unknown}", "/etc/app/"), ()),
        ("tool ${RemovedFiles}", ("tool",), ()),
    ],
)
def test_commands(run: str, argv: tuple[str, ...], env: tuple[tuple[str, str], ...]) -> None:
    action = one("- {run: x, if: [{path: /etc/app/, op: [created, updated]}]}")
    tokens = hooks.due(action, WHAT, is_rebooted=False)
    assert tokens is not None
    assert hooks.command(run, tokens) == hooks.Command(argv, env)


def test_any_difference_of_a_file_is_an_update() -> None:
    before = [FileSpec("/a", b"1", 0o644, "root", "root"), FileSpec("/b", b"", 0o644, "root", "x")]
    after = [FileSpec("/a", b"1", 0o600, "root", "root"), FileSpec("/c", b"", 0o644, "root", "x")]
    assert hooks.changes(before, after) == hooks.Changes(("/c",), ("/a",), ("/b",))


def test_the_packaged_hooks_are_right_and_all_are_about_files() -> None:
    path = Path(hooks.__file__).with_name("hooks.d") / "afterupdating" / "00-default.yaml"
    actions = hooks.parse(path.read_bytes())
    assert len(actions) == 4
    assert all(action.is_about_files for action in actions)
