"""A kind is declared once; discovery, OpenAPI, CRDs, tables, storage and the faces read it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Json = dict[str, Any]

FLIGHTCTL_GROUP = "flightctl.io"
HOMEPORT_GROUP = "homeport.dev"
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column. `path` is a dotted path into the document (`.status.summary.status`,
    list elements by `[type=Ready]`); `type` as in CRDs; `priority` above 0 only in `-o wide`."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource with its verbs (`get`, `update`, `patch`, `create`) and, where its body is
    another kind, that kind's name."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything the service knows of a kind.

    `selectable`: dotted field paths that field selectors may use, beside `metadata.name` and
    `metadata.namespace`, which every kind has. `model` forbids unknown fields and is what people's
    documents are validated with; `validate` adds rules that a schema cannot say, and raises
    `resources.errors.Invalid`; it gets the whole document.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    model: type[BaseModel]
    description: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    validate: Callable[[Json], None] | None = None
    # Fields that may not change once set, as dotted paths.
    immutable: tuple[str, ...] = ()
    # What is stored where a document says nothing, by dotted path.
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # People may not write this kind; only the service and its controllers do.
    internal: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)

    @property
    def resource(self) -> str:
        """`fleets.flightctl.io`, as error messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural
