"""From what a request proves to who is calling: authenticators asked one after the other.

The invariant: no proof, no caller. An authenticator answers None for what is not its business and
raises Unauthorized for a proof of its sort that does not hold; it never guesses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from apiserver.auth.identity import Caller


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the transport and the headers bring: the peer's certificate (DER), whose chain the TLS
    layer has checked, and the Authorization header as it came."""

    certificate: bytes | None = None
    authorization: str = ""


Authenticator = Callable[[Evidence], Awaitable[Caller | None]]


def first_of(*authenticators: Authenticator) -> Authenticator:
    """Asks in order; the first who knows the caller decides."""

    async def authenticate(evidence: Evidence) -> Caller | None:
        for authenticator in authenticators:
            caller = await authenticator(evidence)
            if caller is not None:
                return caller
        return None

    return authenticate


def always(caller: Caller) -> Authenticator:
    """For a listener that only one caller can reach: the socket in a directory of ours."""

    async def authenticate(evidence: Evidence) -> Caller | None:
        return caller

    return authenticate
