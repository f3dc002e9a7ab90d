"""`flightctl.v1.Enrollment/TPMChallenge`: a device shows that its keys are of one TPM.

Four messages on one stream: which request; a credential; the secret that was in it; success, or
what was wrong. What they mean is decided in `attesting`.

An answer, right or wrong, is in the audit with what came of it; who is refused before that is told
there too. That there is nothing to challenge is what a device hears at every round while it waits,
so it is told once in a while.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import structlog

from apiserver import errors
from apiserver.agentapi.grpc import Call, Code, Refused
from apiserver.agentapi.peers import Peers, Shares
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.attesting import ENROLLMENT_REQUEST, Attesting, NotNow
from apiserver.auditing import Act
from apiserver.auth.identity import Caller, Origin
from apiserver.refusals import Refusals
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

# The same will be asked again, and answered then.
_LATER = (429, 503)

log = structlog.get_logger()


@dataclass(slots=True)
class _Asked:
    """Of whom, and for which request, as far as that is known."""

    caller: Caller
    namespace: str = ""
    name: str = ""


def _origin(call: Call) -> Origin:
    peer = call.transport.get_extra_info("peername")
    return Origin(str(peer[0])) if peer else Origin()


class Challenging:
    def __init__(
        self,
        attesting: Attesting,
        peers: Peers,
        shares: Shares,
        settings: AgentApiSettings,
        refusals: Refusals | None = None,
    ) -> None:
        self._attesting = attesting
        self._peers = peers
        self._shares = shares
        self._settings = settings
        self._refusals = refusals

    async def challenge(self, call: Call) -> None:
        """Answers one call. Raises Refused."""
        asked = _Asked(Caller(name="", role="", origin=_origin(call)))
        try:
            peer = await self._peers.enrollment_over(call.transport)
            asked.caller, asked.namespace = (
                replace(peer.caller, origin=_origin(call)),
                peer.namespace,
            )
            most = self._settings.requests_per_enrollment_certificate
            with self._shares.taken(peer.identity.serial, most):
                async with asyncio.timeout(self._settings.challenge_s):
                    await self._exchange(call, asked)
        except NotNow as error:
            self._tell(asked, 409, "Conflict", is_routine=True)
            raise Refused(Code.FAILED_PRECONDITION, str(error)) from error
        except TimeoutError as error:
            raise Refused(Code.DEADLINE_EXCEEDED, "the challenge was not answered") from error
        except errors.StatusError as error:
            if error.code not in _LATER:
                self._tell(asked, error.code, error.reason)
            code = next((c for kind, c in _CODES if isinstance(error, kind)), Code.INTERNAL)
            raise Refused(code, error.message) from error

    def _tell(self, asked: _Asked, code: int, reason: str, *, is_routine: bool = False) -> None:
        if self._refusals is None:
            return
        place = ENROLLMENT_REQUEST, asked.namespace, asked.name
        about = Act(asked.caller, "update", *place, "challenge").about()
        tell = self._refusals.tell_once if is_routine else self._refusals.tell
        tell(asked.caller, "update", about, code, reason)

    async def _exchange(self, call: Call, asked: _Asked) -> None:
        question = await _received(call, "request")
        name = asked.name = str(question.get("name") or "")
        challenge = await self._attesting.begin(asked.namespace, name)
        credential = challenge.credential
        _send(
            call,
            "challenge",
            credentialBlob=credential.blob,
            encryptedSecret=credential.encrypted_secret,
        )
        answered = await _received(call, "response")
        secret = answered.get("secret") or b""
        verdict = await self._attesting.conclude(asked.caller, challenge, secret)
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
