"""certificate request, revoke: what devices enrol with, and what counts no more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import completing
from cli.options import Timeout
from cli.reaching import Site, Verbs, at_a_site
from resources import timestamps

# What cli.provisioning knows; reading that module takes longer than most verbs.
FORMATS = ("config", "cloud-init", "ignition", "kickstart")
STANDARD_OUTPUT = "-"

app = typer.Typer(
    cls=Verbs,
    help="Ask for certificates, and revoke them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@at_a_site
def request(
    site: Site,
    signer: Annotated[str, typer.Option("--signer", help="Who is asked to sign.")] = "enrollment",
    expires: Annotated[
        str, typer.Option("--expires", help="How long it is good for: 12h, 7d, 52w.")
    ] = "7d",
    format_: Annotated[
        str,
        typer.Option(
            "--format", help=f"{', '.join(FORMATS)}.", autocompletion=lambda: list(FORMATS)
        ),
    ] = "config",
    name: Annotated[
        str, typer.Option("--name", help="How the request's name begins.")
    ] = "client-enrollment",
    output: Annotated[
        str, typer.Option("--output", help="File for it, 0600; - for standard output.")
    ] = "",
    timeout: Timeout = "60s",
) -> None:
    """Make a key, have a certificate to enrol with, and print both for a provisioning system."""
    from cli import certificates, private, provisioning, waiting

    if format_ not in provisioning.FORMATS:
        raise typer.BadParameter(f"use {', '.join(FORMATS)}", param_hint="--format")
    if not output and sys.stdout.isatty():
        # Terminals keep what they showed, and are looked at over shoulders.
        raise typer.BadParameter(
            "a private key is in what would be shown here; name a file, or - to show it",
            param_hint="--output",
        )
    lifetime_s = certificates.lifetime_s(expires)
    reach = site.reach()
    issued = certificates.request(
        reach.client,
        reach.namespace,
        base=name,
        signer=signer,
        lifetime_s=lifetime_s,
        timeout_s=waiting.seconds(timeout),
    )
    text = provisioning.FORMATS[format_](issued.settings)
    if output and output != STANDARD_OUTPUT:
        private.write(Path(output), text)
    else:
        typer.echo(text, nl=False)
    until = timestamps.of(issued.until)
    typer.echo(f"certificatesigningrequest/{issued.name} issued, until {until}", err=True)


@at_a_site
def revoke(
    site: Site,
    device: Annotated[
        str,
        typer.Argument(
            metavar="[DEVICE]",
            help="Device whose certificates count no more, those to come too.",
            autocompletion=completing.devices,
        ),
    ] = "",
    serial: Annotated[
        str, typer.Option("--serial", help="Only the certificate with this serial number.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")] = "",
) -> None:
    """Make certificates count no more, within seconds."""
    from cli import certificates

    if bool(device) == bool(serial):
        raise typer.BadParameter("name a device, or a serial number", param_hint="DEVICE")
    reach = site.reach()
    name = certificates.revoke(
        reach.client, reach.namespace, device=device, serial=serial, reason=reason
    )
    typer.echo(f"certificaterevocation/{name} created")


VERBS = (("request", request), ("revoke", revoke))
