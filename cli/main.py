"""`homeport`: the service in one process, and what its users do most.

Exit codes: 0 done, 1 refused or out of reach, 2 wrong usage; `diff` says 1 where something differs,
and 2 where it failed. The verbs are kubectl's, and so are their options and words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

import typer

from cli import problems, words
from cli.reaching import Verb, Verbs
from cli.verbs import application, certificate, reading, rollout, service, session, writing

# By which a shell that completes our words says so; typer makes the name of the program's.
COMPLETE = "_HOMEPORT_COMPLETE"

_VERBS: dict[str, Callable[..., None]] = {
    "up": service.up,
    **dict((*reading.VERBS, *writing.VERBS, *session.VERBS, *service.VERBS)),
    **dict(application.TOP_VERBS),
}
_GROUPS = {
    "rollout": (rollout.app, rollout.VERBS),
    "app": (application.app, application.VERBS),
    "certificate": (certificate.app, certificate.VERBS),
}


def program(argv: Sequence[str] = ()) -> typer.Typer:
    """With all verbs, or with the one alone that `argv` begins with: to make commands of all of
    them takes as long as all else that a verb does before its first request."""
    made = typer.Typer(
        cls=Verbs,
        help="Manage fleets of edge devices.",
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    # A program of one verb would take that for itself, if there were nothing beside it.
    made.callback()(lambda: None)
    first = argv[0] if argv else ""
    for name in [first] if first in _VERBS else _VERBS:
        # `up` alone has numbers and paths among its options.
        made.command(name, cls=None if name == "up" else Verb)(_VERBS[name])
    if first not in _VERBS:
        for name, (group, _) in _GROUPS.items():
            made.add_typer(group, name=name)
    return made


for _group, _verbs in _GROUPS.values():
    for _name, _verb in _verbs:
        _group.command(_name, cls=Verb)(_verb)


def main() -> None:
    """The entry point: every expected failure is a line or two, and an exit code."""
    if COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    sys.argv[1:] = words.verb_first(sys.argv[1:])
    # What was begun is put back also then: a hidden cursor, a file to edit. `up` has its own way.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        program(() if COMPLETE in os.environ else sys.argv[1:])()
    except problems.Problem as problem:
        problems.tell(problem)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read us has enough; what is buffered still must not raise at the end.
        sys.stdout = None
        sys.exit(1)


if __name__ == "__main__":
    main()
