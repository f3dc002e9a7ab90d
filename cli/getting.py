"""What `get` asks for, and in which pieces the answer is printed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cli import forms, tables, watching
from cli.client import TABLE, Client, Refused
from cli.kinds import Resource
from cli.problems import Problem
from cli.targets import Target

Json = dict[str, Any]

JSON = "application/json"
# Types of events, and what they are about.
Changes = Sequence[tuple[str, Json]]


@dataclass(frozen=True, slots=True)
class Asked:
    """How a person wants to see it."""

    form: forms.Form
    selector: str = ""
    field_selector: str = ""
    style: tables.Style = field(default_factory=tables.Style)
    sort_by: str = ""
    managed: bool = False
    ignore_not_found: bool = False

    @property
    def query(self) -> dict[str, str]:
        query = {"labelSelector": self.selector, "fieldSelector": self.field_selector}
        return {key: value for key, value in query.items() if value}

    @property
    def accept(self) -> str:
        return TABLE if self.form.is_table else JSON


class Getter:
    """One `get`: text goes to `write` as it is to be printed."""

    def __init__(self, client: Client, asked: Asked, write: Callable[[str], None]) -> None:
        self._client = client
        self._asked = asked
        self._write = write
        self.problems: list[Problem] = []

    def show(self, targets: Sequence[Target]) -> bool:
        """The objects as they are now. Returns whether there was anything to print."""
        if self._asked.form.is_table:
            return self._tables(targets)
        return self._documents(targets)

    def watch(self, target: Target, *, only: bool = False) -> None:
        """The objects as they are, unless `only` changes are wanted, then each change."""
        asked = self._asked
        query = asked.query
        if target.name:
            # A name that is not there is an error, and not an empty list.
            self._client.ask("GET", target.path())
            query["fieldSelector"] = f"metadata.name={target.name}"
        path = target.resource.path(target.namespace or None)
        watch = watching.Watch(self._client, path, query, asked.accept)
        first = watch.begin()
        printer = self._printer(target, first)
        if not only:
            printer([("ADDED", item) for item in watching.items_of(first)])
        for change in watch.changes():
            printer([(change.type, change.item)])

    # Tables

    def _tables(self, targets: Sequence[Target]) -> bool:
        several = len({target.resource for target in targets}) > 1
        wrote = False
        last: Resource | None = None
        for target in targets:
            document = self._asked_for(target)
            rows = (document or {}).get("rows") or []
            if document is None or not rows:
                continue
            if target.resource != last:
                if wrote and self._asked.style.headers:
                    self._write("\n")
                table = tables.Table(self._style(target, several=several))
                last = target.resource
            table.know(document.get("columnDefinitions"))
            if self._asked.sort_by:
                rows = tables.sorted_by(rows, self._asked.sort_by)
            self._write("".join(f"{line}\n" for line in table.lines(rows)))
            wrote = True
        return wrote

    def _style(self, target: Target, *, several: bool = False) -> tables.Style:
        style = self._asked.style
        return replace(
            style,
            wide=self._asked.form.name == "wide",
            namespaces=target.resource.namespaced and not target.namespace,
            kind=target.resource.typed if several else "",
        )

    # Documents

    def _documents(self, targets: Sequence[Target]) -> bool:
        asked = self._asked
        items: list[Json] = []
        for target in targets:
            document = self._asked_for(target)
            if document is not None:
                items += named(target.resource, document)
        if self.problems and not items:
            return False
        if asked.sort_by:
            items = tables.sorted_by(items, asked.sort_by)
        is_one = len(targets) == 1 and targets[0].name
        if is_one and not items:
            return False
        whole = items[0] if is_one else forms.collected(items)
        self._write(forms.document(asked.form, whole, managed=asked.managed))
        return bool(items) or asked.form.name != "name"

    def _asked_for(self, target: Target) -> Json | None:
        """The answer, or None where there is no such object, which is noted."""
        asked = self._asked
        more = {"includeObject": "Object"} if asked.sort_by and asked.form.is_table else {}
        try:
            if target.name:
                return self._client.ask("GET", target.path(), query=more, accept=asked.accept)
            return watching.listed(self._client, target.path(), asked.query | more, asked.accept)
        except Refused as refused:
            if refused.code != 404 or not target.name:
                raise
            if not asked.ignore_not_found:
                self.problems.append(refused)
            return None

    # A watch

    def _printer(self, target: Target, first: Json) -> Callable[[Changes], None]:
        asked = self._asked
        if asked.form.is_table:
            table = tables.Table(self._style(target))
            table.know(first.get("columnDefinitions"))

            def rows(changes: Changes) -> None:
                # Those that come together are aligned with each other.
                for event, some in itertools.groupby(changes, key=lambda change: change[0]):
                    for line in table.lines([row for _, row in some], event):
                        self._write(f"{line}\n")

            return rows
        return _Documents(target.resource, asked, self._write)


class _Documents:
    """Documents of a watch, one after the other."""

    def __init__(self, resource: Resource, asked: Asked, write: Callable[[str], None]) -> None:
        self._resource = resource
        self._asked = asked
        self._write = write
        self._wrote = False

    def __call__(self, changes: Changes) -> None:
        for type_, item in changes:
            self._write(self._text(type_, named(self._resource, item)[0]))
            self._wrote = True

    def _text(self, type_: str, item: Json) -> str:
        form, managed = self._asked.form, self._asked.managed
        if form.name == "custom-columns":
            head = not self._wrote and self._asked.style.headers
            return "".join(f"{line}\n" for line in forms.custom(form, [item], head=head))
        if self._asked.style.events and form.name in ("json", "yaml"):
            kept = item if managed else forms.without_managed(item)
            item = {"type": type_, "object": kept}
        text = forms.document(form, item, managed=managed)
        return f"---\n{text}" if form.name == "yaml" and self._wrote else text


def named(resource: Resource, document: Json) -> list[Json]:
    """The objects of an answer, each saying what it is, which items of a list don't."""
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    return [kind | item for item in watching.items_of(document)]


def nothing(targets: Sequence[Target]) -> str:
    """What is said where there is nothing."""
    namespaces = {target.namespace for target in targets if target.resource.namespaced}
    if len(namespaces) == 1 and all(namespaces) and all(t.resource.namespaced for t in targets):
        return f"No resources found in {namespaces.pop()} namespace."
    return "No resources found"
