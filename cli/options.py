"""Options that several verbs have, declared once, in kubectl's words."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completing

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TYPE[,TYPE...] [NAME...] | TYPE/NAME...]",
        help="Kinds and names, as in `devices`, `device a b`, `fleet/web`.",
        autocompletion=completing.targets,
        show_default=False,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="File, directory, or - for standard input; repeat it."),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-R", help="Directories below that of -f too.")
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,...",
        autocompletion=completing.forms,
    ),
]
Selector = Annotated[
    str, typer.Option("--selector", "-l", help="Label selector, as site=a,tier!=edge.")
]
FieldSelector = Annotated[
    str, typer.Option("--field-selector", help="Field selector, as metadata.owner=Fleet/web.")
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Of every organisation.")
]
All = Annotated[bool, typer.Option("--all", help="All objects of the kinds.")]
DryRun = Annotated[
    str,
    typer.Option("--dry-run", help="none; server: judged and not stored; client: not even sent."),
]
FieldManager = Annotated[
    str, typer.Option("--field-manager", help="Whom the server notes as owner of the fields.")
]
Validate = Annotated[
    str,
    typer.Option("--validate", help="Unknown fields: strict refuses, warn tells, ignore drops."),
]
Managed = Annotated[
    bool, typer.Option("--show-managed-fields", help="With managedFields in yaml and json.")
]
Timeout = Annotated[
    str, typer.Option("--timeout", help="How long to wait, as 30s or 5m; 0 waits not at all.")
]
