"""The composition root of the API server: store, authority, faces, listeners; started and stopped.

The invariant: `serve` either returns a server that serves, or raises and leaves nothing open: no
lock, no socket, no task. `stop` ends in the opposite order: no new connections, open watches and
polls answered, then the store, so that nothing is acknowledged that was not committed.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from apiserver import (
    admitting,
    approvals,
    auditfile,
    auditing,
    certifying,
    credentials,
    housekeeping,
    provisioning,
    resealing,
    signing,
    tasks,
)
from apiserver.agentapi import app as agentapi
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.auth import certificates, chain, claims
from apiserver.auth.exchange import Logins
from apiserver.auth.identity import AUTHENTICATED, CONTROLLER, Caller
from apiserver.auth.tokens import TOKEN_BYTES_MAX, Tokens
from apiserver.builtins import events, namespaces, telling
from apiserver.builtins.kinds import KINDS as BUILTINS
from apiserver.builtins.kinds import LEASE
from apiserver.builtins.view import View
from apiserver.catalogue import Catalogue
from apiserver.config import ConfigError, Settings, url_of
from apiserver.kube import routes
from apiserver.kube.crowding import Gate
from apiserver.kube.face import Face, utc_now
from apiserver.operations import Operations, WriteOptions, Written
from apiserver.pki import validity
from apiserver.pki.authority import Authority
from apiserver.pki.extensions import PeerIdentity, identity_of
from apiserver.pki.issuing import Issuing, issuing_of
from apiserver.pki.presenting import Presenting
from apiserver.pki.revocations import Revocations
from apiserver.pki.rotation import Rotation
from apiserver.pki.tpmroots import NO_MAKERS, Roots
from apiserver.provisioning import Addresses
from apiserver.rates import Buckets
from apiserver.refusals import Refusals
from apiserver.store import Store
from apiserver.storing import DEFAULT_NAMESPACE
from apiserver.trail import Trail
from resources.kind import Json
from resources.registry import AUDIT_EVENT, CERTIFICATE_SIGNING_REQUEST, ENROLLMENT_REQUEST, KINDS

# Together below the 10 s after which a supervisor would kill us.
DRAIN_S = 8.0
CONTROLLERS = Caller(
    name="system:homeport:controllers",
    groups=frozenset({AUTHENTICATED}),
    role=CONTROLLER,
    source="socket",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions that end in a certificate, bound to who signs."""

    operations: Operations
    issuing: Issuing
    addresses: Addresses
    makers: Roots

    async def approve_enrollment(
        self, caller: Caller, namespace: str, name: str, approval: Json
    ) -> Json | None:
        return await approvals.approve_enrollment(
            self.operations, self.issuing, caller, namespace, name, approval
        )

    async def sign_csr(self, caller: Caller, namespace: str, name: str, document: Json) -> Json:
        return await certifying.sign_csr(
            self.operations, self.issuing, caller, namespace, name, document
        )

    async def enrollment_config(self, caller: Caller, namespace: str, name: str) -> Json:
        return await self.operations.store.read(
            lambda snapshot: provisioning.config_of(
                snapshot, self.issuing.authority, self.addresses, namespace, name
            )
        )

    async def create_csr(
        self, caller: Caller, namespace: str, document: Json, options: WriteOptions
    ) -> Written:
        return await certifying.create_csr(
            self.operations, self.issuing, caller, namespace, document, options
        )

    async def create_enrollment(
        self, caller: Caller, namespace: str, document: Json, options: WriteOptions
    ) -> Written:
        return await approvals.create_enrollment(
            self.operations, self.makers, caller, namespace, document, options
        )


def release() -> str:
    return importlib.metadata.version("homeport")


def create_operations(store: Store) -> Operations:
    """The operations over this store, on all that this server keeps."""
    store.announce_by(telling.announce)
    return Operations(store, kinds=(*KINDS, LEASE, events.STORED))


def create_face(
    operations: Operations,
    issuing: Issuing,
    authenticate: chain.Authenticator,
    logins: Logins | None = None,
    addresses: Addresses | None = None,
    refusals: Refusals | None = None,
    makers: Roots = NO_MAKERS,
) -> Face:
    """The Kubernetes face over these operations, for callers that `authenticate` knows. `addresses`
    may be filled in later, when they are known; `makers` are those of TPMs whose word counts."""
    decisions = Decisions(operations, issuing, addresses or Addresses(), makers)
    operations.judge_by(CERTIFICATE_SIGNING_REQUEST, certifying.Requests(operations, issuing))
    operations.judge_by(ENROLLMENT_REQUEST, approvals.Requests(operations, makers))
    return Face(
        operations=operations,
        catalogue=Catalogue((*BUILTINS, *KINDS)),
        authenticate=authenticate,
        logins=logins,
        refusals=refusals,
        approvals=decisions,
        release=release(),
        views={
            turning.shown.resource: View(operations, turning)
            for turning in (namespaces.TURNING, events.TURNING, events.NEWER_TURNING)
        }
        | {AUDIT_EVENT.resource: Trail(operations.store)},
        creators={
            CERTIFICATE_SIGNING_REQUEST.resource: decisions.create_csr,
            ENROLLMENT_REQUEST.resource: decisions.create_enrollment,
        },
    )


