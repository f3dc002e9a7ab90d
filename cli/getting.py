"""What `get` and `describe` ask for, and in which pieces the answer is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cli import kinds, naming, show
from cli.client import TABLE, Client, Refused

Json = dict[str, Any]

FORMS = ("", "wide", "yaml", "json", "name")
EVENTS_MAX = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to see; an empty namespace means all of them."""

    kind: str
    name: str
    namespace: str
    selector: str = ""
    output: str = ""

    @property
    def is_table(self) -> bool:
        return self.output in ("", "wide")

    @property
    def accept(self) -> str:
        return TABLE if self.is_table else "application/json"

    def query(self) -> dict[str, str]:
        return {"labelSelector": self.selector} if self.selector else {}


def get(client: Client, asked: Asked) -> Iterator[str]:
    """The objects as they are now."""
    resource = kinds.find(client, asked.kind)
    path = resource.path(asked.namespace or None, asked.name)
    document = client.ask("GET", path, query=asked.query(), accept=asked.accept)
    if asked.is_table:
        table = _table(asked)
        yield from table.lines(document)
        if table.is_empty:
            yield f"there are no {resource.plural}" + (
                f" in {asked.namespace}" if resource.namespaced and asked.namespace else ""
            )
    else:
        yield from _plain(document, resource, asked.output)


def watch(client: Client, asked: Asked) -> Iterator[str]:
    """The objects as they are, then each change, until the server ends the watch."""
    resource = kinds.find(client, asked.kind)
    query = asked.query()
    if asked.name:
        query["fieldSelector"] = f"metadata.name={asked.name}"
    path = resource.path(asked.namespace or None)
    table = _table(asked)
    first = client.ask("GET", path, query=query, accept=asked.accept)
    yield from table.lines(first) if asked.is_table else _plain(first, resource, asked.output)
    query |= {"watch": "true", "resourceVersion": first["metadata"]["resourceVersion"]}
    for event in client.stream(path, query=query, accept=asked.accept):
        if event["type"] == "ERROR":
            status = event["object"]
            raise Refused(status.get("code", 0), status.get("reason", ""), status["message"])
        if event["type"] == "BOOKMARK":
            continue
        if asked.is_table:
            yield from table.lines(event["object"], gone=event["type"] == "DELETED")
        else:
            yield from _plain(event["object"], resource, asked.output)


def describe(client: Client, namespace: str, kind: str, word: str) -> str:
    """One object for reading, with its latest events."""
    resource = kinds.find(client, kind)
    document = naming.find(client, resource, namespace, word)
    name = document["metadata"]["name"]
    fields = f"involvedObject.name={name},involvedObject.kind={resource.kind}"
    path = f"/api/v1/namespaces/{namespace}/events"
    try:
        events = client.ask("GET", path, query={"fieldSelector": fields})["items"]
    except Refused as refused:
        if refused.code not in (403, 404):
            raise
        events = []
    return show.described(document, events[-EVENTS_MAX:])


def _table(asked: Asked) -> show.Table:
    return show.Table(wide=asked.output == "wide", namespaces=not asked.namespace)


def _plain(document: Json, resource: kinds.Resource, output: str) -> Iterator[str]:
    if output != "name":
        yield show.plain(document, output)
        return
    for item in document.get("items", [document]):
        yield f"{resource.plural}/{item['metadata']['name']}"
