"""`homeport`: the service in one process, and what its users do most.

Exit codes: 0 done, 1 refused or out of reach, 2 wrong usage; `diff` says 1 where something differs,
and 2 where it failed. The verbs are kubectl's, and so are their options and words.
"""

from __future__ import annotations

import os
import sys

import typer

from cli import problems, words
from cli.reaching import Verb, Verbs
from cli.verbs import reading, rollout, service, writing

# By which a shell that completes our words says so; typer makes the name of the program's.
COMPLETE = "_HOMEPORT_COMPLETE"

app = typer.Typer(
    cls=Verbs,
    help="Manage fleets of edge devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

app.command("up")(service.up)
for _name, _verb in (*reading.VERBS, *writing.VERBS, *service.VERBS):
    app.command(_name, cls=Verb)(_verb)
for _name, _verb in rollout.VERBS:
    rollout.app.command(_name, cls=Verb)(_verb)
app.add_typer(rollout.app, name="rollout")


def main() -> None:
    """The entry point: every expected failure is a line or two, and an exit code."""
    if COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    sys.argv[1:] = words.verb_first(sys.argv[1:])
    try:
        app()
    except problems.Problem as problem:
        problems.tell(problem)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read us has enough; what is buffered still must not raise at the end.
        sys.stdout = None
        sys.exit(1)


if __name__ == "__main__":
    main()
