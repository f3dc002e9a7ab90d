"""A small real signer that follows docs/reference/http-signer.md: TLS, a token, a key of its own.

Written from the page alone. `mode` says how it behaves from now on; what it signed it remembers by
idempotency key, as the page demands, and `signed` counts what it really signed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.fakes.service import Authority

Json = dict[str, Any]

USAGES = {
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
}
TOKEN = "only-homeport-knows-this"
ISSUE, SLOW, REFUSE, DOWN, GARBAGE, WRONG_KEY, BARE, EXPIRED, FORBID, HOLD = (
    "issue", "slow", "refuse", "down", "garbage", "wrong-key", "bare", "expired", "forbid", "hold"
)  # fmt: skip


@dataclass
class HttpSigner:
    directory: Path
    authority: Authority = field(default_factory=lambda: Authority("outside-ca"))
    mode: str = ISSUE
    seen: list[Json] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    # Who asked: a client keeps its connection.
    lines: list[Any] = field(default_factory=list)
    url: str = ""
    retry_after: str = "1"
    held: asyncio.Event = field(default_factory=asyncio.Event)
    _known: dict[str, str] = field(default_factory=dict)

    def configuration(self, **more: Any) -> Json:
        """What a file of signers says of it."""
        (self.directory / "outside-ca.pem").write_bytes(self.authority.pem)
        (self.directory / "token").write_text(TOKEN + "\n")
        return {
            "type": "http",
            "url": self.url,
            "trustFile": str(self.directory / "outside-ca.pem"),
            "caFile": str(self.directory / "outside-ca.pem"),
            "tokenFile": str(self.directory / "token"),
            "timeoutSeconds": 2,
        } | more

    def forget(self) -> None:
        """As one does who was repaired."""
        self._known.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "who are you?"}, status=401)
        order = await request.json()
        key = request.headers["Idempotency-Key"]
        assert key == order["uid"]
        self.seen.append(order)
        assert request.transport is not None
        self.lines.append(request.transport.get_extra_info("peername"))
        match self.mode:
            case "down":
                return web.Response(status=503, headers={"Retry-After": self.retry_after})
            case "forbid":
                return web.json_response({"message": "token revoked"}, status=403)
            case "slow":
                body = {"message": "a person looks at it"}
                headers = {"Retry-After": self.retry_after}
                return web.json_response(body, status=202, headers=headers)
            case "refuse":
                body = {"message": "not one of our machines"}
                return web.json_response(body, status=422)
            case "garbage":
                return web.json_response({"certificate": "-----BEGIN HOPE-----"})
        if key not in self._known:
            self.signed.append(key)
            self._known[key] = self.sign(order)
        if self.mode == HOLD:
            self.held.set()
            await asyncio.sleep(60)
        return web.json_response({"certificate": self._known[key]})

    def sign(self, order: Json) -> str:
        csr = x509.load_pem_x509_csr(order["request"].encode())
        assert csr.is_signature_valid
        key: Any = csr.public_key()
        if self.mode == WRONG_KEY:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        begin = datetime.now(UTC) - timedelta(seconds=1)
        life = timedelta(seconds=order["expirationSeconds"])
        if self.mode == EXPIRED:
            begin, life = begin - timedelta(days=2), timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            # X.509 stops at 64 characters and a device's name in hex does not.
            .subject_name(
                x509.Name(
                    [x509.NameAttribute(NameOID.COMMON_NAME, order["commonName"], _validate=False)]
                )
            )
            .issuer_name(self.authority.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [USAGES[name] for name in order.get("usages", ["clientAuth"])]
                ),
                critical=False,
            )
        )
        for extension in csr.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, critical=False)
        for wanted in [] if self.mode == BARE else order["extensions"]:
            value = x509.UnrecognizedExtension(
                x509.ObjectIdentifier(wanted["oid"]), bytes.fromhex(wanted["der"])
            )
            builder = builder.add_extension(value, critical=False)
        signed = builder.sign(self.authority.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


@asynccontextmanager
async def running(directory: Path, port: int = 0) -> AsyncIterator[HttpSigner]:
    """It listens until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    signer = HttpSigner(directory)
    async with listening(signer, port):
        yield signer


@asynccontextmanager
async def listening(signer: HttpSigner, port: int = 0) -> AsyncIterator[int]:
    certificate, key = signer.authority.pair("localhost")
    pem = signer.directory / "signer-server.pem"
    pem.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    app = web.Application()
    app.router.add_post("/sign", signer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        bound: int = runner.addresses[0][1]
        signer.url = f"https://localhost:{bound}/sign"
        yield bound
    finally:
        await runner.cleanup()
