"""Letting devices in, or not, and certificates: which requests wait, and the decision on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli import naming
from cli.client import Client

Json = dict[str, Any]

PLURAL = "enrollmentrequests"
# As flightctl's users type it.
SIGNING = ("csr", "fcsr", "certificatesigningrequest", "certificatesigningrequests")
PREFIXES = ("er/", "enrollmentrequest/", "enrollmentrequests/")


def pending(client: Client, namespace: str) -> list[str]:
    """The names of the requests that nobody decided on yet."""
    items = client.ask("GET", _path(namespace))["items"]
    return [item["metadata"]["name"] for item in items if not _decided(item)]


def find(client: Client, namespace: str, word: str) -> str:
    """The request that `word` means. Raises Refused."""
    for prefix in PREFIXES:
        word = word.removeprefix(prefix)
    items = client.ask("GET", _path(namespace))["items"]
    return str(naming.choose(items, word, PLURAL)["metadata"]["name"])


def approve(client: Client, namespace: str, name: str, labels: Mapping[str, str]) -> None:
    body = {"approved": True, "labels": dict(labels)}
    client.ask("PUT", f"{_path(namespace)}/{name}/approval", body=body)


def deny(client: Client, namespace: str, name: str) -> None:
    client.ask("PUT", f"{_path(namespace)}/{name}/approval", body={"approved": False})


def signing_request(word: str) -> str:
    """The name of the CertificateSigningRequest that `word` means; empty for anything else."""
    kind, slash, name = word.partition("/")
    return name if slash and kind in SIGNING else ""


def sign(client: Client, namespace: str, name: str, decision: str) -> None:
    """Approve or deny a certificate: `decision` is the condition that says so."""
    path = f"/apis/flightctl.io/v1beta1/namespaces/{namespace}/certificatesigningrequests/{name}"
    document = client.ask("GET", path)
    said = {"type": decision, "status": "True", "reason": decision, "message": ""}
    body = document | {"status": {"conditions": [said]}}
    client.ask("PUT", f"{path}/approval", body=body)


def _path(namespace: str) -> str:
    return f"/apis/flightctl.io/v1beta1/namespaces/{namespace}/{PLURAL}"


def _decided(request: Json) -> bool:
    return bool((request.get("status") or {}).get("approval"))
