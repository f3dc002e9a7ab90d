"""A real service as a process, and everybody who may be wrong about it: an administrator, somebody
with a token, a factory, a device; with something in the store that must not move or leak."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cli import kubeconfig
from tests.fakes import agent_client, apiserver_process, bare_http, issuer, sql
from tests.fakes.agent_client import Agent
from tests.fakes.apiserver_process import Process
from tests.fakes.bare_http import Door

Json = dict[str, Any]

FLIGHTCTL = "/apis/flightctl.io/v1beta1"
PLACE = f"{FLIGHTCTL}/namespaces/default"
REVOCATIONS = "/apis/homeport.dev/v1alpha1/namespaces/default/certificaterevocations"
# Secrets of the service, which no refusal may tell.
CLIENT_SECRET, PASSWORD = "only-the-service-knows-this", "of-the-repository-alone"
# A serial number that is revoked before anybody shows it.
REVOKED = 0xBAD
NAMES = ("one", "three", "two")


@dataclass(slots=True)
class Rig:
    """`admin`, `anybody`: the users' face with the administrator's certificate and with none;
    `factory`, `device`: the agents' face."""

    server: Process
    issuer: issuer.Issuer
    folder: Path
    signer: x509.Certificate
    signer_key: ec.EllipticCurvePrivateKey
    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    admin: Door = field(init=False)
    anybody: Door = field(init=False)
    factory: Door = field(init=False)
    device: Door = field(init=False)
    agent: Agent = field(init=False)
    page: str = ""
    _made: int = 0

    def __post_init__(self) -> None:
        self.admin = self.users(kubeconfig.load(self.server.kubeconfig).context)
        self.anybody = self.users(self._trusting())
        config = yaml.safe_load((self.server.data / "enrollment" / "config.yaml").read_text())
        shown = config["enrollment-service"]["authentication"]
        pems = [agent_client.base64.b64decode(shown[f"client-{part}-data"])
                for part in ("certificate", "key")]  # fmt: skip
        self.factory = self.agents(self.showing(b"".join(pems)))
        self.agent = Agent(self.server.agent_url, self._trust, self.folder)

    @property
    def _trust(self) -> bytes:
        return (self.server.data / "pki" / "ca.crt").read_bytes()

    def _trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self._trust.decode())

    def showing(self, pem: bytes) -> ssl.SSLContext:
        """TLS with this certificate and its key."""
        self._made += 1
        file = self.folder / f"shown-{self._made}.pem"
        file.write_bytes(pem)
        made = self._trusting()
        # Weak keys are the server's to refuse.
        made.set_ciphers("DEFAULT:@SECLEVEL=0")
        made.load_cert_chain(file)
        return made

    def users(self, tls: ssl.SSLContext | None) -> Door:
        after = bare_http.request("GET", "/livez")
        return Door(_address(self.server.url), tls, after, 200)

    def agents(self, tls: ssl.SSLContext | None) -> Door:
        after = bare_http.request("GET", "/nothing-is-here")
        return Door(_address(self.server.agent_url), tls, after, 404)

    def must(self, method: str, target: str, body: Json) -> Json:
        """What an administrator does, which must succeed."""
        raw = json.dumps(body).encode()
        headers = [("Content-Type", "application/json")]
        answer = bare_http.ask(self.admin, bare_http.request(method, target, headers, raw))
        assert answer is not None
        assert answer.code < 300, answer
        found: Json = json.loads(answer.body)
        return found

    def secrets(self) -> tuple[str, ...]:
        key = agent_client.key_pem(self.agent.key).decode().splitlines()[1]
        return CLIENT_SECRET, PASSWORD, key


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def _pair(folder: Path, stem: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = load_pem_private_key((folder / f"{stem}.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate((folder / f"{stem}.crt").read_bytes()), key


@contextmanager
def running(folder: Path, database: str) -> Iterator[Rig]:
    """The service with all that is said above, until the end of the block."""
    with (
        issuer.running() as tokens,
        apiserver_process.running(folder / "data", database=database) as server,
    ):
        pki = server.data / "pki"
        rig = Rig(server, tokens, folder, *_pair(pki, "client-signer"), *_pair(pki, "ca"))
        _fill(rig)
        asyncio.run(_enrol(rig))
        yield rig


def _document(kind: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "flightctl.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}


def _fill(rig: Rig) -> None:
    spec = {"type": "http", "url": "https://example.com/x",
            "httpConfig": {"username": "ada", "password": PASSWORD}}  # fmt: skip
    rig.must("POST", f"{PLACE}/repositories", _document("Repository", "files", spec))
    provider = {
        "providerType": "oidc",
        "issuer": rig.issuer.url,
        "clientId": issuer.CLIENT,
        "clientSecret": CLIENT_SECRET,
        "organizationAssignment": {"type": "static", "organizationName": "default"},
        "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
    }
    rig.must("POST", f"{PLACE}/authproviders", _document("AuthProvider", "tokens", provider))
    for name in NAMES:
        rig.must("POST", f"{PLACE}/fleets", _document("Fleet", name, {"template": {"spec": {}}}))
    revoked = {"apiVersion": "homeport.dev/v1alpha1", "kind": "CertificateRevocation",
               "metadata": {"name": "lost"}, "spec": {"serial": f"{REVOKED:X}"}}  # fmt: skip
    rig.must("POST", REVOCATIONS, revoked)
    raw = bare_http.request("GET", f"{PLACE}/fleets?limit=1")
    answer = bare_http.ask(rig.admin, raw)
    assert answer is not None
    rig.page = json.loads(answer.body)["metadata"]["continue"]


async def _enrol(rig: Rig) -> None:
    """The device is one of ours, and has been heard of."""
    agent = rig.agent
    config = rig.server.data / "enrollment" / "config.yaml"
    assert config.exists()
    factory = agent_client.Connection(rig.server.agent_url, rig._trust, rig.folder / "shown-1.pem")
    async with factory:
        assert (await agent.enrol(factory)).code == 201
        # Another one waits for ever.
        assert (await Agent(agent.url, agent.ca_pem, rig.folder).enrol(factory)).code == 201
        path = f"{PLACE}/enrollmentrequests/{agent.name}/approval"
        await asyncio.to_thread(rig.must, "PUT", path, {"approved": True, "labels": {}})
        certificate = await agent.wait_for_certificate(factory)
    async with agent.connection(certificate) as managed:
        polled = await agent.poll(managed)
        version = agent_client.version_of(polled.json)
        reported = await agent.report(managed, agent_client.device_status(version))
        assert reported.code == 200, reported
    pem = certificate.encode() + agent_client.key_pem(agent.key)
    rig.device = rig.agents(rig.showing(pem))


Count = tuple[int, ...]


def counted(look: sql.Look) -> Count:
    """The store's version, and how many rows of each sort there are."""
    tables = ("object", "device", "content")
    numbers = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    return tuple(look(f"SELECT version, {numbers} FROM store_meta")[0])
