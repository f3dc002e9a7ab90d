"""The agent API: seven endpoints and a stream over mutual TLS, and the tasks that serve them.

`create_agent_app` gives the application, `listen` puts it on a socket. What a certificate may do is
decided here, once for each route; handlers get a `Peer` that was let in.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import structlog
from aiohttp import web

from apiserver import tasks
from apiserver.agentapi import answers, grpc, middleware
from apiserver.agentapi.certificates import Certificates
from apiserver.agentapi.challenging import PATH, Challenging
from apiserver.agentapi.deliveries import Deliveries
from apiserver.agentapi.enrolling import Enrolling
from apiserver.agentapi.middleware import Handler, PeerHandler
from apiserver.agentapi.peers import Organizations, Peer, Peers, Shares
from apiserver.agentapi.presence import Presence
from apiserver.agentapi.reporting import Reporting
from apiserver.agentapi.serving import Serving
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.attesting import Attesting
from apiserver.errors import Unauthorized
from apiserver.operations import Operations
from apiserver.pki.authority import Authority, Standing
from apiserver.pki.issuing import Issuing
from apiserver.pki.revocations import Revocations
from apiserver.pki.tpmroots import NO_MAKERS, Roots
from apiserver.rates import Buckets
from apiserver.refusals import Refusals

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for.
_NO_CHECK_TIME = 0x20_0000

Clock = Callable[[], float]
DEFAULTS = AgentApiSettings()
STREAMS = web.AppKey("streams", grpc.Server)

log = structlog.get_logger()


def create_agent_app(
    operations: Operations,
    issuing: Issuing,
    revocations: Revocations,
    settings: AgentApiSettings = DEFAULTS,
    *,
    refusals: Refusals | None = None,
    makers: Roots = NO_MAKERS,
    now: Clock = time.time,
) -> web.Application:
    """The application; its tasks run from its start to its clean-up. It must be gone before the
    store is closed: what was seen last is written at the end. `revocations` are followed by whoever
    made them, for both listeners; `makers` are those of TPMs whose word counts."""
    store = operations.store
    presence = Presence(store, settings, now=now)
    deliveries = Deliveries(store, settings)
    revocations.on_change.append(deliveries.show_out)
    peers = Peers(
        Organizations(store),
        issuing,
        revocations,
        remembered=settings.remembered_certificates,
        now=now,
    )
    shares = Shares()
    doors = _Doors(peers, issuing.authority, shares, settings)
    serving = Serving(
        operations, deliveries, presence, revocations, hold_s=settings.hold_s, now=now
    )
    reporting = Reporting(store, presence, deliveries.tellings)
    enrolling = Enrolling(operations, issuing.authority, makers)
    challenging = Challenging(Attesting(operations, makers), peers, shares, settings, refusals)
    certificates = Certificates(operations, issuing, deliveries, presence)

    app = web.Application(middlewares=[middleware.answer], client_max_size=settings.body_bytes_max)
    app[middleware.REFUSALS] = refusals
    add = app.router.add_route
    base = answers.BASE
    add("POST", f"{base}/enrollmentrequests", doors.enrollment(enrolling.create))
    add("GET", f"{base}/enrollmentrequests/{{name}}", doors.enrollment(enrolling.get))
    add("GET", f"{base}/devices/{{name}}/rendered", doors.own_device(serving.rendered))
    add("PUT", f"{base}/devices/{{name}}/status", doors.own_device(reporting.put))
    add("PATCH", f"{base}/devices/{{name}}/status", doors.own_device(reporting.patch))
    add("POST", f"{base}/certificatesigningrequests", doors.device(certificates.create))
    add("GET", f"{base}/certificatesigningrequests/{{name}}", doors.device(certificates.get))

    streams = app[STREAMS] = grpc.Server({PATH: challenging.challenge})

    async def background(_: web.Application) -> AsyncIterator[None]:
        # None of them ends by itself but when the store closes.
        async with (
            tasks.running(deliveries.follow(), "deliveries"),
            tasks.running(deliveries.serve_polls(), "polls"),
            tasks.running(reporting.write_reports(), "reports"),
            tasks.running(presence.keep_flushing(), "heartbeats"),
            tasks.running(presence.keep_sweeping(), "sweep"),
        ):
            yield
        try:
            await presence.flush()
        except Exception:
            log.warning("last heartbeats could not be written", exc_info=True)

    async def drain(_: web.Application) -> None:
        deliveries.release()
        await streams.close()

    app.cleanup_ctx.append(background)
    app.on_shutdown.append(drain)
    return app


class _Doors:
    """Who may enter which endpoint."""

    def __init__(
        self, peers: Peers, authority: Authority, shares: Shares, settings: AgentApiSettings
    ) -> None:
        self._peers = peers
        self._authority = authority
        self._shares = shares
        self._settings = settings
        self._enrolling = Buckets(settings.requests_per_s_enrollment_certificate)
        self._devices = Buckets(settings.requests_per_s_device)

    def enrollment(self, handler: PeerHandler) -> Handler:
        most = self._settings.requests_per_enrollment_certificate

        async def enter(request: web.Request) -> web.StreamResponse:
            peer = request[middleware.PEER] = await self._peers.enrollment(request)
            middleware.negotiate(request)
            self._enrolling.take(peer.identity.serial, "an enrolment certificate")
            with self._shares.taken(peer.identity.serial, most):
                return await handler(request, peer)

        return enter

    def device(self, handler: PeerHandler) -> Handler:
        most = self._settings.requests_per_device

        async def enter(request: web.Request) -> web.StreamResponse:
            peer = request[middleware.PEER] = await self._peers.device(request)
            middleware.negotiate(request)
            self._devices.take(f"{peer.namespace}/{peer.device}", "a device")
            with self._shares.taken(peer.device, most):
                return self._told(peer, await handler(request, peer))

        return enter

    def own_device(self, handler: PeerHandler) -> Handler:
        most = self._settings.requests_per_device

        async def enter(request: web.Request) -> web.StreamResponse:
            peer = await self._peers.device(request)
            if request.match_info["name"] != peer.device:
                raise Unauthorized("the client certificate is another device's")
            middleware.negotiate(request)
            self._devices.take(f"{peer.namespace}/{peer.device}", "a device")
            with self._shares.taken(peer.device, most):
                return self._told(peer, await handler(request, peer))

        return enter

    def _told(self, peer: Peer, answer: web.StreamResponse) -> web.StreamResponse:
        """With the word that another certificate is due; agents of others pass it over."""
        if self._authority.standing(peer.identity.issuer) is Standing.OLDER:
            within_s = self._authority.signing.renew_within_s
            answer.headers[answers.RENEW_WITHIN_HEADER] = str(within_s)
        return answer


def server_context(certificate: Path, key: Path, client_ca_pem: bytes) -> ssl.SSLContext:
    """TLS 1.2 or newer; a client certificate of the client signer is required, or the handshake
    fails. The signer alone is trusted, not the root above it. Whether a certificate has expired is
    asked at each request (`Peers`), where it can be answered: asyncio ends a handshake that fails
    without the alert that says why, and a device's log would not either."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    # No agent resumes a session, and two tickets with its certificate inside are 2 KB of network.
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    context.load_verify_locations(cadata=client_ca_pem.decode())
    # The first that the client has too: REST clients get HTTP/1.1, gRPC's offer nothing but h2.
    context.set_alpn_protocols(["http/1.1", grpc.ALPN])
    return context


class _Runner(web.AppRunner):
    """Serves HTTP/1.1, and gives connections of HTTP/2 to the application's streams."""

    @property
    def server(self) -> web.Server | None:
        http1 = super().server
        if http1 is None:
            return None
        streams = self.app[STREAMS]
        # What a site asks of it is to make a protocol for each connection.
        return cast("web.Server", lambda: grpc.Switch(streams, http1))


async def listen(
    app: web.Application,
    host: str,
    port: int,
    context: ssl.SSLContext,
    settings: AgentApiSettings = DEFAULTS,
) -> tuple[web.AppRunner, int]:
    """Serve until `runner.cleanup()`. Returns the port too, which the kernel chose for 0."""
    runner = _Runner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=settings.keepalive_s,
        # A poll whose connection died must not sit there for two minutes.
        handler_cancellation=True,
        shutdown_timeout=settings.drain_s,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context, backlog=4096)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    bound: int = runner.addresses[0][1]
    return runner, bound
