"""A reference agent's side of the agent API, written from the contract: key, CSR, mutual TLS, the
seven requests. It shares no code with our agent or our service, so that neither can hide a mistake
of the other. Contract tests and the bench use it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Json = dict[str, Any]

RENDERED_VERSION = "device-controller/renderedVersion"
RENEWAL = "flightctl.io/device-management-renewal"


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """Lower-case base32hex of SHA-256 over X and Y as unpadded big integers (contract 8.1)."""
    numbers = key.public_key().public_numbers()
    material = b"".join(
        n.to_bytes((n.bit_length() + 7) // 8, "big") for n in (numbers.x, numbers.y)
    )
    return base64.b32hexencode(hashlib.sha256(material).digest()).decode().rstrip("=").lower()


def signing_request(
    key: ec.EllipticCurvePrivateKey, common_name: str, *more: x509.NameAttribute[str]
) -> str:
    with warnings.catch_warnings():
        # Go, which reference agents are written in, has no limit of 64 characters.
        warnings.simplefilter("ignore")
        name = x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)
    subject = x509.Name([name, *more])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def device_status(rendered_version: str = "", **parts: Any) -> Json:
    """The status that an idle agent reports."""
    status: Json = {
        "conditions": [],
        "systemInfo": {
            "agentVersion": "1",
            "architecture": "amd64",
            "bootID": "b",
            "operatingSystem": "linux",
            "hostname": "h",
        },
        "applications": [],
        "applicationsSummary": {"status": "Unknown"},
        "resources": {"cpu": "Healthy", "memory": "Healthy", "disk": "Healthy"},
        "integrity": {"status": "Unknown"},
        "config": {"renderedVersion": rendered_version},
        "os": {"image": "", "imageDigest": ""},
        "updated": {"status": "Unknown"},
        "summary": {"status": "Unknown"},
        "lifecycle": {"status": "Unknown"},
    }
    return status | parts


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        assert "json" in self.headers.get("Content-Type", ""), self
        found: Json = json.loads(self.body)
        return found


class Connection:
    """Requests under one client certificate (or none), on connections that stay open."""

    def __init__(
        self, url: str, ca_pem: bytes, certificate: Path | None, key: Path | None = None
    ) -> None:
        self.base = url.rstrip("/") + "/api/v1"
        self.tls = ssl.create_default_context(cadata=ca_pem.decode())
        if certificate is not None:
            self.tls.load_cert_chain(certificate, key)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Connection:
        connector = aiohttp.TCPConnector(ssl=self.tls, limit=0)
        # The reference gives a poll 4 minutes.
        timeout = aiohttp.ClientTimeout(total=240)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, method: str, path: str, **options: Any) -> Answer:
        assert self._session is not None, "use it as a context"
        async with self._session.request(method, self.base + path, **options) as response:
            body = await response.read()
            return Answer(response.status, dict(response.headers), body)


@dataclass(slots=True)
class Agent:
    """A device: its key, its name, and what it has been given. `directory` takes the files that
    the TLS library wants."""

    url: str
    ca_pem: bytes
    directory: Path
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or fingerprint(self.key)

    def request_body(self, **spec: Any) -> Json:
        """An EnrollmentRequest as agents send it: with the short apiVersion."""
        csr = signing_request(self.key, self.name)
        status = device_status()
        return {
            "apiVersion": "v1beta1",
            "kind": "EnrollmentRequest",
            "metadata": {"name": self.name},
            "spec": {"csr": csr, "deviceStatus": status, "labels": {"alias": "h"}} | spec,
        }

    async def enrol(self, factory: Connection, **spec: Any) -> Answer:
        return await factory.send("POST", "/enrollmentrequests", json=self.request_body(**spec))

    async def wait_for_certificate(self, factory: Connection, *, every_s: float = 0.05) -> str:
        """Poll the request until it is approved; conditions must be there all the time."""
        while True:
            answer = await factory.send("GET", f"/enrollmentrequests/{self.name}")
            assert answer.code == 200, answer
            status = answer.json["status"]
            kinds = {condition["type"] for condition in status["conditions"]}
            assert not kinds & {"Denied", "Failed"}, status
            if "Approved" in kinds and status.get("certificate"):
                return str(status["certificate"])
            await asyncio.sleep(every_s)

    def connection(self, certificate_pem: str) -> Connection:
        """Under the certificate that it was given."""
        certificate = self.directory / f"{self.name}.crt"
        key = self.directory / f"{self.name}.key"
        certificate.write_text(certificate_pem)
        key.write_bytes(key_pem(self.key))
        return Connection(self.url, self.ca_pem, certificate, key)

    async def poll(self, connection: Connection, known: str | None = None) -> Answer:
        query = {} if known is None else {"params": {"knownRenderedVersion": known}}
        return await connection.send("GET", f"/devices/{self.name}/rendered", **query)

    async def news(self, connection: Connection, known: str) -> Json:
        """What there is beside the version that it knows. As devices do, it asks again where a poll
        ends empty: it is told in the end, however short a poll is held."""
        while (answer := await self.poll(connection, known)).code == 204:
            pass
        return answer.json

    async def report(self, connection: Connection, status: Json) -> Answer:
        body = {
            "apiVersion": "v1beta1",
            "kind": "Device",
            "metadata": {"name": self.name},
            "status": status,
        }
        return await connection.send("PUT", f"/devices/{self.name}/status", json=body)

    def renewal_body(self, key: ec.EllipticCurvePrivateKey | None = None, **spec: Any) -> Json:
        pem = signing_request(key or self.key, f"device:{self.name}")
        return {
            "apiVersion": "v1beta1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": f"{self.name}-0123abcd"},
            "spec": {
                "request": base64.b64encode(pem.encode()).decode(),
                "signerName": RENEWAL,
                "usages": ["clientAuth", "CA:false"],
            }
            | spec,
        }


def version_of(device: Json) -> str:
    return str(device["metadata"]["annotations"][RENDERED_VERSION])