def create_user_app(face: Face) -> web.Application:
    """The users' API."""
    return routes.create_app(face)


@dataclass(slots=True)
class Server:
    """A server that serves. `url` and `agent_url` are how it is reached."""

    settings: Settings
    url: str
    agent_url: str
    operations: Operations
    _runners: tuple[web.AppRunner, ...]
    _rest: AsyncExitStack

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stops accepting, lets what runs come to its end for `drain_s`, closes everything."""
        try:
            async with asyncio.timeout(drain_s):
                await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        except TimeoutError:
            log.warning("connections cut", after_s=drain_s)
        await self._rest.aclose()


@dataclass(slots=True)
class Site:
    """What both listeners show and trust, and the files that say how to reach them. All of it
    follows the authority while the server runs."""

    settings: Settings
    issuing: Issuing
    addresses: Addresses = field(default_factory=Addresses)
    users: ssl.SSLContext = field(init=False)
    agents: ssl.SSLContext = field(init=False)
    presenting: Presenting | None = None

    async def open(self) -> None:
        if self.issuing.server is not None:
            self.presenting = Presenting(
                self.settings.data / "pki",
                self.issuing.server,
                self.settings.server_names(),
                utc_now,
                self.put_in_force,
            )
        files = await self._server_files()
        self.users = user_context(*files, self.issuing.authority.client_ca_pem)
        self.agents = agentapi.server_context(*files, self.issuing.client_ca_pem)

    async def put_in_force(self) -> None:
        """For connections to come. What is trusted no more is refused at each request, so nothing
        has to be taken out of a context, which OpenSSL would not allow."""
        files = await self._server_files()
        for context in (self.users, self.agents):
            context.load_verify_locations(cadata=self.issuing.authority.client_ca_pem.decode())
            context.load_cert_chain(*files)
        await self.write_credentials()

    async def write_credentials(self) -> None:
        await asyncio.to_thread(
            credentials.ensure,
            self.settings.data,
            self.issuing.authority,
            self.addresses,
            now=utc_now,
        )

    async def _server_files(self) -> tuple[Path, Path]:
        if self.presenting is not None:
            found = await asyncio.to_thread(self.presenting.files)
            if found is not None:
                return found
        names = self.settings.server_names()
        return await asyncio.to_thread(self.issuing.authority.server_files, "server", names)


async def serve(settings: Settings) -> Server:
    """Start both listeners. Raises ConfigError, StoreLocked, StoreTooNew, StoreUnavailable,
    BadKeys, AuthorityDamaged."""
    async with AsyncExitStack() as stack:
        server = await _start(settings, stack)
        server._rest = stack.pop_all()
        return server


async def _start(settings: Settings, stack: AsyncExitStack) -> Server:
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await Store.open(settings.database, data_dir=settings.data, key_file=settings.keys)
    stack.push_async_callback(store.close)
    authority = await asyncio.to_thread(
        Authority.load_or_create, settings.data / "pki", now=utc_now
    )
    if not await store.share_authority(authority.fingerprint):
        raise ConfigError(
            f"{settings.data / 'pki'} is not the certificate authority whose certificates the "
            "devices of this database have; put the pki directory of the server that was there "
            "first in its place"
        )
    operations = create_operations(store)
    await operations.prepare()
    kept = timedelta(days=settings.audit_days)
    refusals = await _told(settings, store, stack)
    session = await stack.enter_async_context(_outwards())
    issuing = issuing_of(authority, settings.signers, session)
    site = Site(settings, issuing)
    rotation = Rotation(store, authority, utc_now, site.put_in_force, auditing.authority_changed)
    # What other servers made while this one was down is trusted before the first request.
    await rotation.share()
    await site.open()
    waiting = signing.Signing(operations, issuing, now=utc_now, monotonic=time.monotonic)
    for name, work in (
        ("housekeeping", housekeeping.keep_house(operations, utc_now, kept)),
        ("resealing", resealing.keep_sealed(operations)),
        ("signing", waiting.keep()),
        ("enrollment policies", admitting.Admitting(operations, issuing).run()),
    ):
        await stack.enter_async_context(tasks.running(work, name))

    tokens = Tokens(
        store,
        session,
        tuple(claims.provider_of(each, is_ours=True) for each in settings.providers),
    )
    revocations = Revocations(store)
    await stack.enter_async_context(revocations.followed())

    # Users' certificates are all of the first organisation: the server itself gives them out.
    def check(identity: PeerIdentity) -> None:
        validity.check(identity, utc_now().timestamp())
        authority.check(identity.issuer)
        revocations.check(DEFAULT_NAMESPACE, identity)

    by_certificate = certificates.by_certificate(identity_of, check)
    face = create_face(
        operations,
        issuing,
        chain.first_of(by_certificate, tokens.authenticate),
        Logins(tokens),
        site.addresses,
        refusals,
        settings.tpm_makers,
    )
    face = replace(face, gate=_gate(settings))
    user, port = await _listen_users(settings, face, site, stack)
    agents_settings = AgentApiSettings(
        requests_per_s_device=settings.limits.device_requests_per_second
    )
    app = agentapi.create_agent_app(
        operations,
        issuing,
        revocations,
        agents_settings,
        refusals=refusals,
        makers=settings.tpm_makers,
    )
    if settings.metrics_listen is not None:
        await _listen_metrics(settings.metrics_listen, store, stack)
    agents, agent_port = await _listen_agents(settings, app, site, stack)
    runners = [user, agents]
    if settings.controllers_socket is not None:
        trusted = replace(face, authenticate=chain.always(CONTROLLERS))
        runners.append(await _listen_controllers(settings.controllers_socket, trusted, stack))

    url = settings.url or url_of(settings.listen[0], port)
    agent_url = settings.agent_url or url_of(settings.agent_listen[0], agent_port)
    site.addresses.url, site.addresses.agent_url = url, agent_url
    await site.write_credentials()
    await stack.enter_async_context(tasks.running(rotation.keep(), "rotation"))
    if site.presenting is not None:
        await stack.enter_async_context(tasks.running(site.presenting.keep(), "presenting"))
    log.info("server started", url=url, agent_url=agent_url, data=str(settings.data))
    return Server(settings, url, agent_url, operations, tuple(runners), stack)


def _outwards() -> aiohttp.ClientSession:
    # No limit on connections in all: who hangs must not keep others from being asked.
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=32)
    return aiohttp.ClientSession(connector=connector, trust_env=True)


def _gate(settings: Settings) -> Gate:
    limits = settings.limits
    return Gate(
        writes=Buckets(limits.writes_per_second, "writes"),
        lists=Buckets(limits.lists_per_second, "lists and watches"),
    )


async def _told(settings: Settings, store: Store, stack: AsyncExitStack) -> Refusals:
    """The tasks of the audit."""
    refusals = Refusals(store)
    stack.push_async_callback(refusals.flush)
    await stack.enter_async_context(tasks.running(refusals.keep_writing(), "refusals"))
    if settings.audit_log is not None:
        last = await asyncio.to_thread(auditfile.prepare, settings.audit_log)
        following = auditfile.keep_writing(store, settings.audit_log, last)
        await stack.enter_async_context(tasks.running(following, "audit log"))
    return refusals


async def _listen_users(
    settings: Settings, face: Face, site: Site, stack: AsyncExitStack
) -> tuple[web.AppRunner, int]:
    runner = await _runner(create_user_app(face), stack)
    host, port = settings.listen
    with _port_errors("--listen", host, port):
        await web.TCPSite(runner, host, port, ssl_context=site.users, backlog=1024).start()
    bound: int = runner.addresses[0][1]
    return runner, bound


async def _listen_agents(
    settings: Settings, app: web.Application, site: Site, stack: AsyncExitStack
) -> tuple[web.AppRunner, int]:
    host, port = settings.agent_listen
    with _port_errors("--agent-listen", host, port):
        runner, bound = await agentapi.listen(app, host, port, site.agents)
    stack.push_async_callback(runner.cleanup)
    return runner, bound


async def _listen_metrics(place: tuple[str, int], store: Store, stack: AsyncExitStack) -> None:
    # Late: who does not ask for it has no need of its library.
    from apiserver import metrics

    counted = metrics.Metrics()
    counted.follow(store)
    runner = web.AppRunner(metrics.create_app(counted), access_log=None, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    with _port_errors("--metrics-listen", *place):
        await web.TCPSite(runner, *place).start()
    log.info("metrics served", url=f"http://{place[0]}:{runner.addresses[0][1]}{metrics.PATH}")


async def _listen_controllers(path: Path, face: Face, stack: AsyncExitStack) -> web.AppRunner:
    """The socket whose mode is the identity. It is bound before it may be connected to, and gets
    its mode in between, so there is no moment at which a stranger could come in."""
    runner = await _runner(create_user_app(face), stack)
    await web.SockSite(runner, _private_socket(path)).start()
    stack.callback(path.unlink, missing_ok=True)
    return runner


def _private_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


async def _runner(app: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=DRAIN_S - 1,
        # A token that we would read is a header that aiohttp must let through.
        max_field_size=len("Bearer ") + TOKEN_BYTES_MAX,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def user_context(certificate: Path, key: Path, client_ca_pem: bytes) -> ssl.SSLContext:
    """TLS for users: a client certificate is welcome and not demanded, for some bring a token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=client_ca_pem.decode())
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _port_errors(option: str, host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"{option}: port {port} on {host or 'this machine'} is in use; stop what uses it"
            raise ConfigError(f"{why}, or give another") from error
        raise ConfigError(f"{option}: can't listen on {host}:{port}: {error}") from error
