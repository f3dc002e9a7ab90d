"""How the controllers reach the API server, described once, opened in whichever loop needs it.

Embedded it is a UNIX socket, whose file mode is the identity. Standalone it is the current context
of a kubeconfig: TLS with a client certificate, or a token. Refuses kubeconfigs that run programs.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

TOTAL_S = 30.0
CONNECT_S = 5.0


class BadKubeconfig(Exception):
    """The file cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is: `socket`, or `server` with what identifies us there (PEM texts)."""

    server: str = "http://localhost"
    socket: Path | None = None
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""

    def session(self, *, total_s: float | None = TOTAL_S) -> aiohttp.ClientSession:
        """A session in the running loop. Watches need one without a total limit."""
        connector: aiohttp.BaseConnector
        if self.socket is not None:
            connector = aiohttp.UnixConnector(str(self.socket), limit=0)
        else:
            connector = aiohttp.TCPConnector(ssl=self._context(), limit=0)
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)

    def _context(self) -> ssl.SSLContext | bool:
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.certificate:
            # The library reads certificates from files only.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(self.certificate.rstrip() + "\n" + self.key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def from_kubeconfig(path: Path) -> Endpoint:
    """The endpoint that the current context of a kubeconfig names. Raises BadKubeconfig."""
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", context["cluster"])["cluster"]
        user = _named(document, "users", context["user"])["user"]
        for refused in ("exec", "auth-provider"):
            if refused in user:
                raise BadKubeconfig(f"{path}: a user with {refused} is not supported")
        return Endpoint(
            server=cluster["server"].rstrip("/"),
            ca=_text(path, cluster, "certificate-authority"),
            certificate=_text(path, user, "client-certificate"),
            key=_text(path, user, "client-key"),
            token=user.get("token") or "",
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise BadKubeconfig(f"{path} cannot be used: {error!r}") from error


def _named(document: Any, part: str, name: str) -> Any:
    for entry in document[part]:
        if entry["name"] == name:
            return entry
    raise KeyError(f"{part}: {name}")


def _text(path: Path, source: dict[str, Any], key: str) -> str:
    """`<key>-data`, or the file that `<key>` names, from where the kubeconfig lies."""
    if source.get(f"{key}-data"):
        return base64.b64decode(source[f"{key}-data"], validate=True).decode()
    return (path.parent / source[key]).read_text() if source.get(key) else ""
