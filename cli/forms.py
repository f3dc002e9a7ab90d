"""What `-o` may say, and what programs are given to read by it. Pure: documents in, text out.

table, wide                  tables, which `tables` makes
yaml json name               documents
jsonpath=T  custom-columns=S what a template finds in documents
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.problems import Problem

# What a form needs is imported when it is asked for: a table needs none of it.
if TYPE_CHECKING:
    from cli import columns, jsonpath

Json = dict[str, Any]

NAMES = (
    "custom-columns",
    "custom-columns-file",
    "json",
    "jsonpath",
    "jsonpath-file",
    "name",
    "wide",
    "yaml",
)


class BadForm(Problem):
    """`-o` says what cannot be printed."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form of output, its template parsed."""

    name: str = "table"
    template: tuple[jsonpath.Node, ...] = ()
    columns: tuple[columns.Column, ...] = ()

    @property
    def is_table(self) -> bool:
        return self.name in ("table", "wide")


def parse(text: str) -> Form:
    """Raises BadForm."""
    if text in ("wide", "yaml", "json", "name"):
        return Form(text)
    return _templated(text) if text else Form()


def _templated(text: str) -> Form:
    from cli import columns, jsonpath

    name, _, rest = text.partition("=")
    try:
        match name:
            case "jsonpath" | "jsonpath-file":
                template = _from_file(rest) if name.endswith("-file") else rest
                if not template:
                    raise BadForm("template format specified but no template given")
                # As kubectl: a path without braces is one.
                if "{" not in template:
                    template = jsonpath.relaxed(template)
                return Form("jsonpath", template=jsonpath.parse(template))
            case "custom-columns":
                return Form(name, columns=columns.parse(rest))
            case "custom-columns-file":
                return Form("custom-columns", columns=columns.parse(_two_lines(_from_file(rest))))
    except (jsonpath.BadTemplate, columns.BadColumns) as error:
        raise BadForm(f"-o {name}: {error}") from error
    if name.startswith(("go-template", "template")):
        raise BadForm(
            f"-o {name}: Go templates are not evaluated here, allowed formats are: "
            f"{','.join(NAMES)}",
            "jsonpath=TEMPLATE has ranges and conditions too: "
            "-o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
        )
    raise BadForm(
        f'unable to match a printer suitable for the output format "{text}", '
        f"allowed formats are: {','.join(NAMES)}"
    )


def _from_file(name: str) -> str:
    from pathlib import Path

    try:
        return Path(name).read_text()
    except OSError as error:
        raise BadForm(f"{name} cannot be read: {error.strerror}") from error


def _two_lines(text: str) -> str:
    """A file's header line and path line, as the specification that they stand for."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise BadForm("a file of custom columns has a line of headers and a line of as many paths")
    return ",".join(f"{header}:{path}" for header, path in zip(*lines, strict=True))


def document(form: Form, value: Json, *, managed: bool = False) -> str:
    """One document, ending as it is to be printed; a list is one too."""
    from cli import gojson, jsonpath

    match form.name:
        case "yaml":
            from cli import goyaml

            return goyaml.dump(value if managed else without_managed(value))
        case "json":
            return gojson.indented(value if managed else without_managed(value)) + "\n"
        case "name":
            return "".join(f"{name_of(item)}\n" for item in value.get("items", [value]))
        case "jsonpath":
            try:
                return jsonpath.evaluate(form.template, value)
            except jsonpath.BadTemplate as error:
                raise BadForm(f"error executing jsonpath: {error}") from error
        case _:
            return "".join(f"{line}\n" for line in custom(form, value.get("items", [value])))


def custom(form: Form, items: Sequence[Json], *, head: bool = True) -> list[str]:
    from cli import columns, tabular

    return tabular.aligned(columns.rows(form.columns, items, head=head))


def without_managed(value: Json) -> Json:
    """Without managedFields, which nobody reads by eye."""
    if "items" in value:
        return value | {"items": [without_managed(item) for item in value["items"]]}
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return value
    kept = {key: inner for key, inner in metadata.items() if key != "managedFields"}
    return value | {"metadata": kept}


def collected(items: Sequence[Json]) -> Json:
    """Objects of any kinds as one document."""
    return {
        "apiVersion": "v1",
        "items": list(items),
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


def name_of(item: Json) -> str:
    """`fleet.flightctl.io/web`."""
    return f"{typed(item)}/{item['metadata']['name']}"


def typed(item: Json) -> str:
    """`fleet.flightctl.io`, from what the object says of itself."""
    group, slash, _ = str(item.get("apiVersion", "")).partition("/")
    kind = str(item.get("kind", "")).lower()
    return f"{kind}.{group}" if slash else kind
