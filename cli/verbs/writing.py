"""apply, create, replace, patch, diff, delete, edit, label, annotate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli import completing
from cli.options import (
    All,
    AllNamespaces,
    DryRun,
    FieldManager,
    FieldSelector,
    Files,
    Managed,
    Output,
    Recursive,
    Selector,
    Timeout,
    Validate,
    Words,
)
from cli.reaching import Site, at_a_site

if TYPE_CHECKING:
    from cli.writing import Mode, Report

ServerSide = Annotated[
    bool, typer.Option("--server-side", help="The server keeps account of who set which field.")
]
ForceConflicts = Annotated[
    bool,
    typer.Option("--force-conflicts", help="With --server-side: take fields from their owners."),
]
Marks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TYPE NAME... | TYPE/NAME... KEY=VALUE... KEY-...",
        help="Objects, then what they get; KEY- takes a key away.",
        autocompletion=completing.targets,
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace values that are there.")]
ShowList = Annotated[bool, typer.Option("--list", help="Show what the objects have.")]
SaveConfig = Annotated[
    bool, typer.Option("--save-config", help="With the note by which apply goes on from it.")
]
Subresource = Annotated[
    str, typer.Option("--subresource", help="Only this part of the objects, as status.")
]


@contextmanager
def _reporting(mode: Mode, output: str = "", *, managed: bool = False) -> Iterator[Report]:
    """A report that is printed at the end; it ends with 1 if something failed."""
    from cli import forms, paint, writing

    report = writing.Report(forms.parse(output), mode, paint.write, managed=managed)
    yield report
    report.finish()
    if report.failed:
        raise typer.Exit(1)


@at_a_site
def apply(
    site: Site,
    filename: Files = None,
    recursive: Recursive = False,
    server_side: ServerSide = False,
    force_conflicts: ForceConflicts = False,
    field_manager: FieldManager = "",
    dry_run: DryRun = "none",
    validate: Validate = "strict",
    output: Output = "",
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what was applied and is in no file any more.")
    ] = False,
    prune_allowlist: Annotated[
        list[str] | None,
        typer.Option(
            "--prune-allowlist", help="GROUP/VERSION/KIND to prune; else the kinds of the files."
        ),
    ] = None,
    selector: Selector = "",
    all_: All = False,
    show_managed_fields: Managed = False,
) -> None:
    """Make objects what their manifests say."""
    from cli import applying, pruning, writing

    if force_conflicts and not server_side:
        raise applying.Unclear("--force-conflicts only works with --server-side")
    if prune and bool(selector) == all_:
        raise applying.Unclear("all resources selected for prune without explicitly passing --all; "
                               "give --all, or a selector by -l")  # fmt: skip
    default = applying.SERVER_MANAGER if server_side else applying.CLIENT_MANAGER
    mode = writing.Mode(field_manager or default, dry_run, validate)
    how = applying.How(mode, server_side, force_conflicts)
    with _reporting(mode, output, managed=show_managed_fields) as report:
        reach = site.reach()
        located = applying.read(reach, filename or (), recursive=recursive, selector=selector)
        applied = applying.apply(reach.client, located, how, report)
        if prune and not report.failed:
            resources = pruning.allowed(reach.kinds, prune_allowlist or ())
            pruning.prune(reach.client, located, applied, resources, selector, mode, report)


@at_a_site
def create(
    site: Site,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    save_config: SaveConfig = False,
    field_manager: FieldManager = "kubectl-create",
    dry_run: DryRun = "none",
    validate: Validate = "strict",
    output: Output = "",
    show_managed_fields: Managed = False,
) -> None:
    """Make objects that are not there yet."""
    from cli import applying, creating, writing

    mode = writing.Mode(field_manager, dry_run, validate)
    with _reporting(mode, output, managed=show_managed_fields) as report:
        reach = site.reach()
        located = applying.read(reach, filename or (), recursive=recursive, selector=selector)
        creating.create(reach.client, located, creating.How(mode, save_config), report)


@at_a_site
def replace(
    site: Site,
    filename: Files = None,
    recursive: Recursive = False,
    save_config: SaveConfig = False,
    subresource: Subresource = "",
    field_manager: FieldManager = "kubectl-replace",
    dry_run: DryRun = "none",
    validate: Validate = "strict",
    output: Output = "",
    show_managed_fields: Managed = False,
) -> None:
    """Put whole objects in place of those that are there.

    A manifest with a resourceVersion replaces that version only.
    """
    from cli import applying, creating, writing

    mode = writing.Mode(field_manager, dry_run, validate)
    with _reporting(mode, output, managed=show_managed_fields) as report:
        reach = site.reach()
        located = applying.read(reach, filename or (), recursive=recursive)
        how = creating.How(mode, save_config, subresource)
        creating.replaced(reach.client, located, how, report)


@at_a_site
def patch(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    patch_: Annotated[str, typer.Option("--patch", "-p", help="The change, in JSON or YAML.")] = "",
    patch_file: Annotated[str, typer.Option("--patch-file", help="File with the change.")] = "",
    type_: Annotated[
        str, typer.Option("--type", help="merge: fields, null takes away; json: operations.")
    ] = "merge",
    subresource: Subresource = "",
    field_manager: FieldManager = "kubectl-patch",
    dry_run: DryRun = "none",
    output: Output = "",
    show_managed_fields: Managed = False,
) -> None:
    """Change fields of objects."""
    from cli import patching, selecting, writing

    change = patching.read(type_, patch_, patch_file, subresource)
    mode = writing.Mode(field_manager, dry_run)
    with _reporting(mode, output, managed=show_managed_fields) as report:
        reach = site.reach()
        chosen = selecting.choose(
            reach, words or (), files=filename or (), recursive=recursive, needs_choice=True
        )
        patching.patch(reach.client, chosen, change, mode, report)


@at_a_site
def diff(
    site: Site,
    filename: Files = None,
    recursive: Recursive = False,
    server_side: ServerSide = False,
    force_conflicts: ForceConflicts = False,
    field_manager: FieldManager = "",
    selector: Selector = "",
    show_managed_fields: Managed = False,
) -> None:
    """Show what apply would change; ends with 1 where something differs, with 2 where it failed.

    $KUBECTL_EXTERNAL_DIFF names another program to show it.
    """
    from cli import applying, diffing, problems, writing

    default = applying.SERVER_MANAGER if server_side else applying.CLIENT_MANAGER
    try:
        mode = writing.Mode(field_manager or default, "server")
        how = applying.How(mode, server_side, force_conflicts)
        reach = site.reach()
        located = applying.read(reach, filename or (), recursive=recursive, selector=selector)
        texts = list(diffing.pairs(reach.client, located, how, managed=show_managed_fields))
        differs = diffing.show(texts)
    except problems.Problem as problem:
        problems.tell(problem)
        raise typer.Exit(2) from None
    raise typer.Exit(1 if differs else 0)


@at_a_site
def delete(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_: All = False,
    all_namespaces: AllNamespaces = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is no error.")
    ] = False,
    cascade: Annotated[
        str, typer.Option("--cascade", help="background, foreground or orphan.")
    ] = "background",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until the objects are gone.")
    ] = True,
    timeout: Timeout = "0s",
    dry_run: DryRun = "none",
    output: Annotated[str, typer.Option("--output", "-o", help="name.")] = "",
) -> None:
    """Delete objects."""
    from cli import deleting, selecting, waiting, writing

    if output not in ("", "name"):
        raise typer.BadParameter("only name is supported", param_hint="--output")
    if cascade not in deleting.POLICIES:
        raise typer.BadParameter("use background, foreground or orphan", param_hint="--cascade")
    mode = writing.Mode("kubectl-delete", dry_run)
    with _reporting(mode, output) as report:
        reach = site.reach()
        chosen = selecting.choose(
            reach,
            words or (),
            files=filename or (),
            recursive=recursive,
            selector=selector,
            field_selector=field_selector,
            all_namespaces=all_namespaces,
            every=all_,
            needs_choice=True,
        )
        objects = selecting.expanded(reach.client, chosen, selector, field_selector)
        if not objects:
            typer.echo("No resources found")
        going = deleting.delete(
            reach.client,
            objects,
            mode,
            report,
            cascade=cascade,
            # A selection may be gone before it is deleted, which is what was wanted.
            ignore_not_found=ignore_not_found or objects != chosen,
        )
        if wait and dry_run == "none":
            # As with kubectl, no limit is a week.
            deleting.gone(reach.client, going, waiting.seconds(timeout) or waiting.WEEK_S)


@at_a_site
def edit(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    output: Annotated[str, typer.Option("--output", "-o", help="Edit as yaml or json.")] = "yaml",
    field_manager: FieldManager = "kubectl-edit",
    validate: Validate = "strict",
) -> None:
    """Change objects in your editor: $KUBE_EDITOR, $VISUAL, $EDITOR, or vi."""
    from cli import editing, selecting, writing

    if output not in ("yaml", "json"):
        raise typer.BadParameter("use yaml or json", param_hint="--output")
    mode = writing.Mode(field_manager, validate=validate)
    with _reporting(mode) as report:
        reach = site.reach()
        chosen = selecting.choose(
            reach, words or (), files=filename or (), recursive=recursive, selector=selector
        )
        objects = selecting.expanded(reach.client, chosen, selector)
        changed = editing.edit(reach.client, objects, mode, report, as_json=output == "json")
    if not changed:
        typer.echo("Edit cancelled, no changes made.", err=True)


def _marking(verb: str, part: str) -> Callable[..., None]:
    """`label` or `annotate`: the same but for what they set."""

    def mark(
        site: Site,
        words: Marks = None,
        filename: Files = None,
        recursive: Recursive = False,
        overwrite: Overwrite = False,
        show: ShowList = False,
        selector: Selector = "",
        field_selector: FieldSelector = "",
        all_: All = False,
        all_namespaces: AllNamespaces = False,
        dry_run: DryRun = "none",
        field_manager: FieldManager = f"kubectl-{verb}",
        output: Output = "",
    ) -> None:
        from cli import marking, paint, writing

        request = marking.Request(
            marking.PARTS[part],
            words or (),
            filename or (),
            recursive=recursive,
            overwrite=overwrite,
            show=show,
            selector=selector,
            field_selector=field_selector,
            every=all_,
            all_namespaces=all_namespaces,
        )
        mode = writing.Mode(field_manager, dry_run)
        with _reporting(mode, output) as report:
            marking.run(site.reach(), request, mode, report, paint.write)

    mark.__name__ = verb
    mark.__doc__ = f"Set {part} of objects, or take them away."
    return at_a_site(mark)


VERBS = (
    ("apply", apply),
    ("create", create),
    ("replace", replace),
    ("patch", patch),
    ("diff", diff),
    ("delete", delete),
    ("edit", edit),
    ("label", _marking("label", "labels")),
    ("annotate", _marking("annotate", "annotations")),
)
