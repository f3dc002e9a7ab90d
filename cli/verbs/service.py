"""up, approve, version, completion: the service itself, and who may join it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import completing
from cli.reaching import Site, at_a_site

SHELLS = ("bash", "zsh", "fish")


def up(
    data: Annotated[Path, typer.Option("--data", help="Directory of the service; made if absent.")],
    listen: Annotated[str, typer.Option(help="Address for users.")] = "127.0.0.1:3443",
    agent_listen: Annotated[str, typer.Option(help="Address for agents.")] = "127.0.0.1:7443",
    url: Annotated[str, typer.Option(help="URL that users reach it by.")] = "",
    agent_url: Annotated[str, typer.Option(help="URL that agents reach it by.")] = "",
    database: Annotated[
        str, typer.Option(help="postgresql://... ; else SQLite in the data directory.")
    ] = "",
    auth_providers: Annotated[
        Path | None, typer.Option(help="File of AuthProviders, whose users may come.")
    ] = None,
    encryption_keys: Annotated[
        Path | None, typer.Option(help="File of the keys that secrets are encrypted with.")
    ] = None,
    signers: Annotated[
        Path | None, typer.Option(help="File that says who signs certificates, if not we.")
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(help="HOST:PORT for Prometheus; none unless given.")
    ] = "",
    audit_log: Annotated[
        Path | None, typer.Option(help="File for the audit, as JSON lines.")
    ] = None,
    audit_days: Annotated[int, typer.Option(min=1, help="How long the audit is kept.")] = 90,
    tpm_ca: Annotated[
        Path | None, typer.Option(help="Directory of certificates of the makers of TPMs.")
    ] = None,
    writes_per_second: Annotated[
        float, typer.Option(min=0, help="Writes of each user; 0 for no bound.")
    ] = 500.0,
    lists_per_second: Annotated[
        float, typer.Option(min=0, help="Lists and watches of each user; 0 for no bound.")
    ] = 50.0,
    device_requests_per_second: Annotated[
        float, typer.Option(min=0, help="Requests of each device; 0 for no bound.")
    ] = 200.0,
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
            auth_providers=auth_providers,
            encryption_keys=encryption_keys,
            signers=signers,
            metrics_listen=metrics_listen,
            audit_log=audit_log,
            audit_days=audit_days,
            tpm_ca=tpm_ca,
            limits={
                "writes_per_second": writes_per_second,
                "lists_per_second": lists_per_second,
                "device_requests_per_second": device_requests_per_second,
            },
            sources=service.sources(data, poll, host_kubeconfig, access, known_hosts),
        )
    )


@at_a_site
def approve(
    site: Site,
    name: Annotated[
        str,
        typer.Argument(
            help="Enrolment request: its name, how it begins, or er/NAME. Also csr/NAME.",
            autocompletion=completing.requests,
        ),
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="key=value for the device; repeat it.")
    ] = None,
    all_pending: Annotated[
        bool, typer.Option("--all-pending", help="Every request that waits, after a question.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let a device in that asked to be enrolled, or have a certificate signed."""
    from cli import approving

    labels = dict(_pair(text) for text in label or ())
    if bool(name) == all_pending:
        raise typer.BadParameter("give one name, or --all-pending", param_hint="NAME")
    reach = site.reach()
    client, where = reach.client, reach.namespace
    if all_pending:
        names = approving.pending(client, where)
        if not names:
            typer.echo("no enrolment request waits")
            return
        if not yes:
            for each in names:
                typer.echo(each)
            typer.confirm(f"Let these {len(names)} in?", abort=True)
    elif certificate := approving.signing_request(name):
        if labels:
            raise typer.BadParameter("a certificate has no labels", param_hint="--label")
        approving.sign(client, where, certificate, "Approved")
        typer.echo(f"certificatesigningrequest/{certificate} approved")
        return
    else:
        names = [approving.find(client, where, name)]
    for each in names:
        approving.approve(client, where, each, labels)
        typer.echo(f"enrollmentrequest/{each} approved")


@at_a_site
def deny(
    site: Site,
    name: Annotated[
        str,
        typer.Argument(
            help="Enrolment request: its name, how it begins, or er/NAME. Also csr/NAME.",
            autocompletion=completing.requests,
        ),
    ],
) -> None:
    """Turn down who asked to be enrolled, or for a certificate."""
    from cli import approving

    reach = site.reach()
    client, where = reach.client, reach.namespace
    if certificate := approving.signing_request(name):
        approving.sign(client, where, certificate, "Denied")
        typer.echo(f"certificatesigningrequest/{certificate} denied")
        return
    found = approving.find(client, where, name)
    approving.deny(client, where, found)
    typer.echo(f"enrollmentrequest/{found} denied")


@at_a_site
def decommission(
    site: Site,
    name: Annotated[
        str,
        typer.Argument(help="Device: device/NAME or NAME.", autocompletion=completing.targets),
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", help="How far it is taken back: Unenroll.")
    ] = "Unenroll",
) -> None:
    """Take a device out of service for good: it forgets the service, and is deleted then."""
    from cli.targets import Target

    reach = site.reach()
    kind, slash, rest = name.rpartition("/")
    device = reach.kinds.find("devices.flightctl.io")
    if slash and reach.kinds.find(kind) != device:
        raise typer.BadParameter(f'"{name}" is not device/NAME', param_hint="NAME")
    path = Target(device, reach.namespace, rest).path("decommission")
    reach.client.ask("PUT", path, body={"target": target})
    typer.echo(f"{Target(device, reach.namespace, rest).shown} decommissioning")


@at_a_site
def version(site: Site) -> None:
    """Print the version of this program, and of the service if one is at hand."""
    from importlib.metadata import version as version_of

    from cli.problems import Problem

    typer.echo(f"homeport {version_of('homeport')}")
    try:
        reach = site.reach()
        typer.echo(f"service  {reach.client.ask('GET', '/version')['gitVersion']}")
    except Problem as problem:
        if site.is_named:
            raise
        typer.echo(f"service  unknown: {problem}")


def completion(
    shell: Annotated[
        str, typer.Argument(help="bash, zsh or fish.", autocompletion=lambda: list(SHELLS))
    ] = "",
) -> None:
    """Print what makes your shell complete homeport's words.

    bash: source <(homeport completion bash); zsh the same; fish: homeport completion fish | source
    """
    # Not public, and there is no other way to it; the test with real shells would tell.
    from typer._completion_shared import get_completion_script

    if shell not in SHELLS:
        raise typer.BadParameter(f"use {', '.join(SHELLS)}", param_hint="SHELL")
    typer.echo(
        get_completion_script(prog_name="homeport", complete_var="_HOMEPORT_COMPLETE", shell=shell)
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f'"{text}" is not key=value', param_hint="--label")
    return key, value


VERBS = (
    ("approve", approve),
    ("deny", deny),
    ("decommission", decommission),
    ("version", version),
    ("completion", completion),
)
