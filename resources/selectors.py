"""Label and field selectors: parse, match, print (contract 4.3, 4.4; Kubernetes' grammar).

A parsed selector prints to a text that parses to the same selector. Nothing here knows where the
values come from: the store turns requirements into SQL, watches match them on plain mappings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from resources.errors import invalid

_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
_NAME_LIMIT, _PREFIX_LIMIT = 63, 253
# Each is a condition of one statement, of which SQLite takes a thousand and people write three.
REQUIREMENTS_MAX = 100
_MATCH_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_ROW = r"\([^()]*\)"
_KEYSET = re.compile(
    rf"\(([^()]+)\)\s*(?:in\s*\(\s*({_ROW}(?:\s*,\s*{_ROW})*)\s*\)|=\s*({_ROW}))", re.DOTALL
)
_FIELD_OPERATOR = re.compile(r"(!=|==|>=|<=|=|>|<)")
_FIELD_LISTED = re.compile(r"([^\s=!<>]+)\s+(in|notin)\s*\((.*)\)", re.DOTALL)
_FIELD_WORDED = re.compile(r"([^\s=!<>]+)\s+(contains|notcontains)\s+(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition. `operator`: = != in notin exists ! for labels; fields have contains,
    notcontains, > >= < <= too."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """What `key` is in a field selector."""
        return self.key

    def holds(self, value: str | None) -> bool:
        """Whether a value (None: absent) satisfies it. Negative operators hold for the absent."""
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
            case "contains":
                return value is not None and self.values[0] in value
            case "notcontains":
                return value is None or self.values[0] not in value
            case ">":
                return value is not None and value > self.values[0]
            case ">=":
                return value is not None and value >= self.values[0]
            case "<":
                return value is not None and value < self.values[0]
            case "<=":
                return value is not None and value <= self.values[0]
        raise AssertionError(self.operator)

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case "contains" | "notcontains":
                return f"{self.key} {self.operator} {self.values[0]}"
        return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class KeysetRequirement:
    """`(k1,k2) in ((a,b),(c,d))`: several labels at once."""

    keys: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        rows = ",".join(f"({','.join(row)})" for row in self.rows)
        return f"({','.join(self.keys)}) in ({rows})"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; none matches everything."""

    requirements: tuple[Requirement | KeysetRequirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        for requirement in self.requirements:
            if isinstance(requirement, KeysetRequirement):
                if tuple(labels.get(key, "\0") for key in requirement.keys) not in requirement.rows:
                    return False
            elif not requirement.holds(labels.get(requirement.key)):
                return False
        return True

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements must hold, on values by field path."""

    requirements: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, values: Mapping[str, str | None]) -> bool:
        # A field that is not there equals the empty text, as Kubernetes has it.
        return all(_holds_field(r, values.get(r.key)) for r in self.requirements)

    def __str__(self) -> str:
        return ",".join(
            f"{r.key} {r.operator} ({','.join(map(_escape, r.values))})"
            if r.operator in ("in", "notin")
            else str(Requirement(r.key, r.operator, tuple(map(_escape, r.values))))
            for r in self.requirements
        )


EVERYTHING = LabelSelector()


def parse_labels(text: str) -> LabelSelector:
    """The selector that `text` says. Raises Invalid."""
    return LabelSelector(tuple(_label(part) for part in _split(text, "labelSelector")))


def from_match(document: Mapping[str, Any] | None) -> LabelSelector:
    """matchLabels and matchExpressions as one selector. Raises Invalid, whatever it is given."""
    if document is None:
        return EVERYTHING
    requirements: list[Requirement] = []
    labels = _of(document, "matchLabels", dict, {})
    for key, value in labels.items():
        requirements.append(_checked(Requirement(key, "=", (value,)), "matchLabels"))
    for number, entry in enumerate(_of(document, "matchExpressions", list, [])):
        requirements.append(_expression(entry, f"matchExpressions[{number}]"))
    return LabelSelector(tuple(requirements))


def _of(document: Any, key: str, type_: type, empty: Any) -> Any:
    if not isinstance(document, Mapping):
        raise invalid(key, "a selector is an object with matchLabels or matchExpressions")
    value = document.get(key)
    if value is None:
        return empty
    if not isinstance(value, type_):
        raise invalid(key, f"must be {'an object' if type_ is dict else 'a list'}")
    return value


def _expression(entry: Any, path: str) -> Requirement:
    if not isinstance(entry, Mapping):
        raise invalid(path, "must be an object with key and operator")
    operator = _MATCH_OPERATORS.get(str(entry.get("operator")))
    if operator is None:
        raise invalid(f"{path}.operator", f"use one of {', '.join(_MATCH_OPERATORS)}")
    values = _of(entry, "values", list, [])
    takes_values = operator in ("in", "notin")
    if takes_values != bool(values):
        detail = "must name at least one value" if takes_values else "must be absent"
        raise invalid(f"{path}.values", f"{detail} with {entry['operator']}")
    return _checked(Requirement(entry.get("key", ""), operator, tuple(values)), path)


def parse_fields(text: str, supported: Collection[str]) -> FieldSelector:
    """The selector that `text` says. Raises Invalid; an unknown field lists the supported ones."""
    if "\0" in text:
        # Of two databases one can't be asked for it, and no field holds it.
        raise invalid("fieldSelector", "a text with a NUL character is no value of a field")
    requirements = tuple(_field(part) for part in _split(text, "fieldSelector", escapes=True))
    for requirement in requirements:
        if requirement.key not in supported:
            known = " ".join(sorted(supported))
            raise invalid(
                "fieldSelector",
                f'unknown selector "{requirement.key}". Supported selectors are: [{known}]',
            )
    return FieldSelector(requirements)


def _holds_field(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "exists":
            return bool(value)
        case "!":
            return not value
        case "=" | "in" | "!=" | "notin":
            return requirement.holds(value or "")
    return requirement.holds(value)


def _split(text: str, where: str, *, escapes: bool = False) -> list[str]:
    """At commas outside parentheses; with `escapes` a backslash protects the next character."""
    parts, start, depth, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == "\\" and escapes:
            position += 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
        if depth < 0:
            raise invalid(where, f'")" without "(" in "{text}"')
        position += 1
    if depth:
        raise invalid(where, f'"(" without ")" in "{text}"')
    parts.append(text[start:])
    if not text.strip():
        return []
    if len(parts) > REQUIREMENTS_MAX:
        raise invalid(
            where, f"no more than {REQUIREMENTS_MAX} requirements, these are {len(parts)}"
        )
    if any(not part.strip() for part in parts):
        raise invalid(where, f'an empty requirement in "{text}"')
    return [part.strip() for part in parts]


def _label(part: str) -> Requirement | KeysetRequirement:
    if part.startswith("("):
        return _keyset(part)
    if part.startswith("!"):
        return _checked(Requirement(part[1:].strip(), "!"), "labelSelector")
    listed = re.fullmatch(r"(\S+)\s+(in|notin)\s*\((.*)\)", part, re.DOTALL)
    if listed:
        values = tuple(value.strip() for value in listed[3].split(","))
        return _checked(Requirement(listed[1], listed[2], values), "labelSelector")
    compared = re.fullmatch(r"([^=!<>\s]+)\s*(==|=|!=)\s*([^=!<>]*)", part)
    if compared:
        operator = "!=" if compared[2] == "!=" else "="
        wanted = Requirement(compared[1], operator, (compared[3].strip(),))
        return _checked(wanted, "labelSelector")
    if re.search(r"[<>\s]", part):
        raise invalid("labelSelector", f'cannot read "{part}"; use k, !k, k=v, k!=v, k in (a,b)')
    return _checked(Requirement(part, "exists"), "labelSelector")


def _keyset(part: str) -> KeysetRequirement:
    found = _KEYSET.fullmatch(part)
    if not found:
        raise invalid("labelSelector", f'cannot read "{part}"; use (k1,k2) in ((a,b),(c,d))')
    keys = tuple(key.strip() for key in found[1].split(","))
    rows = tuple(
        tuple(value.strip() for value in row.split(","))
        for row in re.findall(r"\(([^()]*)\)", found[2] or found[3])
    )
    if any(len(row) != len(keys) for row in rows):
        raise invalid("labelSelector", f'"{part}": each row wants {len(keys)} values')
    for position, key in enumerate(keys):
        values = tuple(row[position] for row in rows)
        _checked(Requirement(key, "in", values), "labelSelector")
    return KeysetRequirement(keys, rows)


def _checked(requirement: Requirement, path: str) -> Requirement:
    key = requirement.key
    if not isinstance(key, str) or not _KEY.fullmatch(key) or not _fits(key):
        raise invalid(path, f'"{key}" is not a label key')
    for value in requirement.values:
        if not isinstance(value, str) or not _VALUE.fullmatch(value) or len(value) > _NAME_LIMIT:
            raise invalid(path, f'"{value}" is not a label value')
    return requirement


def _fits(key: str) -> bool:
    prefix, _, name = key.rpartition("/")
    return len(name) <= _NAME_LIMIT and len(prefix) <= _PREFIX_LIMIT


def _field(part: str) -> Requirement:
    if part.startswith("!") and not _FIELD_OPERATOR.search(part[1:]):
        return Requirement(part[1:].strip(), "!")
    listed = _FIELD_LISTED.fullmatch(part)
    if listed:
        values = tuple(_unescape(value.strip()) for value in _split_escaped(listed[3]))
        return Requirement(listed[1], listed[2], values)
    worded = _FIELD_WORDED.fullmatch(part)
    if worded:
        if "%" in worded[3]:
            raise invalid("fieldSelector", f'"%" cannot be searched for with {worded[2]}')
        return Requirement(worded[1], worded[2], (_unescape(worded[3].strip()),))
    found = _FIELD_OPERATOR.search(part)
    if found is None:
        if re.search(r"\s", part):
            raise invalid("fieldSelector", f'cannot read "{part}"')
        return Requirement(part, "exists")
    operator = "=" if found[1] == "==" else found[1]
    value = _unescape(part[found.end() :].strip())
    return Requirement(part[: found.start()].strip(), operator, (value,))


def _split_escaped(text: str) -> list[str]:
    """At commas that no backslash protects."""
    values = [""]
    for piece in re.findall(r"\\.?|[^\\]", text, re.DOTALL):
        if piece == ",":
            values.append("")
        else:
            values[-1] += piece
    return values


def _escape(value: str) -> str:
    return re.sub(r"([\\,=()])", r"\\\1", value)


def _unescape(value: str) -> str:
    """Kubernetes' escapes, and those of parentheses, which this grammar gives a meaning."""
    plain = re.sub(r"\\([\\,=()])", "", value)
    if "\\" in plain:
        raise invalid("fieldSelector", f'bad escape in "{value}"')
    return re.sub(r"\\([\\,=()])", r"\1", value)
