"""What a machine must be told so that it can ask to become a device, as agents read it.

The invariant: nothing here is secret. The key belongs to whoever made the certificate request, and
is put in where it is.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from apiserver import errors
from apiserver.pki.authority import Authority
from apiserver.store import Snapshot
from resources.kind import Json
from resources.registry import CERTIFICATE_SIGNING_REQUEST


@dataclass(slots=True)
class Addresses:
    """How this server is reached, by users and by agents. Known when its ports are."""

    url: str = ""
    agent_url: str = ""


def service(authority: Authority, addresses: Addresses, certificate: bytes, key: bytes) -> Json:
    """The section `enrollment-service` of an agent's configuration; certificate and key in PEM."""
    return {
        "authentication": {
            "client-certificate-data": _base64(certificate),
            "client-key-data": _base64(key),
        },
        "service": {
            "server": addresses.agent_url,
            "certificate-authority-data": _base64(authority.server_ca_pem),
        },
        "enrollment-ui-endpoint": addresses.url,
    }


def config_of(
    snapshot: Snapshot, authority: Authority, addresses: Addresses, namespace: str, name: str
) -> Json:
    """The agent's configuration with the certificate of this request, which must have been issued,
    and without its key. Raises NotFound, Conflict."""
    kind = CERTIFICATE_SIGNING_REQUEST
    request = snapshot.get(kind, namespace, name)
    if request is None:
        raise errors.not_found(kind, name)
    certificate = (request.get("status") or {}).get("certificate")
    if not certificate:
        raise errors.conflict(kind, name, "no certificate was issued for it")
    made = service(authority, addresses, base64.b64decode(certificate), b"")
    return {"enrollment-service": made}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
