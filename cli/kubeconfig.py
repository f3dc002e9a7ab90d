"""A kubeconfig: which server, whose certificate it must show, and who we are there.

Which file: `--kubeconfig`, then those of `$KUBECONFIG`, then `~/.kube/config`. Of several files the
first that says something rules, as with kubectl. What is understood is what says how to log in to
one server: authority, client certificate, token, a program that prints one. Anything else in the
file is left to whoever wrote it.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.problems import Problem

# What `homeport up` writes into its data directory.
ADMIN = "admin.kubeconfig"
EXEC_TIMEOUT_S = 120
EXEC_VERSION = "client.authentication.k8s.io/v1"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class KubeconfigError(Problem):
    """The file cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server, and in which namespace to start."""

    server: str
    context: ssl.SSLContext
    namespace: str
    token: str = ""


def paths_of(given: Path | None) -> list[Path]:
    """The files that count."""
    if given is not None:
        return [given]
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return named or [Path.home() / ".kube" / "config"]


def load(path: Path, context: str = "") -> Access:
    """One file's context of that name, else its current one. Raises KubeconfigError."""
    return load_all([path], context)


def load_all(paths: Sequence[Path], context: str = "") -> Access:
    """The same of several files, of which those that do not exist are passed over."""
    there = [path for path in paths if path.exists()]
    if not there:
        raise KubeconfigError(
            f"{paths[0]} does not exist; name a kubeconfig with --kubeconfig or $KUBECONFIG",
            "on the machine of the service: --data DIR, as in `homeport up --data DIR`, which "
            f"writes DIR/{ADMIN}; export KUBECONFIG=DIR/{ADMIN} does the same for all commands",
        )
    at = ":".join(str(path) for path in there)
    try:
        documents = [(path, _document(path)) for path in there]
        name = context or _first(documents, "current-context")
        if not name:
            raise KubeconfigError(f"{at} has no current context; choose one with --context")
        _, chosen = _named(documents, "contexts", name)
        where, cluster = _named(documents, "clusters", chosen["context"]["cluster"])
        whose, user = _named(documents, "users", chosen["context"]["user"])
        cluster, user = cluster["cluster"], user.get("user") or {}
        if "exec" in user:
            user = user | _logged_in(user["exec"], at)
        return Access(
            server=cluster["server"].rstrip("/"),
            context=_ssl_context(where, cluster, whose, user),
            namespace=chosen["context"].get("namespace") or "default",
            token=_token(whose, user),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise KubeconfigError(f"{at} is not a kubeconfig that can be used: {error!r}") from error


def contexts(paths: Sequence[Path]) -> list[str]:
    """The names of all contexts, for completion; none where the files cannot be read."""
    names: list[str] = []
    for path in paths:
        try:
            names += [str(entry["name"]) for entry in _document(path).get("contexts") or ()]
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            continue
    return names


def _document(path: Path) -> Any:
    return yaml.load(path.read_text(), _LOADER)  # noqa: S506  # a safe loader


def _first(documents: list[tuple[Path, Any]], key: str) -> str:
    return next((str(found) for _, document in documents if (found := document.get(key))), "")


def _named(documents: list[tuple[Path, Any]], part: str, name: str) -> tuple[Path, Any]:
    """The entry, and the file that it stands in: relative paths are relative to it."""
    names: list[str] = []
    for path, document in documents:
        for entry in document.get(part) or ():
            if entry["name"] == name:
                return path, entry
            names.append(entry["name"])
    there = ", ".join(names) or "none"
    raise KubeconfigError(f'there is no "{name}" among the {part} of the kubeconfig: {there}')


def _logged_in(plugin: Any, at: str) -> dict[str, Any]:
    """What the credential program of the user prints, in the words of a kubeconfig's user."""
    import json
    import subprocess

    command = [plugin["command"], *(plugin.get("args") or ())]
    added = {pair["name"]: pair["value"] for pair in plugin.get("env") or ()}
    asked = {"apiVersion": EXEC_VERSION, "kind": "ExecCredential", "spec": {"interactive": True}}
    environment = os.environ | added | {"KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, check=True, timeout=EXEC_TIMEOUT_S, env=environment
        )
        status = json.loads(ran.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        hint = plugin.get("installHint") or ""
        raise KubeconfigError(
            f"{command[0]}, by which {at} logs in, failed: {error}" + (f"; {hint}" if hint else "")
        ) from error
    return {
        "token": status.get("token", ""),
        "client-certificate-data": _encoded(status.get("clientCertificateData")),
        "client-key-data": _encoded(status.get("clientKeyData")),
    }


def _encoded(pem: str | None) -> str:
    return base64.b64encode(pem.encode()).decode() if pem else ""


def _token(path: Path, user: Any) -> str:
    if token := user.get("token"):
        return str(token)
    file = user.get("tokenFile")
    return (path.parent / file).read_text().strip() if file else ""


def _ssl_context(where: Path, cluster: Any, whose: Path, user: Any) -> ssl.SSLContext:
    authority = _pem(where, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(whose, user, "client-certificate"), _pem(whose, user, "client-key")
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
