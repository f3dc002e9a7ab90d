"""app stop, start, restart; resume."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completing
from cli.options import All, DryRun, FieldSelector, Selector, Words
from cli.reaching import Site, Verbs, at_a_site

Where = Annotated[
    str,
    typer.Argument(
        metavar="device/NAME | fleet/NAME",
        help="A device, or all devices of a fleet.",
        autocompletion=completing.targets,
    ),
]
OfDevice = Annotated[
    str,
    typer.Argument(metavar="device/NAME", help="A device.", autocompletion=completing.targets),
]
Name = Annotated[
    str,
    typer.Option("--name", help="Name of the application.", autocompletion=completing.applications),
]

app = typer.Typer(
    cls=Verbs,
    help="Stop, start and restart applications on devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@at_a_site
def stop(site: Site, where: Where, name: Name = "", dry_run: DryRun = "none") -> None:
    """Have an application stopped, and kept so whatever is rolled out."""
    _ask(site, where, name, "stop", dry_run)


@at_a_site
def start(site: Site, where: Where, name: Name = "", dry_run: DryRun = "none") -> None:
    """Have an application started that was stopped."""
    _ask(site, where, name, "start", dry_run)


@at_a_site
def restart(site: Site, where: OfDevice, name: Name = "", dry_run: DryRun = "none") -> None:
    """Have an application restarted on one device."""
    _ask(site, where, name, "restart", dry_run)


@at_a_site
def resume(
    site: Site,
    words: Words = None,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    all_: All = False,
    dry_run: DryRun = "none",
) -> None:
    """Bring on devices that are ahead of a service which was restored from a backup."""
    from cli import acting, selecting

    reach = site.reach()
    chosen = selecting.choose(
        reach,
        words or (),
        selector=selector,
        field_selector=field_selector,
        every=all_,
        needs_choice=True,
    )
    number = acting.resume(reach, chosen, selector, field_selector, dry_run)
    typer.echo(f"{number} device{'' if number == 1 else 's'} resumed{acting.suffix(dry_run)}")


def _ask(site: Site, where: str, name: str, action: str, dry_run: str) -> None:
    from cli import acting

    if not name:
        raise typer.BadParameter("which application? --name NAME", param_hint="--name")
    reach = site.reach()
    target = acting.ask(reach, where, name, action, dry_run)
    done = {"stop": "stopping", "start": "starting", "restart": "restarting"}[action]
    typer.echo(f"{target.shown} {done} {name}{acting.suffix(dry_run)}")


VERBS = (("stop", stop), ("start", start), ("restart", restart))
TOP_VERBS = (("resume", resume),)
