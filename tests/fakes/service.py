"""A flightctl service for one device, written from the contract: TLS 1.3, client certificates, the
six agent endpoints, and a person who approves when told to. Real sockets on loopback.

Faults: `script(path, answers)` makes the next requests to a path fail as told.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.fakes.tls_listener import Listener, serving

Json = dict[str, Any]

ENROLLMENT_CN = "client-enrollment-factory"
CUT = 0
SERVICE_SIGNER = "flightctl.io/device-svc-client"
VERSION = "device-controller/renderedVersion"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """A certificate authority that signs what it is given."""

    def __init__(self, common: str = "fake-ca") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _name(common)
        self.certificate = self._signed(
            self.subject, self.key.public_key(), timedelta(days=10), is_ca=True
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def pair(
        self,
        common: str,
        *,
        lifetime: timedelta = timedelta(days=1),
        names: tuple[str, ...] = ("localhost",),
    ) -> tuple[bytes, bytes]:
        """(certificate, key), PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._signed(_name(common), key.public_key(), lifetime, names=names)
        return signed.public_bytes(serialization.Encoding.PEM), _key_pem(key)

    def sign(
        self,
        csr_pem: bytes,
        common: str,
        *,
        lifetime: timedelta = timedelta(days=365),
        start: datetime | None = None,
    ) -> bytes:
        request = x509.load_pem_x509_csr(csr_pem)
        assert request.is_signature_valid
        signed = self._signed(_name(common), request.public_key(), lifetime, start=start)
        return signed.public_bytes(serialization.Encoding.PEM)

    def _signed(
        self,
        subject: x509.Name,
        public: Any,
        lifetime: timedelta,
        *,
        is_ca: bool = False,
        start: datetime | None = None,
        names: tuple[str, ...] = ("localhost",),
    ) -> x509.Certificate:
        begin = start or datetime.now(UTC) - timedelta(minutes=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + lifetime)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if not is_ca:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
            ).add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
                ),
                critical=False,
            )
        return builder.sign(self.key, hashes.SHA256())


@dataclass
class Seen:
    method: str
    path: str
    peer: str
    headers: dict[str, str]
    body: Any
    query: dict[str, list[str]]
    at: float = field(default_factory=time.monotonic)


@dataclass
class Service:
    """`with running(tmp_path) as service`; state is plain and may be changed by the test."""

    authority: Authority
    port: int = 0
    requests: list[Seen] = field(default_factory=list)
    enrollments: dict[str, Json] = field(default_factory=dict)
    csrs: dict[str, Json] = field(default_factory=dict)
    devices: dict[str, Json] = field(default_factory=dict)
    statuses: list[Json] = field(default_factory=list)
    scripts: dict[str, deque[tuple[int, Json | str, dict[str, str]]]] = field(default_factory=dict)
    hold_s: float = 0.5
    lifetime: timedelta = timedelta(days=365)
    signs_at_once: bool = True
    # What it says of its authorities with each certificate: ours does, flightctl's does not.
    bundle: bytes = b""
    # What a proxy does that finds a held poll idle: called, and then there is no answer.
    on_idle: Callable[[], None] | None = None
    # Closes each connection after an answer, without having said so: as a restart looks.
    hangs_up: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def script(
        self, path: str, status: int, body: Json | str = "", headers: dict[str, str] | None = None
    ) -> None:
        self.scripts.setdefault(path, deque()).append((status, body, headers or {}))

    def approve(self, name: str, *, start: datetime | None = None) -> None:
        request = self.enrollments[name]
        pem = self.authority.sign(
            request["spec"]["csr"].encode(), f"device:{name}", lifetime=self.lifetime, start=start
        )
        with self.changed:
            request["status"] = {
                "conditions": [{"type": "Approved", "status": "True"}],
                "certificate": pem.decode(),
            }
            self.render(name, 1)

    def render(self, name: str, version: int, spec: Json | None = None) -> None:
        with self.changed:
            self.devices[name] = {
                "apiVersion": "flightctl.io/v1beta1",
                "kind": "Device",
                "metadata": {"name": name, "annotations": {VERSION: str(version)}},
                "spec": spec or {"applications": [], "config": [], "consoles": []},
            }
            self.changed.notify_all()

    def seen(self, method: str, part: str) -> list[Seen]:
        return [r for r in self.requests if r.method == method and part in r.path]


