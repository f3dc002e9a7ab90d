"""Query parameters of every verb, read once and exactly.

The invariant: what comes out of here is consistent; the rules that tie parameters together
(`resourceVersionMatch` needs a version, `continue` excludes one, `sendInitialEvents` needs
NotOlderThan) are checked here and nowhere else. Parameters that we don't know are ignored, as
Kubernetes does; values that we don't understand are refused with the parameter's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from apiserver.errors import BadRequest, Unprocessable
from resources.errors import NOT_SUPPORTED, REQUIRED, FieldError, Invalid
from resources.kind import Json, Kind
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector, parse_fields, parse_labels

NOT_OLDER_THAN = "NotOlderThan"
EXACT = "Exact"
ALWAYS_SELECTABLE = ("metadata.name", "metadata.namespace")
FIELD_MANAGER_CHARS_MAX = 128
_VALIDATIONS = ("Ignore", "Warn", "Strict")
_PROPAGATIONS = ("Orphan", "Background", "Foreground")
_LIMIT_MAX = 2**31 - 1

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Selection:
    """The selectors of a list, a watch or a deletecollection."""

    labels: LabelSelector = EVERYTHING
    fields: FieldSelector | None = None

    @property
    def is_everything(self) -> bool:
        return not self.labels and self.fields is None


@dataclass(frozen=True, slots=True)
class ListQuery:
    selection: Selection = field(default_factory=Selection)
    limit: int = 0
    continue_token: str = ""
    resource_version: int | None = None
    match: str = ""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """`initial_state`: current objects come first as ADDED. `initial_end`: a bookmark with the
    annotation must end them (WatchList)."""

    selection: Selection = field(default_factory=Selection)
    resource_version: int | None = None
    initial_state: bool = False
    initial_end: bool = False
    bookmarks: bool = False
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class WriteQuery:
    dry_run: bool = False
    field_validation: str = "Warn"
    field_manager: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class DeleteQuery:
    dry_run: bool = False
    propagation: str | None = None
    preconditions: Json | None = None


def is_watch(query: Query) -> bool:
    return truth(query, "watch")


def truth(query: Query, name: str) -> bool:
    """A boolean parameter; present without a value counts as true, as in Kubernetes."""
    text = query.get(name)
    if text is None:
        return False
    match text.lower():
        case "" | "1" | "t" | "true":
            return True
        case "0" | "f" | "false":
            return False
        case _:
            raise BadRequest(f'{name}: "{text}" is not a boolean')


def integer(query: Query, name: str, most: int = _LIMIT_MAX) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > most:
        raise BadRequest(f'{name}: "{text}" is not an integer from 0 to {most}')
    return int(text)


def selection(kind: Kind, query: Query, name: str = "") -> Selection:
    """The selectors; `name` is the object's where the path of a watch names one."""
    supported: Collection[str] = (*ALWAYS_SELECTABLE, *kind.selectable)
    text = query.get("fieldSelector", "").strip()
    if name:
        text = f"metadata.name={name}" + (f",{text}" if text else "")
    try:
        labels = parse_labels(query.get("labelSelector", ""))
    except Invalid as error:
        raise BadRequest(f"unable to parse labelSelector: {error}") from error
    try:
        fields = parse_fields(text, supported) if text else None
    except Invalid as error:
        raise BadRequest(f"unable to parse fieldSelector: {error}") from error
    return Selection(labels, fields)


def list_query(kind: Kind, query: Query) -> ListQuery:
    token = query.get("continue", "")
    version = _version(query)
    match = query.get("resourceVersionMatch", "")
    limit = integer(query, "limit") or 0
    if "sendInitialEvents" in query:
        raise _unprocessable("sendInitialEvents", "is forbidden for list")
    _check_match(match, version, token)
    if token and version:
        raise BadRequest("resourceVersion is not allowed with continue")
    if limit and version and not match:
        match = EXACT  # what a limit with a version meant before resourceVersionMatch existed
    return ListQuery(selection(kind, query), limit, token, version, match)


def _check_match(match: str, version: int | None, token: str) -> None:
    if not match:
        return
    if token:
        raise _unprocessable("resourceVersionMatch", "is forbidden with continue")
    if version is None:
        raise _unprocessable("resourceVersionMatch", "is forbidden without resourceVersion")
    if match not in (EXACT, NOT_OLDER_THAN):
        raise _unprocessable(
            "resourceVersionMatch", f'"{match}": supported values: {EXACT}, {NOT_OLDER_THAN}'
        )
    if match == EXACT and version == 0:
        raise _unprocessable("resourceVersionMatch", 'Exact is forbidden for resourceVersion "0"')


