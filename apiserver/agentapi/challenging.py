"""`flightctl.v1.Enrollment/TPMChallenge`: a device shows that its keys are of one TPM.

Four messages on one stream: which request; a credential; the secret that was in it; success, or
what was wrong. What they mean is decided in `attesting`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from apiserver import errors
from apiserver.agentapi.grpc import Call, Code, Refused
from apiserver.agentapi.peers import Peer, Peers, Shares
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.attesting import Attesting, NotNow
from apiserver.wire import protobuf
from apiserver.wire.protobuf import Message
from resources import conditions
from resources.kind import Json

PATH: Final = "/flightctl.v1.Enrollment/TPMChallenge"

_SAID: Message = {1: ("message", "text")}
_QUESTION: Message = {
    1: ("request", {1: ("name", "text")}),
    2: ("response", {1: ("secret", "bytes")}),
}
_ANSWER: Message = {
    1: ("challenge", {1: ("credentialBlob", "bytes"), 2: ("encryptedSecret", "bytes")}),
    2: ("success", _SAID),
    3: ("error", _SAID),
}
_CODES: tuple[tuple[type[errors.StatusError], Code], ...] = (
    (errors.BadRequest, Code.INVALID_ARGUMENT),
    (errors.Unauthorized, Code.UNAUTHENTICATED),
    (errors.Forbidden, Code.PERMISSION_DENIED),
    (errors.NotFound, Code.NOT_FOUND),
    (errors.TooManyRequests, Code.RESOURCE_EXHAUSTED),
    (errors.ServiceUnavailable, Code.UNAVAILABLE),
)

log = structlog.get_logger()


class Challenging:
    def __init__(
        self, attesting: Attesting, peers: Peers, shares: Shares, settings: AgentApiSettings
    ) -> None:
        self._attesting = attesting
        self._peers = peers
        self._shares = shares
        self._settings = settings

    async def challenge(self, call: Call) -> None:
        """Answers one call. Raises Refused."""
        try:
            peer = await self._peers.enrollment_over(call.transport)
            most = self._settings.requests_per_enrollment_certificate
            with self._shares.taken(peer.identity.serial, most):
                async with asyncio.timeout(self._settings.challenge_s):
                    await self._exchange(call, peer)
        except NotNow as error:
            raise Refused(Code.FAILED_PRECONDITION, str(error)) from error
        except TimeoutError as error:
            raise Refused(Code.DEADLINE_EXCEEDED, "the challenge was not answered") from error
        except errors.StatusError as error:
            code = next((c for kind, c in _CODES if isinstance(error, kind)), Code.INTERNAL)
            raise Refused(code, error.message) from error

    async def _exchange(self, call: Call, peer: Peer) -> None:
        asked = await _received(call, "request")
        name = str(asked.get("name") or "")
        challenge = await self._attesting.begin(peer.namespace, name)
        credential = challenge.credential
        _send(
            call,
            "challenge",
            credentialBlob=credential.blob,
            encryptedSecret=credential.encrypted_secret,
        )
        answered = await _received(call, "response")
        secret = answered.get("secret") or b""
        verdict = await self._attesting.conclude(peer.caller, challenge, secret)
        is_verified = verdict.status == conditions.TRUE
        log.info("TPM challenged", name=name, verified=is_verified)
        _send(call, "success" if is_verified else "error", message=verdict.message)
        if not is_verified:
            raise Refused(Code.PERMISSION_DENIED, verdict.message)


async def _received(call: Call, wanted: str) -> Json:
    raw = await call.receive()
    if raw is None:
        raise Refused(Code.CANCELLED, f"the client left before its {wanted}")
    try:
        message = protobuf.decode(_QUESTION, raw)
    except protobuf.Malformed as error:
        raise Refused(Code.INVALID_ARGUMENT, f"not a message: {error}") from error
    found = message.get(wanted)
    if not isinstance(found, dict):
        raise Refused(Code.INVALID_ARGUMENT, f"a {wanted} was expected")
    return found


def _send(call: Call, member: str, **fields: object) -> None:
    call.send(protobuf.encode(_ANSWER, {member: fields}))
