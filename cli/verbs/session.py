"""login, logout, whoami, kubeconfig, credential: who one is, here and for kubectl."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.reaching import Site, at_a_site
from resources import timestamps

if TYPE_CHECKING:
    from cli.client import Client
    from cli.sessions import Session

Url = Annotated[str, typer.Argument(help="The service, as https://HOST:PORT.")]
Called = Annotated[str, typer.Option("--context", help="What the context is called.")]
Organisation = Annotated[str, typer.Option("--namespace", "-n", help="Organisation.")]


def login(
    url: Url,
    provider: Annotated[str, typer.Option("--provider", help="Identity provider, by name.")] = "",
    device: Annotated[
        bool, typer.Option("--device", help="Log in by a code, in a browser elsewhere.")
    ] = False,
    token: Annotated[
        str, typer.Option("--token", help="Use this token and ask no provider; - reads it.")
    ] = "",
    authority: Annotated[
        str, typer.Option("--certificate-authority", help="PEM file of who certified the service.")
    ] = "",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open nothing.")
    ] = False,
    kubeconfig: Annotated[
        str, typer.Option("--kubeconfig", help="Where the context is put; else as kubectl's.")
    ] = "",
    context: Called = "",
    namespace: Organisation = "",
) -> None:
    """Log in, and make kubectl and homeport use that login."""
    from cli import contexts, sessions
    from cli import kubeconfig as configs
    from cli import login as logins

    pem = Path(authority).read_text() if authority else ""
    service = sessions.Service(_address(url), pem)
    if token:
        is_piped = token == "-"  # noqa: S105 - no password
        given = typer.get_text_stream("stdin").read() if is_piped else token
        session = sessions.Session(service.server, given.strip(), pem)
    else:
        chosen = logins.provider(service, provider)
        if device:
            session = logins.by_code(service, chosen, _say)
        else:
            session = logins.by_browser(service, chosen, _printing if no_browser else _opening)
    who = _who(session)
    sessions.save(session)
    name = context or contexts.name_of(service.server)
    path = configs.paths_of(Path(kubeconfig) if kubeconfig else None)[0]
    contexts.merge(path, contexts.entries(session, name, namespace))
    typer.echo(f'logged in as {who}; context "{name}" of {path} is the current one')


def logout(url: Url) -> None:
    """Forget the login at a service."""
    from cli import sessions

    server = _address(url)
    typer.echo(f"logged out of {server}" if sessions.forget(server) else "nobody was logged in")


@at_a_site
def whoami(site: Site) -> None:
    """Print who the service takes one for."""
    typer.echo(_username(site.reach().client))


def kubeconfig(
    url: Url,
    namespace: Organisation = "",
    context: Called = "",
) -> None:
    """Print a kubeconfig that brings the login of `homeport login`, and renews it."""
    import yaml

    from cli import contexts, sessions

    session = sessions.load(_address(url))
    name = context or contexts.name_of(session.server)
    text = yaml.safe_dump(contexts.entries(session, name, namespace), sort_keys=False)
    typer.echo(text, nl=False)


def credential(
    server: Annotated[str, typer.Option("--server", help="The service, as https://HOST:PORT.")],
) -> None:
    """Print a token for kubectl, which runs this by itself (client.authentication.k8s.io/v1)."""
    from cli import sessions
    from cli.kubeconfig import EXEC_VERSION

    session = sessions.fresh(_address(server))
    status = {"token": session.token}
    if session.ends_at is not None:
        ends = datetime.fromtimestamp(session.ends_at - sessions.LEFT_LEAST_S, UTC)
        status["expirationTimestamp"] = timestamps.of(ends)
    typer.echo(json.dumps({"apiVersion": EXEC_VERSION, "kind": "ExecCredential", "status": status}))


def _address(url: str) -> str:
    if not url.startswith("https://"):
        raise typer.BadParameter(f'"{url}" is not https://HOST:PORT', param_hint="URL")
    return url.rstrip("/")


def _who(session: Session) -> str:
    """As the service says; so nothing is kept of a login that it does not take."""
    from cli.client import Client
    from cli.kubeconfig import Access

    access = Access(session.server, session.service.context(), "default", session.token)
    with contextlib.closing(Client(access)) as client:
        return _username(client)


def _username(client: Client) -> str:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = client.ask("POST", path, body={"kind": "SelfSubjectReview"})
    return str(answer["status"]["userInfo"]["username"])


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _printing(url: str) -> None:
    _say(f"Log in at {url}")


def _opening(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        _printing(url)
        return
    _say("Log in in the browser that opens; without one: --device, or --no-browser.")


VERBS = (
    ("login", login),
    ("logout", logout),
    ("whoami", whoami),
    ("kubeconfig", kubeconfig),
    ("credential", credential),
)
