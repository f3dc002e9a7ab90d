"""rollout status, history, pause, resume, approve, abort, retry, revert."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import completing
from cli.options import Timeout
from cli.reaching import Site, Verbs, at_a_site

Which = Annotated[
    str,
    typer.Argument(
        metavar="FLEET | fleet/FLEET | rollout/NAME",
        help="A fleet stands for its latest rollout.",
        autocompletion=completing.fleets,
    ),
]
INTERRUPTED = 130

app = typer.Typer(
    cls=Verbs,
    help="See and steer how a change reaches the devices of a fleet.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@at_a_site
def status(
    site: Site,
    which: Which = "",
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", "-w", help="Until it has ended.")
    ] = True,
    timeout: Timeout = "0s",
) -> None:
    """Show how a rollout goes, until it has ended; ends with 1 where it did not end well."""
    from cli import paint, rollouts, waiting, watching

    reach = site.reach()
    attempt = rollouts.find(reach, _given(which))
    try:
        if watch and paint.can_redraw():
            from cli import livestatus

            paint.write(f"{livestatus.follow(reach, attempt, waiting.seconds(timeout))}\n")
            return
        for line in rollouts.follow(reach, attempt, waiting.seconds(timeout), watch=watch):
            paint.write(f"{line}\n")
    except watching.Ended:
        raise waiting.TimedOut(f"timed out waiting for {attempt.shown} to end") from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@at_a_site
def history(site: Site, which: Which = "") -> None:
    """List the rollouts of a fleet, the latest one last."""
    from cli import paint, rollouts

    reach = site.reach()
    attempt = rollouts.find(reach, _given(which))
    attempts = rollouts.of_fleet(reach, attempt.document["spec"]["target"]["fleet"])
    paint.write("".join(f"{line}\n" for line in rollouts.history(attempts)))


@at_a_site
def pause(site: Site, which: Which = "") -> None:
    """Bind no more devices; those that are bound go on."""
    from cli import rollouts

    _steer(site, which, rollouts.PAUSED, "paused")


@at_a_site
def resume(site: Site, which: Which = "") -> None:
    """Go on with a paused rollout."""
    from cli import rollouts

    _steer(site, which, rollouts.RESUMED, "resumed")


@at_a_site
def approve(site: Site, which: Which = "") -> None:
    """Let the batch begin that waits for approval, or that the one before it holds up."""
    from cli import paint, rollouts

    reach = site.reach()
    attempt = rollouts.find(reach, _given(which))
    control = rollouts.approval(attempt)
    rollouts.steer(reach, attempt, control, "homeport-rollout")
    paint.write(f"{attempt.shown}: batch {control['approved']} approved\n")


@at_a_site
def abort(site: Site, which: Which = "") -> None:
    """End a rollout for good; devices that are bound keep what they have."""
    from cli import rollouts

    _steer(site, which, rollouts.ABORTED, "aborted")


@at_a_site
def retry(site: Site, which: Which = "") -> None:
    """Let the devices try again that failed; after the end of a rollout, in another one."""
    from cli import paint, rollouts

    reach = site.reach()
    attempt = rollouts.find(reach, _given(which))
    control = rollouts.another_try(attempt)
    rollouts.steer(reach, attempt, control, "homeport-rollout", afterwards=True)
    paint.write(f"{attempt.shown}: what failed is tried again\n")


@at_a_site
def revert(site: Site, which: Which = "") -> None:
    """Take the devices back to the last version whose rollout ended well."""
    from cli import rollouts

    _steer(site, which, rollouts.REVERTED, "taken back", afterwards=True)


def _steer(
    site: Site, which: str, control: dict[str, Any], done: str, *, afterwards: bool = False
) -> None:
    from cli import paint, rollouts

    reach = site.reach()
    attempt = rollouts.find(reach, _given(which))
    news = rollouts.steer(reach, attempt, control, "homeport-rollout", afterwards=afterwards)
    paint.write(f"{attempt.shown} {done if news else f'is {done} already'}\n")


def _given(which: str) -> str:
    if not which:
        raise typer.BadParameter("say which fleet or rollout", param_hint="FLEET")
    return which


VERBS = (
    ("status", status),
    ("history", history),
    ("pause", pause),
    ("resume", resume),
    ("approve", approve),
    ("abort", abort),
    ("retry", retry),
    ("revert", revert),
)
