"""get, describe, wait, explain, api-resources."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completing
from cli.options import (
    All,
    AllNamespaces,
    FieldSelector,
    Files,
    Managed,
    Output,
    Recursive,
    Selector,
    Timeout,
    Words,
)
from cli.reaching import Site, at_a_site

INTERRUPTED = 130


@at_a_site
def get(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    output: Output = "",
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_namespaces: AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes.")] = False,
    watch_only: Annotated[bool, typer.Option("--watch-only", help="Only the changes.")] = False,
    output_watch_events: Annotated[
        bool, typer.Option("--output-watch-events", help="Say of each change what it is.")
    ] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows alone.")] = False,
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="Labels as the last column.")
    ] = False,
    label_columns: Annotated[
        list[str] | None,
        typer.Option("--label-columns", "-L", help="A label as a column; repeat it."),
    ] = None,
    sort_by: Annotated[str, typer.Option("--sort-by", help="JSONPath of a field.")] = "",
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is no error.")
    ] = False,
    show_managed_fields: Managed = False,
) -> None:
    """Show objects."""
    from cli import forms, getting, paint, problems, selecting, tables

    form = forms.parse(output)
    follows = watch or watch_only
    if follows and sort_by:
        raise typer.BadParameter("a watch has no order; leave out --sort-by or -w")
    reach = site.reach()
    chosen = selecting.choose(
        reach,
        words or (),
        files=filename or (),
        recursive=recursive,
        selector=selector,
        field_selector=field_selector,
        all_namespaces=all_namespaces,
    )
    asked = getting.Asked(
        form,
        selector=selector,
        field_selector=field_selector,
        style=tables.Style(
            headers=not no_headers,
            show_labels=show_labels,
            label_columns=[name for part in label_columns or () for name in part.split(",")],
            events=output_watch_events and follows,
        ),
        sort_by=sort_by,
        managed=show_managed_fields,
        ignore_not_found=ignore_not_found,
    )
    getter = getting.Getter(reach.client, asked, paint.write)
    if follows:
        if len(chosen) > 1:
            raise typer.BadParameter("a watch is of one kind, or of one object")
        try:
            getter.watch(chosen[0], only=watch_only)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    wrote = getter.show(chosen)
    for problem in getter.problems:
        problems.tell(problem)
    if getter.problems:
        raise typer.Exit(1)
    if not wrote and not ignore_not_found:
        typer.echo(getting.nothing(chosen), err=True)


@at_a_site
def describe(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_namespaces: AllNamespaces = False,
    show_events: Annotated[
        bool, typer.Option("--show-events/--no-show-events", help="With the latest events.")
    ] = True,
) -> None:
    """Show objects for reading: how they are, why, and what happened to them.

    A name may be the beginning of one, or the alias of a device.
    """
    from cli import describing, paint, selecting

    reach = site.reach()
    chosen = selecting.choose(
        reach,
        words or (),
        files=filename or (),
        recursive=recursive,
        selector=selector,
        all_namespaces=all_namespaces,
    )
    found = False
    for text in describing.described(reach.client, chosen, selector, events=show_events):
        paint.write(f"\n\n{text}" if found else text)
        found = True
    if not found:
        from cli import getting

        typer.echo(getting.nothing(chosen), err=True)


@at_a_site
def wait(
    site: Site,
    words: Words = None,
    filename: Files = None,
    recursive: Recursive = False,
    awaited: Annotated[
        str,
        typer.Option(
            "--for",
            help="delete, create, condition=NAME[=VALUE], or jsonpath=PATH[=VALUE].",
        ),
    ] = "",
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_: All = False,
    all_namespaces: AllNamespaces = False,
    timeout: Timeout = "30s",
    output: Output = "",
) -> None:
    """Wait until objects are as asked for."""
    from cli import forms, paint, selecting, waiting

    form = forms.parse(output)
    goal = waiting.parse(awaited)
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
    if not isinstance(goal, waiting.Created):
        chosen = selecting.expanded(reach.client, chosen, selector, field_selector)
    if not chosen:
        raise waiting.NothingToWaitFor("no matching resources found")
    for target, document in waiting.until(reach.client, chosen, goal, waiting.seconds(timeout)):
        if form.is_table:
            paint.write(f"{target.shown} condition met\n")
        elif document is not None:
            paint.write(forms.document(form, document))


@at_a_site
def explain(
    site: Site,
    field: Annotated[
        str,
        typer.Argument(
            metavar="TYPE[.FIELD...]",
            help="A kind or a field of it, as fleet.spec.template.",
            autocompletion=completing.kinds,
        ),
    ] = "",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="All fields below, without their words.")
    ] = False,
) -> None:
    """Say what a kind is, and each of its fields."""
    from cli import explaining, paint

    if not field:
        raise typer.BadParameter("say which kind, as fleet or fleet.spec", param_hint="TYPE")
    reach = site.reach()
    paint.write(explaining.explain(reach.client, reach.kinds, field, recursive=recursive))


@at_a_site
def api_resources(
    site: Site,
    output: Annotated[str, typer.Option("--output", "-o", help="wide or name.")] = "",
    api_group: Annotated[str, typer.Option("--api-group", help="Of one group.")] = "",
    namespaced: Annotated[
        str, typer.Option("--namespaced", help="true: in organisations; false: outside of them.")
    ] = "",
    verbs: Annotated[str, typer.Option("--verbs", help="That have these verbs.")] = "",
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Rows alone.")] = False,
) -> None:
    """List the kinds that the service has."""
    from cli import explaining, paint

    if output not in ("", "wide", "name"):
        raise typer.BadParameter("use wide or name", param_hint="--output")
    if namespaced not in ("", "true", "false"):
        raise typer.BadParameter("use true or false", param_hint="--namespaced")
    wanted = [verb for verb in verbs.split(",") if verb]
    resources = [
        resource
        for resource in site.reach().kinds.all()
        if (not api_group or resource.group == api_group)
        and (not namespaced or resource.namespaced == (namespaced == "true"))
        and all(verb in resource.verbs for verb in wanted)
    ]
    paint.write(explaining.listed(resources, output, headers=not no_headers))


VERBS = (
    ("get", get),
    ("describe", describe),
    ("wait", wait),
    ("explain", explain),
    ("api-resources", api_resources),
)
