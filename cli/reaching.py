"""Which service, as whom and in which organisation: the options that every verb has.

A verb declares one parameter, `site`, and the decorator puts the options in its place; so no verb
can lack one, and none is declared twice. Nothing is read before the verb asks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli import completing, words

if TYPE_CHECKING:
    from cli.client import Client
    from cli.kinds import Kinds

Kubeconfig = Annotated[
    str,
    typer.Option("--kubeconfig", help="Access to the service; else $KUBECONFIG or ~/.kube/config."),
]
Data = Annotated[
    str,
    typer.Option("--data", help="Directory of a service on this machine, as its administrator."),
]
Context = Annotated[
    str,
    typer.Option(
        "--context",
        help="Context of the kubeconfig; else its current one.",
        autocompletion=completing.contexts,
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        help="Organisation; else the kubeconfig's.",
        autocompletion=completing.namespaces,
    ),
]
OPTIONS: dict[str, Any] = {
    "kubeconfig": Kubeconfig,
    "data": Data,
    "context": Context,
    "namespace": Namespace,
}


@dataclass(frozen=True, slots=True)
class Reach:
    """A service within reach."""

    client: Client
    kinds: Kinds
    namespace: str
    # Said with --namespace, and no mere default.
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """What the person said of the service, as yet unread."""

    kubeconfig: str = ""
    data: str = ""
    context: str = ""
    namespace: str = ""
    # What is to be closed when the verb has done its work.
    opened: ExitStack = field(default_factory=ExitStack, compare=False)

    @property
    def is_named(self) -> bool:
        return bool(self.kubeconfig or self.data)

    def reach(self, timeout_s: float | None = None) -> Reach:
        """Raises KubeconfigError. No request is made yet."""
        from cli import kubeconfig as configs
        from cli.client import TIMEOUT_S, Client
        from cli.kinds import Kinds

        if self.kubeconfig and self.data:
            raise typer.BadParameter("give --kubeconfig or --data, not both", param_hint="--data")
        given = f"{self.data}/{configs.ADMIN}" if self.data else self.kubeconfig
        access = configs.load_all(configs.paths_of(Path(given) if given else None), self.context)
        client = Client(access, timeout_s=timeout_s or TIMEOUT_S)
        self.opened.callback(client.close)
        namespace = self.namespace or access.namespace
        return Reach(client, Kinds(client), namespace, is_fixed=bool(self.namespace))


class Verb(TyperCommand):
    """A command that takes its options as kubectl does, and its values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _unconverted(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags: dict[str, str | None] = {}
        valued: set[str] = set()
        for parameter in self.params:
            if getattr(parameter, "is_flag", False):
                opposite = next(iter(parameter.secondary_opts), None)
                flags |= dict.fromkeys(parameter.opts, opposite)
            else:
                valued |= {option for option in parameter.opts if option.startswith("-")}
        return super().parse_args(ctx, words.rewritten(args, flags=flags, valued=valued))


class Verbs(TyperGroup):
    """The verbs together."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _unconverted(super().get_params(ctx))


def _unconverted(parameters: list[Any]) -> list[Any]:
    """Our parameters are texts, lists of texts and flags: there is nothing to convert. What typer
    would convert them with is pydantic, whose import costs more than all the rest of a `get`."""
    for parameter in parameters:
        parameter.process_value = functools.partial(_as_it_is, parameter)
    return parameters


def _as_it_is(parameter: Any, ctx: Any, value: Any) -> Any:
    kept = list(value) if isinstance(value, tuple) else value
    return parameter.callback(ctx, parameter, kept) if parameter.callback else kept


def at_a_site(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, with the options of a Site in place of its parameter `site`."""

    @functools.wraps(verb)
    def asked(**given: Any) -> None:
        said = {name: given.pop(name) for name in OPTIONS}
        with ExitStack() as opened:
            verb(site=Site(**said, opened=opened), **given)

    signature = inspect.signature(verb, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "site"]
    shared = list(_parameters())
    # typer reads both of these, and neither is what `wraps` left.
    asked.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
    asked.__annotations__ = {p.name: p.annotation for p in own + shared}
    del asked.__wrapped__
    return asked


def _parameters() -> Iterator[inspect.Parameter]:
    for name, annotation in OPTIONS.items():
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=annotation
        )
