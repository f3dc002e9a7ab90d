"""Hooks: what the owner of a device wants done around an update, in files that say when.

Four points, a folder each below the two hook folders; a file in /etc replaces the one of the same
name in /usr. A file is a list of actions, an action a command with conditions. This module reads
them and decides; `hookruns` runs them. Pure.

Refused where the agent that we replace guesses: an expression that is none, an unknown key, a word
that is half quoted. A hook that silently does nothing is found only when it is needed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent import durations, yamltexts
from agent.specs import FileSpec
from resources.records import dataclass, field

BEFORE_UPDATING = "beforeupdating"
AFTER_UPDATING = "afterupdating"
BEFORE_REBOOTING = "beforerebooting"
AFTER_REBOOTING = "afterrebooting"

FOLDERS = ("/usr/lib/flightctl/hooks.d", "/etc/flightctl/hooks.d")
ENDS = (".yaml", ".yml")
CREATED, UPDATED, REMOVED = "created", "updated", "removed"
TIMEOUT_S = 10.0
ACTIONS_MAX = 100

_KEYS = frozenset({"run", "envVars", "workDir", "timeout", "if"})
_EXPRESSION = re.compile(r"\s*rebooted\s*==\s*(true|false)\s*")
_TOKEN = re.compile(r"\$\{\s*([A-Za-z]+)\s*\}")
_ENV = re.compile(r"[A-Z_][A-Z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class Invalid(ValueError):
    """What is wrong with a hook file, for people."""


@dataclass(frozen=True, slots=True)
class PathCondition:
    """`path` with a slash at its end means everything below it."""

    path: str
    ops: frozenset[str]

    def matches(self, path: str) -> bool:
        return path.startswith(self.path) if self.path.endswith("/") else path == self.path


@dataclass(frozen=True, slots=True)
class RebootedCondition:
    value: bool


Condition = PathCondition | RebootedCondition


@dataclass(frozen=True, slots=True)
class Action:
    run: str
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    work_dir: str = ""
    timeout_s: float = TIMEOUT_S
    conditions: tuple[Condition, ...] = ()

    @property
    def is_about_files(self) -> bool:
        return any(isinstance(one, PathCondition) for one in self.conditions)


@dataclass(frozen=True, slots=True)
class Changes:
    """Managed paths by what happens to them."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def by_op(self) -> Mapping[str, tuple[str, ...]]:
        return {CREATED: self.created, UPDATED: self.updated, REMOVED: self.removed}


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def changes(before: Iterable[FileSpec], after: Iterable[FileSpec]) -> Changes:
    """Between two specifications; a change of anything about a file is an update."""
    old, new = {f.path: f for f in before}, {f.path: f for f in after}
    return Changes(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(p for p in new.keys() & old.keys() if new[p] != old[p])),
        tuple(sorted(old.keys() - new.keys())),
    )


# Reading. -----------------------------------------------------------------------------------------


def parse(data: bytes) -> tuple[Action, ...]:
    """Raises Invalid, Retry."""
    try:
        document = yamltexts.read(data)
    except yamltexts.NotYaml as error:
        raise Invalid("not YAML") from error
    if document is None:
        return ()
    if not isinstance(document, list) or len(document) > ACTIONS_MAX:
        raise Invalid(f"not a list of at most {ACTIONS_MAX} actions")
    return tuple(_action(entry, f"action {i}") for i, entry in enumerate(document, start=1))


