"""`homeport`: the service in one process, and what its users do most.

Exit codes: 0 done, 1 refused or out of reach, 2 wrong usage. What a command needs is imported when
it runs: starting fast is half of a good command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(
    help="Manage fleets of edge devices.", no_args_is_help=True, rich_markup_mode=None
)

Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Access to the service; else $KUBECONFIG or ~/.kube/config."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Directory of a service on this machine, as its administrator."),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Organisation; else the kubeconfig's.")
]
Output = Annotated[
    str, typer.Option("--output", "-o", help="wide, yaml, json or name; else a table.")
]


@app.command()
def up(
    data: Annotated[Path, typer.Option("--data", help="Directory of the service; made if absent.")],
    listen: Annotated[str, typer.Option(help="Address for users.")] = "127.0.0.1:3443",
    agent_listen: Annotated[str, typer.Option(help="Address for agents.")] = "127.0.0.1:7443",
    url: Annotated[str, typer.Option(help="URL that users reach it by.")] = "",
    agent_url: Annotated[str, typer.Option(help="URL that agents reach it by.")] = "",
    database: Annotated[
        str, typer.Option(help="postgresql://... ; else SQLite in the data directory.")
    ] = "",
    poll: Annotated[
        float, typer.Option(min=1, max=86400, help="Seconds between looks at outside sources.")
    ] = 5.0,
    host_kubeconfig: Annotated[
        Path | None, typer.Option(help="Cluster whose Secrets fleets may take files from.")
    ] = None,
    access: Annotated[
        float, typer.Option(min=1, max=86400, help="Seconds between tries of each repository.")
    ] = 120.0,
    known_hosts: Annotated[
        Path, typer.Option(help="SSH servers of repositories, as lines of a known_hosts file.")
    ] = Path("/etc/flightctl/ssh/known_hosts"),
) -> None:
    """Run the API server and the controllers in one process."""
    from cli import up as service

    raise typer.Exit(
        service.run(
            data=data,
            listen=listen,
            agent_listen=agent_listen,
            url=url,
            agent_url=agent_url,
            database=database,
            sources=service.sources(data, poll, host_kubeconfig, access, known_hosts),
        )
    )


@app.command()
def approve(
    name: Annotated[
        str, typer.Argument(help="Enrolment request: its name, how it begins, or er/NAME.")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="key=value for the device; repeat it.")
    ] = None,
    all_pending: Annotated[
        bool, typer.Option("--all-pending", help="Every request that waits, after a question.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    kubeconfig: Kubeconfig = None,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Let a device in that asked to be enrolled."""
    from cli import approving

    labels = dict(_pair(text) for text in label or ())
    if bool(name) == all_pending:
        raise typer.BadParameter("give one name, or --all-pending", param_hint="NAME")
    client, where = _client(kubeconfig, data, namespace)
    if all_pending:
        names = approving.pending(client, where)
        if not names:
            typer.echo("no enrolment request waits")
            return
        if not yes:
            for each in names:
                typer.echo(each)
            typer.confirm(f"Let these {len(names)} in?", abort=True)
    else:
        names = [approving.find(client, where, name)]
    for each in names:
        approving.approve(client, where, each, labels)
        typer.echo(f"enrollmentrequest/{each} approved")


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="devices, fleets, enrollmentrequests, ...")],
    name: Annotated[str, typer.Argument(help="One object; else all.")] = "",
    output: Output = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector.")] = "",
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of every organisation.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes.")] = False,
    kubeconfig: Kubeconfig = None,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Show objects."""
    from cli import getting, paint

    if output not in getting.FORMS:
        raise typer.BadParameter("use wide, yaml, json or name", param_hint="--output")
    if name and (selector or all_namespaces):
        raise typer.BadParameter("a name stands alone, without -l and -A", param_hint="NAME")
    client, where = _client(kubeconfig, data, namespace)
    asked = getting.Asked(
        kind, name, "" if all_namespaces else where, selector=selector, output=output
    )
    try:
        for text in getting.watch(client, asked) if watch else getting.get(client, asked):
            paint.echo(text)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def describe(
    kind: Annotated[str, typer.Argument(help="device, fleet, ...")],
    name: Annotated[str, typer.Argument(help="Its name, how it begins, or a device's alias.")],
    kubeconfig: Kubeconfig = None,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Show one object for reading: how it is, why, and what happened to it."""
    from cli import getting, paint

    client, where = _client(kubeconfig, data, namespace)
    paint.echo(getting.describe(client, where, kind, name))


@app.command()
def version(kubeconfig: Kubeconfig = None, data: Data = None) -> None:
    """Print the version of this program, and of the service if one is at hand."""
    from importlib.metadata import version as version_of

    from cli.client import Refused, Unreachable
    from cli.kubeconfig import KubeconfigError

    typer.echo(f"homeport {version_of('homeport')}")
    try:
        client, _ = _client(kubeconfig, data, None)
        typer.echo(f"service  {client.ask('GET', '/version')['gitVersion']}")
    except (Refused, Unreachable, KubeconfigError) as problem:
        if kubeconfig is not None or data is not None:
            raise
        typer.echo(f"service  unknown: {problem}")


def main() -> None:
    """The entry point: every expected failure is one line and an exit code."""
    from cli.client import Refused, Unreachable
    from cli.kubeconfig import KubeconfigError

    try:
        app()
    except (Refused, Unreachable, KubeconfigError) as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(1)


def _client(
    kubeconfig: Path | None, data: Path | None, namespace: str | None
) -> tuple[Client, str]:
    from cli import kubeconfig as configs
    from cli.client import Client

    if kubeconfig is not None and data is not None:
        raise typer.BadParameter("give --kubeconfig or --data, not both", param_hint="--data")
    path = data / configs.ADMIN if data is not None else configs.path_of(kubeconfig)
    access = configs.load(path)
    return Client(access), namespace or access.namespace


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f'"{text}" is not key=value', param_hint="--label")
    return key, value


if __name__ == "__main__":
    main()
