"""What the shell offers after Tab: kinds, names of objects, namespaces, asked from the server.

Whoever presses Tab waits, so the server has a second; and whatever goes wrong, the answer is
nothing: an error in the middle of a command line helps nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cli.reaching import Reach

TIMEOUT_S = 1.0
# Nobody reads more, and the shell asks before it shows them.
NAMES_MAX = 500

FORMS = ("wide", "yaml", "json", "name", "jsonpath=", "custom-columns=")


def kinds(ctx: typer.Context, incomplete: str) -> list[str]:
    """A kind's name."""
    return _answers(ctx, lambda reach: _beginning(_plurals(reach), incomplete))


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """The next word of `TYPE NAME...` or `TYPE/NAME...`."""
    before = [str(word) for word in ctx.params.get("words") or ()]

    def answer(reach: Reach) -> Iterable[str]:
        kind, slash, _ = incomplete.partition("/")
        if slash:
            return _beginning((f"{kind}/{name}" for name in _names(reach, kind)), incomplete)
        if not before:
            return _beginning(_plurals(reach), incomplete)
        if "/" in before[0]:
            return _beginning((f"{plural}/" for plural in _plurals(reach)), incomplete)
        taken = set(before[1:])
        return (n for n in _beginning(_names(reach, before[0]), incomplete) if n not in taken)

    return _answers(ctx, answer)


def requests(ctx: typer.Context, incomplete: str) -> list[str]:
    """Enrolment requests."""
    return _answers(ctx, lambda reach: _beginning(_names(reach, "enrollmentrequest"), incomplete))


def devices(ctx: typer.Context, incomplete: str) -> list[str]:
    return _answers(ctx, lambda reach: _beginning(_names(reach, "device"), incomplete))


def fleets(ctx: typer.Context, incomplete: str) -> list[str]:
    return _answers(ctx, lambda reach: _beginning(_names(reach, "fleet"), incomplete))


def applications(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the device or the fleet that was named before."""
    # An option whose value is being typed keeps the words before it from being taken.
    where = str(ctx.params.get("where") or next(iter(ctx.args), ""))

    def answer(reach: Reach) -> Iterable[str]:
        from cli import targets

        (target,) = targets.parse(reach.kinds, [where], reach.namespace)
        spec = reach.client.ask("GET", target.path()).get("spec") or {}
        spec = (spec.get("template") or {}).get("spec") or spec
        return _beginning((one.get("name") or "" for one in spec["applications"]), incomplete)

    return _answers(ctx, answer)


def namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    return _answers(ctx, lambda reach: _beginning(_names(reach, "namespace"), incomplete))


def contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    from cli import kubeconfig

    given = ctx.params.get("kubeconfig")
    paths = kubeconfig.paths_of(Path(given) if given else None)
    return list(_beginning(kubeconfig.contexts(paths), incomplete))


def forms(incomplete: str) -> list[str]:
    return list(_beginning(FORMS, incomplete))


def _answers(ctx: typer.Context, answer: Callable[[Reach], Iterable[str]]) -> list[str]:
    from cli.problems import Problem
    from cli.reaching import OPTIONS, Site

    said = {name: ctx.params.get(name) or "" for name in OPTIONS}
    try:
        with ExitStack() as opened:
            return list(answer(Site(**said, opened=opened).reach(TIMEOUT_S)))
    except (Problem, typer.BadParameter, KeyError, ValueError):
        return []


def _beginning(words: Iterable[str], incomplete: str) -> Iterable[str]:
    return (word for word in words if word.startswith(incomplete))


def _plurals(reach: Reach) -> list[str]:
    return [resource.plural for resource in reach.kinds.all()]


def _names(reach: Reach, kind: str) -> list[str]:
    from cli.client import PARTIAL

    resource = reach.kinds.find(kind)
    document = reach.client.ask(
        "GET",
        resource.path(reach.namespace),
        query={"limit": str(NAMES_MAX)},
        accept=PARTIAL,
    )
    return [item["metadata"]["name"] for item in document["items"]]
