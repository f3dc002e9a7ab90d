"""What all verbs that change objects have in common: whether it is meant, in whose name, what is
said of each object, and that one failure does not keep the others from being tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cli import forms, problems
from cli.client import Client, Refused
from cli.problems import Problem
from cli.targets import Target

Json = dict[str, Any]

DRY_RUNS = ("none", "server", "client")
VALIDATIONS = {"strict": "Strict", "true": "Strict", "warn": "Warn", "ignore": "Ignore",
               "false": "Ignore"}  # fmt: skip


class BadMode(Problem):
    """An option has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Mode:
    """Whether and how something is written."""

    manager: str
    dry_run: str = "none"
    validate: str = ""

    def __post_init__(self) -> None:
        if self.dry_run not in DRY_RUNS:
            raise BadMode(
                f'Invalid dry-run value ({self.dry_run}). Must be "none", "server", or "client".'
            )
        if self.validate and self.validate not in VALIDATIONS:
            raise BadMode(f"--validate: use strict, warn or ignore, not {self.validate}")

    @property
    def is_sent(self) -> bool:
        return self.dry_run != "client"

    @property
    def suffix(self) -> str:
        return {"none": "", "server": " (server dry run)", "client": " (dry run)"}[self.dry_run]

    def query(self) -> dict[str, str]:
        query = {"fieldManager": self.manager}
        if self.dry_run == "server":
            query["dryRun"] = "All"
        if self.validate:
            query["fieldValidation"] = VALIDATIONS[self.validate]
        return query


class Report:
    """What became of each object, as it is to be printed."""

    def __init__(
        self,
        form: forms.Form,
        mode: Mode,
        write: Callable[[str], None],
        *,
        managed: bool = False,
    ) -> None:
        if form.name in ("wide", "custom-columns"):
            raise BadMode(f"-o {form.name} is for get; use yaml, json, name or jsonpath=")
        self._form = form
        self._mode = mode
        self._write = write
        self._managed = managed
        self._documents: list[Json] = []
        self.failed = False

    def say(self, target: Target, word: str, document: Json) -> None:
        """`fleet.flightctl.io/web configured`, or the object itself later, when all are known."""
        if self._form.is_table:
            self._write(f"{target.shown} {word}{self._mode.suffix}\n")
        else:
            kind = {"apiVersion": target.resource.api_version, "kind": target.resource.kind}
            self._documents.append(kind | document)

    def deleted(self, target: Target) -> None:
        """`fleet.flightctl.io "web" deleted`."""
        if self._form.is_table:
            text = f'{target.resource.typed} "{target.name}" deleted{self._mode.suffix}'
        else:
            text = target.shown
        self._write(f"{text}\n")

    @contextmanager
    def trying(self, doing: str = "", source: str = "") -> Iterator[None]:
        """A problem inside is told at the object's turn, and is no reason to stop."""
        try:
            yield
        except Refused as refused:
            self.failed = True
            if refused.code in (401, 403) or not doing:
                problems.tell(refused)
            else:
                told = f'error when {doing} "{source}": {refused}'
                problems.tell(Refused(refused.code, refused.reason, told, refused.details))
        except problems.Problem as problem:
            self.failed = True
            problems.tell(problem)

    def finish(self) -> None:
        """Print what is printed together."""
        if self._documents:
            one = len(self._documents) == 1
            whole = self._documents[0] if one else forms.collected(self._documents)
            self._write(forms.document(self._form, whole, managed=self._managed))


def fetched(client: Client, target: Target) -> Json | None:
    """The object as it is, or None."""
    try:
        return client.ask("GET", target.path())
    except Refused as refused:
        if refused.code != 404:
            raise
        return None
