"""A signer that speaks our own HTTP contract: docs/reference/http-signer.md.

One call does it all: it makes the order, and made again it tells what became of it. The uid of the
request goes along as its idempotency key, so that a crash between the answer and our storing it
costs a call and no second certificate.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization

from apiserver.pki import extensions
from apiserver.pki.calling import Line, NotReached, Reply
from apiserver.pki.orders import (
    Answer,
    Declined,
    Issued,
    Order,
    Pending,
    Unavailable,
    Unusable,
)
from apiserver.pki.signers import SERVER_SVC
from resources.kind import Json

# Of these nothing is known about the order: the address is wrong, or a proxy speaks.
NOT_ABOUT_THE_ORDER = frozenset({404, 405, 406, 407, 408, 411, 414, 415, 417, 421, 425, 426, 431})


class HttpSigner:
    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def title(self) -> str:
        return self._line.settings.url

    async def ask(self, order: Order) -> Answer:
        try:
            reply = await self._line.call(
                "POST", self._line.settings.url, body_of(order), {"Idempotency-Key": order.uid}
            )
        except NotReached as error:
            return Unavailable(str(error))
        return answer_of(reply)

    async def forget(self, order: Order) -> None:
        """Refusals are not remembered under the key, by contract: there is nothing to say."""


def body_of(order: Order) -> Json:
    """What is posted."""
    granted = order.granted
    usages = ["clientAuth", "serverAuth"] if granted.signer == SERVER_SVC else ["clientAuth"]
    wanted = (
        (extensions.SIGNER, granted.signer),
        (extensions.ORGANIZATION, str(granted.organization) if granted.organization else ""),
        (extensions.FINGERPRINT, granted.fingerprint or ""),
    )
    return {
        "uid": order.uid,
        "signerName": granted.signer,
        "request": order.request.csr.public_bytes(serialization.Encoding.PEM).decode(),
        "commonName": granted.common_name,
        "expirationSeconds": int(granted.lifetime.total_seconds()),
        "usages": usages,
        "extensions": [
            {"oid": oid.dotted_string, "value": text, "der": extensions.encode(text).hex()}
            for oid, text in wanted
            if text
        ],
        "requester": {
            "username": order.requester,
            "kind": order.kind,
            "namespace": order.namespace,
            "name": order.name,
        },
    }


def answer_of(reply: Reply) -> Answer:
    """What a reply means. Pure."""
    if (trouble := reply.trouble()) is not None:
        return trouble
    match reply.status:
        case 200:
            chain = (reply.document or {}).get("certificate")
            if not isinstance(chain, str) or not chain.isascii():
                return Unusable("it answers 200 without a certificate in PEM")
            return Issued(chain.encode("ascii"))
        case 202:
            return Pending(reply.message or "it has not decided yet", reply.retry_after_s)
        case status if 400 <= status < 500 and status not in NOT_ABOUT_THE_ORDER:
            if not reply.message:
                return Unusable(f"it answers {status} without saying why")
            return Declined(reply.message)
        case status:
            said = f": {reply.message}" if reply.message else ""
            return Unavailable(f"it answers {status}{said}; look at its address")
