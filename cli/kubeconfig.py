"""A kubeconfig as far as we write them ourselves: a server, its authority, a client certificate or
a token. Which file: `--kubeconfig`, then `$KUBECONFIG`, then `~/.kube/config`."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# What `homeport up` writes into its data directory.
ADMIN = "admin.kubeconfig"


class KubeconfigError(Exception):
    """The file cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server, and in which namespace to start."""

    server: str
    context: ssl.SSLContext
    namespace: str
    token: str = ""


def path_of(given: Path | None) -> Path:
    if given is not None:
        return given
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


def load(path: Path) -> Access:
    """The current context of the file at `path`. Raises KubeconfigError."""
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", context["cluster"])["cluster"]
        user = _named(document, "users", context["user"])["user"]
        return Access(
            server=cluster["server"].rstrip("/"),
            context=_ssl_context(path, cluster, user),
            namespace=context.get("namespace") or "default",
            token=user.get("token") or "",
        )
    except FileNotFoundError as error:
        raise KubeconfigError(
            f"{path} does not exist; name one with --kubeconfig or $KUBECONFIG "
            "(`homeport up --data DIR` writes DIR/admin.kubeconfig)"
        ) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, ssl.SSLError) as error:
        raise KubeconfigError(f"{path} is not a kubeconfig that can be used: {error!r}") from error


def _named(document: Any, part: str, name: str) -> Any:
    for entry in document[part]:
        if entry["name"] == name:
            return entry
    raise KeyError(f"{name} in {part}")


def _ssl_context(path: Path, cluster: Any, user: Any) -> ssl.SSLContext:
    authority = _pem(path, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _pem(path, user, "client-certificate"), _pem(path, user, "client-key")
    if certificate and key:
        # The ssl module takes a key from a file only; it is ours alone and gone at once.
        with tempfile.NamedTemporaryFile() as both:
            both.write(certificate + b"\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context


def _pem(path: Path, entry: Any, name: str) -> bytes:
    data = entry.get(f"{name}-data")
    if data:
        return base64.b64decode(data)
    file = entry.get(name)
    return (path.parent / file).read_bytes() if file else b""