def watch_query(kind: Kind, query: Query, name: str = "") -> WatchQuery:
    version = _version(query)
    match = query.get("resourceVersionMatch", "")
    asked = "sendInitialEvents" in query
    initial = truth(query, "sendInitialEvents")
    bookmarks = truth(query, "allowWatchBookmarks")
    if query.get("continue"):
        raise BadRequest("continue is not allowed with watch")
    if match and not asked:
        raise _unprocessable(
            "resourceVersionMatch", "is forbidden for watch without sendInitialEvents"
        )
    if asked and match != NOT_OLDER_THAN:
        raise _unprocessable("resourceVersionMatch", f"sendInitialEvents requires {NOT_OLDER_THAN}")
    if initial and not bookmarks:
        raise _unprocessable("sendInitialEvents", "requires allowWatchBookmarks=true")
    # Without sendInitialEvents an absent or zero version means: the state first, then what changes.
    state = initial if asked else not version
    return WatchQuery(
        selection(kind, query, name), version, state, initial, bookmarks,
        integer(query, "timeoutSeconds"),
    )  # fmt: skip


def _version(query: Query) -> int | None:
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) >= 2**63:
        raise BadRequest(f'invalid resource version: "{text}"')
    return int(text)


def write_query(query: Query, user_agent: str = "", *, applying: bool = False) -> WriteQuery:
    """Options of create, update and patch. A manager that isn't named is the client program; but
    who applies must say its name, and only who applies may use force."""
    force = truth(query, "force")
    if force and not applying:
        raise _unprocessable("force", "may not be specified for non-apply patch")
    if applying and not query.get("fieldManager"):
        complaint = FieldError("fieldManager", REQUIRED, "is required for apply patch")
        raise Unprocessable(f"fieldManager: {complaint.detail}", causes=[complaint])
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in _VALIDATIONS:
        raise _unprocessable(
            "fieldValidation", f'"{validation}": supported values: {", ".join(_VALIDATIONS)}'
        )
    manager = query.get("fieldManager", "")
    if len(manager) > FIELD_MANAGER_CHARS_MAX or not manager.isprintable():
        raise _unprocessable(
            "fieldManager", f"must be {FIELD_MANAGER_CHARS_MAX} printable characters at most"
        )
    if not manager:
        program = user_agent.partition("/")[0][:FIELD_MANAGER_CHARS_MAX]
        manager = program if program.isprintable() and program else "unknown"
    return WriteQuery(_dry_run(query.get("dryRun")), validation, manager, force)


def delete_query(query: Query, body: Json) -> DeleteQuery:
    """Options of delete: from the body if it says something, else from the query."""
    dry_runs = body.get("dryRun")
    if dry_runs is not None and not (
        isinstance(dry_runs, list) and all(isinstance(value, str) for value in dry_runs)
    ):
        raise _unprocessable("dryRun", "must be a list of texts")
    dry_run = any([_dry_run(value) for value in dry_runs or ()]) or _dry_run(query.get("dryRun"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or None
    if propagation is not None and propagation not in _PROPAGATIONS:
        raise _unprocessable(
            "propagationPolicy", f'"{propagation}": supported values: {", ".join(_PROPAGATIONS)}'
        )
    orphans = body.get("orphanDependents")
    if isinstance(orphans, bool) and propagation is None:
        propagation = "Orphan" if orphans else "Background"
    return DeleteQuery(dry_run, propagation, _preconditions(body.get("preconditions")))


def _preconditions(value: Any) -> Json | None:
    if value is None:
        return None
    known = isinstance(value, dict) and value.keys() <= {"uid", "resourceVersion"}
    if not known or not all(isinstance(v, str | None) for v in value.values()):
        raise _unprocessable("preconditions", "may hold uid and resourceVersion, both texts")
    return {key: inner for key, inner in value.items() if inner}


def _dry_run(value: str | None) -> bool:
    if value in (None, ""):
        return False
    if value != "All":
        raise _unprocessable("dryRun", f'"{value}": supported values: All')
    return True


def _unprocessable(name: str, detail: str) -> Unprocessable:
    complaint = FieldError(name, NOT_SUPPORTED, detail)
    return Unprocessable(f"{name}: {detail}", causes=[complaint])
