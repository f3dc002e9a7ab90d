"""`homeport`: the service in one process, and what its users do most.

Exit codes: 0 done, 1 refused or out of reach, 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
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
) -> None:
    """Run the API server and the controllers in one process."""
    import cli.up as service

    raise typer.Exit(
        service.run(
            data=data,
            listen=listen,
            agent_listen=agent_listen,
            url=url,
            agent_url=agent_url,
            database=database,
        )
    )


@app.command()
def approve(
    name: Annotated[str, typer.Argument(help="Name of the enrolment request, or its beginning.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="key=value for the device; repeat it.")
    ] = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Let a device in that asked to be enrolled."""
    labels = dict(_pair(text) for text in label or ())
    client, where = _client(kubeconfig, namespace)
    base = f"/apis/flightctl.io/v1beta1/namespaces/{where}/enrollmentrequests"
    full = _unique(client, base, name)
    body = {"approved": True, "labels": labels}
    client.ask("PUT", f"{base}/{full}/approval", body=body)
    typer.echo(f"enrollmentrequest/{full} approved")


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="devices, fleets, enrollmentrequests, ...")],
    name: Annotated[str, typer.Argument(help="One object; else all.")] = "",
    output: Output = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector.")] = "",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes.")] = False,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Show objects."""
    from cli import kinds, show
    from cli.client import TABLE

    if output not in ("", "wide", "yaml", "json", "name"):
        raise typer.BadParameter("use wide, yaml, json or name", param_hint="--output")
    client, where = _client(kubeconfig, namespace)
    resource = kinds.find(client, kind)
    path = resource.path(None if all_namespaces else where, name)
    query = {"labelSelector": selector} if selector else {}
    as_table = output in ("", "wide")
    accept = TABLE if as_table else "application/json"
    document = client.ask("GET", path, query=query, accept=accept)
    if as_table:
        typer.echo(show.table(document, wide=output == "wide", namespaces=all_namespaces))
    elif output == "name":
        for item in document.get("items", [document]):
            typer.echo(f"{resource.plural}/{item['metadata']['name']}")
    else:
        typer.echo(show.plain(document, output))
    if watch:
        query |= {"watch": "true", "resourceVersion": document["metadata"]["resourceVersion"]}
        if name:
            path, query["fieldSelector"] = resource.path(where), f"metadata.name={name}"
        for event in client.stream(path, query=query, accept="application/json"):
            metadata = event["object"]["metadata"]
            if event["type"] != "BOOKMARK":
                typer.echo(f"{event['type']:9} {metadata['name']} {metadata['resourceVersion']}")


@app.command()
def describe(
    kind: Annotated[str, typer.Argument(help="device, fleet, ...")],
    name: Annotated[str, typer.Argument(help="Which one.")],
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Show one object for reading: how it is, why, and what happened to it."""
    from cli import kinds, show
    from cli.client import Refused

    client, where = _client(kubeconfig, namespace)
    resource = kinds.find(client, kind)
    document = client.ask("GET", resource.path(where, name))
    fields = f"involvedObject.name={name},involvedObject.kind={resource.kind}"
    path = f"/api/v1/namespaces/{where}/events"
    try:
        events = client.ask("GET", path, query={"fieldSelector": fields})["items"]
    except Refused as refused:
        if refused.code not in (403, 404):
            raise
        events = []
    typer.echo(show.described(document, events))


@app.command()
def version() -> None:
    """Print the version of this program."""
    typer.echo(version_of("homeport"))


def main() -> None:
    """The entry point: every expected failure is one line and an exit code."""
    from cli.client import Refused, Unreachable
    from cli.kubeconfig import KubeconfigError

    try:
        app()
    except (Refused, Unreachable, KubeconfigError) as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(1)


def _client(kubeconfig: Path | None, namespace: str | None) -> tuple[Client, str]:
    from cli import kubeconfig as configs
    from cli.client import Client

    access = configs.load(configs.path_of(kubeconfig))
    return Client(access), namespace or access.namespace


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f'"{text}" is not key=value', param_hint="--label")
    return key, value


def _unique(client: Client, base: str, beginning: str) -> str:
    """The one name that begins so; names are 52 characters long."""
    from cli.client import Refused

    names = [str(item["metadata"]["name"]) for item in client.ask("GET", base)["items"]]
    if beginning in names:
        return beginning
    found = [name for name in names if name.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(found[:5])
        raise Refused(409, "Ambiguous", f'"{beginning}" begins several names: {listed}')
    waiting = ", ".join(names[:5]) or "none"
    raise Refused(
        404, "NotFound", f'no enrolment request begins with "{beginning}"; there are: {waiting}'
    )


if __name__ == "__main__":
    main()
