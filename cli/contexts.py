"""Kubeconfigs that log in through us: written beside what is there, for every Kubernetes tool."""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cli import private
from cli.kubeconfig import EXEC_VERSION, KubeconfigError
from cli.sessions import Session

Json = dict[str, Any]


def name_of(server: str) -> str:
    """What the context for a service is called unless told: homeport-HOST."""
    return f"homeport-{urlsplit(server).hostname}"


def entries(session: Session, name: str, namespace: str) -> Json:
    """A kubeconfig with this one context."""
    cluster: Json = {"server": session.server}
    if session.authority:
        cluster["certificate-authority-data"] = _encoded(session.authority)
    plugin = {
        "apiVersion": EXEC_VERSION,
        "command": _ourselves(),
        "args": ["credential", "--server", session.server],
        "interactiveMode": "Never",
        "provideClusterInfo": False,
        "installHint": "install homeport, by which this context logs in",
    }
    chosen = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"exec": plugin}}],
        "contexts": [{"name": name, "context": chosen}],
        "current-context": name,
    }


def merge(path: Path, added: Json) -> None:
    """Put the entries into a kubeconfig, in place of those of the same name; the context becomes
    the current one. Raises KubeconfigError for a file that is none."""
    try:
        found = yaml.safe_load(path.read_text()) if path.exists() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{path} can't be read: {error}") from error
    there = {} if found is None else found
    if not isinstance(there, dict):
        raise KubeconfigError(f"{path} is no kubeconfig; it was left as it is")
    merged = there | {key: added[key] for key in ("apiVersion", "kind", "current-context")}
    for part in ("clusters", "users", "contexts"):
        names = {entry["name"] for entry in added[part]}
        kept = [entry for entry in there.get(part) or () if entry.get("name") not in names]
        merged[part] = [*kept, *added[part]]
    # Through a link, as people keep theirs, to the file that it leads to.
    private.write(path.resolve(), yaml.safe_dump(merged, sort_keys=False))


def _ourselves() -> str:
    """How a tool finds this program, whatever its PATH."""
    return shutil.which(sys.argv[0]) or "homeport"


def _encoded(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()
