"""Certificates that a person asks for, and takes away. A key is made here, and leaves this machine
only inside what the person asked for."""

from __future__ import annotations

import base64
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.client import Client, Refused
from cli.problems import Problem

Json = dict[str, Any]

GROUP = "/apis/flightctl.io/v1beta1"
REVOCATIONS = "/apis/homeport.dev/v1alpha1"
LOOK_S = 0.5
USAGES = ["clientAuth", "CA:false"]
_PART = re.compile(r"(\d+)(w|d|h|m|s)")
_UNITS_S = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


class BadLifetime(Problem):
    """`--expires` cannot be read."""


class NotIssued(Problem):
    """The request was refused, could not be signed, or nobody decided in time."""


@dataclass(frozen=True, slots=True)
class Issued:
    """`settings` is the agent's configuration, key included."""

    name: str
    until: datetime
    settings: Json


def revoke(client: Client, namespace: str, *, device: str, serial: str, reason: str) -> str:
    """The name of the revocation. Raises Refused, also for a device that is not there: what is
    mistyped would leave the one that was meant in."""
    device = device.removeprefix("device/")
    if device:
        client.ask("GET", f"{GROUP}/namespaces/{namespace}/devices/{device}")
    named = {"device": device, "serial": serial, "reason": reason}
    document = {
        "apiVersion": "homeport.dev/v1alpha1",
        "kind": "CertificateRevocation",
        "metadata": {"generateName": f"{device[:40] or 'certificate'}-"},
        "spec": {key: value for key, value in named.items() if value},
    }
    path = f"{REVOCATIONS}/namespaces/{namespace}/certificaterevocations"
    return str(client.ask("POST", path, body=document)["metadata"]["name"])


def lifetime_s(text: str) -> int:
    """`7d`, `12h`, `1d12h`. Raises BadLifetime."""
    if not text or _PART.sub("", text):
        raise BadLifetime(f'--expires: "{text}" is not a time such as 12h, 7d or 52w')
    return sum(int(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def request(
    client: Client, namespace: str, *, base: str, signer: str, lifetime_s: int, timeout_s: float
) -> Issued:
    """A certificate for a new key. Raises NotIssued, Refused."""
    path = f"{GROUP}/namespaces/{namespace}/certificatesigningrequests"
    name = f"{base}-{secrets.token_hex(4)}"
    key, csr = _key_and_request(name)
    made = client.ask("POST", path, body=_document(name, csr, signer, lifetime_s))
    document = _issued(client, f"{path}/{name}", made, timeout_s)
    certificate = base64.b64decode(document["status"]["certificate"])
    settings = client.ask("GET", f"{path}/{name}/enrollmentconfig")
    shown = settings["enrollment-service"]["authentication"]
    shown["client-key-data"] = base64.b64encode(key).decode()
    return Issued(name, _end_of(certificate), settings)


def _document(name: str, csr: bytes, signer: str, lifetime_s: int) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(csr).decode(),
            "signerName": signer,
            "usages": USAGES,
            "expirationSeconds": lifetime_s,
        },
    }


def _issued(client: Client, path: str, document: Json, timeout_s: float) -> Json:
    """The request once it has its certificate; approved by us if nobody did and we may."""
    name = document["metadata"]["name"]
    deadline = time.monotonic() + timeout_s
    has_tried = False
    while True:
        status = document.get("status") or {}
        said = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
        for kind in ("Denied", "Failed"):
            if kind in said:
                why = said[kind].get("message") or said[kind].get("reason")
                raise NotIssued(f"the certificate request {name} was {kind.lower()}: {why}")
        if status.get("certificate"):
            return document
        if "Approved" not in said and not has_tried:
            has_tried = True
            _approve(client, path, document)
        elif time.monotonic() >= deadline:
            waits_for = "its signer" if "Approved" in said else "somebody's approval"
            raise NotIssued(
                f"the certificate request {name} still waits for {waits_for}",
                "its key was not kept: delete the request, and ask again when it can be granted",
            )
        else:
            time.sleep(LOOK_S)
        document = client.ask("GET", path)


def _approve(client: Client, path: str, document: Json) -> None:
    """Somebody else's business if we may not, or somebody was faster."""
    approved = {
        "type": "Approved",
        "status": "True",
        "reason": "ApprovedByRequester",
        "message": "Approved by who asked for it.",
    }
    body = document | {"status": {"conditions": [approved]}}
    try:
        client.ask("PUT", f"{path}/approval", body=body)
    except Refused as refused:
        if refused.code not in (403, 409):
            raise


def _key_and_request(name: str) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    # The form that flightctl's agents read.
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return (
        key.private_bytes(pem, form, serialization.NoEncryption()),
        csr.public_bytes(pem),
    )


def _end_of(certificate: bytes) -> datetime:
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