def not_found(name: str) -> Json:
    return {"kind": "Status", "code": 404, "message": f'Device of name "{name}" not found'}


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_PUT(self) -> None:
            self._serve("PUT")

        def _serve(self, method: str) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            subject = self.connection.getpeercert()["subject"]  # type: ignore[attr-defined]
            peer = dict(pair[0] for pair in subject)["commonName"]
            path = parts.path.removeprefix("/api/v1")
            seen = Seen(method, path, peer, dict(self.headers), body, parse_qs(parts.query))
            service.requests.append(seen)
            self.close_connection = self.close_connection or service.hangs_up
            scripted = service.scripts.get(path)
            if scripted:
                status, answer, headers = scripted.popleft()
                return self._answer(status, answer, headers)
            status, answer = self._routed(seen)
            if status == CUT:
                self.close_connection = True
                return None
            return self._answer(status, answer, {})

        def _routed(self, seen: Seen) -> tuple[int, Json | None]:
            words = seen.path.strip("/").split("/")
            is_enrollment = seen.peer == ENROLLMENT_CN
            match seen.method, words:
                case "POST", ["enrollmentrequests"]:
                    name = seen.body["metadata"]["name"]
                    if not is_enrollment:
                        return 401, {"message": "wrong signer"}
                    if name in service.enrollments:
                        return 409, {"message": "a resource with this name already exists"}
                    service.enrollments[name] = {**seen.body, "status": {"conditions": []}}
                    return 201, service.enrollments[name]
                case "GET", ["enrollmentrequests", name]:
                    if not is_enrollment:
                        return 401, {"message": "wrong signer"}
                    if name not in service.enrollments:
                        return 404, {"message": "EnrollmentRequest not found"}
                    return 200, service.enrollments[name]
                case _ if is_enrollment:
                    return 401, {"message": "wrong signer"}
                case "GET", ["devices", name, "rendered"]:
                    return self._rendered(name, seen.query.get("knownRenderedVersion", [""])[0])
                case "PUT", ["devices", name, "status"]:
                    service.statuses.append(seen.body)
                    return 200, seen.body
                case "POST", ["certificatesigningrequests"]:
                    return self._signed(seen.body, seen.peer)
                case "GET", ["certificatesigningrequests", name]:
                    return 200, service.csrs[name]
            return 404, {"message": "no such path"}

        def _rendered(self, name: str, known: str) -> tuple[int, Json | None]:
            deadline = time.monotonic() + service.hold_s
            with service.changed:
                while True:
                    if name not in service.devices:
                        return 404, not_found(name)
                    device = service.devices[name]
                    left_s = deadline - time.monotonic()
                    if device["metadata"]["annotations"][VERSION] != known:
                        return 200, device
                    if left_s <= 0 and service.on_idle is not None:
                        service.on_idle()
                        return CUT, None
                    if left_s <= 0:
                        return 204, None
                    service.changed.wait(left_s)

        def _signed(self, body: Json, peer: str) -> tuple[int, Json]:
            status: Json = {"conditions": []}
            service.csrs[body["metadata"]["name"]] = document = {**body, "status": status}
            if service.signs_at_once:
                csr = base64.b64decode(body["spec"]["request"])
                common = x509.load_pem_x509_csr(csr).subject
                name = common.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
                is_further = body["spec"]["signerName"] == SERVICE_SIGNER
                if not (
                    name.endswith(f"-{peer.removeprefix('device:')}")
                    if is_further
                    else name == peer
                ):
                    return 400, {"message": "the common name must be that of the certificate"}
                pem = service.authority.sign(csr, name, lifetime=service.lifetime)
                status["conditions"] = [{"type": "Approved", "status": "True"}]
                status["certificate"] = base64.b64encode(pem).decode()
                if service.bundle:
                    status["caBundle"] = base64.b64encode(service.bundle).decode()
            return 201, document

        def _answer(self, status: int, body: Json | str | None, headers: dict[str, str]) -> None:
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            if status == 204 or body is None:
                raw = b""
            with contextlib.suppress(OSError):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if raw or status != 204:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

    return Handler


@contextlib.contextmanager
def running(
    folder: Path, authority: Authority | None = None, *, server: tuple[bytes, bytes] | None = None
) -> Iterator[Service]:
    service = Service(authority or Authority())
    certificate, key = server or service.authority.pair("localhost")
    pem = folder / "server.pem"
    pem.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pem)
    context.load_verify_locations(cadata=service.authority.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    listener = Listener(context, _handler(service))
    service.port = listener.port
    with serving(listener):
        yield service