def _action(entry: Any, at: str) -> Action:
    if not isinstance(entry, dict):
        raise Invalid(f"{at}: not an object")
    if unknown := sorted(str(key) for key in entry.keys() - _KEYS):
        raise Invalid(f"{at}: unknown {', '.join(unknown)}; there are {', '.join(sorted(_KEYS))}")
    run = entry.get("run")
    if not isinstance(run, str) or not run.strip():
        raise Invalid(f"{at}: run is missing")
    if not _words(run, at):
        raise Invalid(f"{at}: run is empty")
    env = entry.get("envVars") or {}
    if not isinstance(env, dict):
        raise Invalid(f"{at}: envVars is not an object")
    for key, value in env.items():
        if not _ENV.fullmatch(str(key)) or value in (None, ""):
            raise Invalid(f"{at}: envVars {key}: upper-case names with a value")
    conditions = entry.get("if") or []
    if not isinstance(conditions, list):
        raise Invalid(f"{at}: if is not a list")
    return Action(
        run,
        tuple(sorted((str(k), str(v)) for k, v in env.items())),
        str(entry.get("workDir") or ""),
        _timeout(entry.get("timeout"), at),
        tuple(_condition(one, at) for one in conditions),
    )


def _timeout(value: Any, at: str) -> float:
    if value is None:
        return TIMEOUT_S
    try:
        seconds = durations.parse(str(value))
    except ValueError as error:
        raise Invalid(f"{at}: timeout {value!r} is no duration such as 30s") from error
    if seconds <= 0:
        raise Invalid(f"{at}: timeout must be more than nothing")
    return seconds


def _condition(entry: Any, at: str) -> Condition:
    if isinstance(entry, str):
        found = _EXPRESSION.fullmatch(entry)
        if found is None:
            raise Invalid(f"{at}: {entry!r} is no condition; there is: rebooted == true|false")
        return RebootedCondition(found.group(1) == "true")
    path = entry.get("path") if isinstance(entry, dict) else None
    ops = entry.get("op") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or entry.keys() - {"path", "op"}:
        raise Invalid(f"{at}: a condition is an expression, or an absolute path with op")
    if not isinstance(ops, list) or not ops or set(ops) - {CREATED, UPDATED, REMOVED}:
        raise Invalid(f"{at}: op lists some of {CREATED}, {UPDATED}, {REMOVED}")
    return PathCondition(path, frozenset(ops))


# Deciding. ----------------------------------------------------------------------------------------


def due(action: Action, what: Changes, *, is_rebooted: bool) -> dict[str, tuple[str, ...]] | None:
    """What `${...}` stands for, if all conditions hold; else None."""
    tokens: dict[str, tuple[str, ...]] = {}
    for one in action.conditions:
        if isinstance(one, RebootedCondition):
            if one.value != is_rebooted:
                return None
            continue
        found = {
            op: tuple(p for p in paths if op in one.ops and one.matches(p))
            for op, paths in what.by_op().items()
        }
        if not any(found.values()):
            return None
        tokens = {
            "Path": (one.path,),
            "Files": tuple(sorted(path for paths in found.values() for path in paths)),
            "CreatedFiles": found[CREATED],
            "UpdatedFiles": found[UPDATED],
            "RemovedFiles": found[REMOVED],
            "BackupFiles": (),
        }
    return tokens


def command(run: str, tokens: Mapping[str, Sequence[str]]) -> Command:
    """The program and its arguments: no shell. Leading `NAME=value` words are its environment.

    A token that is a word by itself becomes as many words as it has files; one that is not known
    here is left for a shell, should the command be one.
    """
    argv: list[str] = []
    env: list[tuple[str, str]] = []
    for word in _words(run, "run"):
        alone = _TOKEN.fullmatch(word)
        if alone is not None and alone.group(1) in tokens:
            argv += tokens[alone.group(1)]
            continue
        text = _TOKEN.sub(lambda m: " ".join(tokens.get(m.group(1), (m.group(0),))), word)
        assigned = _ASSIGNMENT.fullmatch(text) if not argv else None
        if assigned is not None:
            env.append((assigned.group(1), assigned.group(2)))
        else:
            argv.append(text)
    return Command(tuple(argv), tuple(env))


def _words(run: str, at: str) -> list[str]:
    # Blanks inside the braces are no borders between words.
    compact = _TOKEN.sub(lambda m: "${" + m.group(1) + "}", run)
    try:
        return shlex.split(compact)
    except ValueError as error:
        raise Invalid(f"{at}: run: {str(error).lower()}") from error
