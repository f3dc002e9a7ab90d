"""What a signer is asked for, and all that it may answer. Pure.

An order is the same however often it is made: it is named by the uid of its request, so that a
signer that was asked before a crash can tell that it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from apiserver.pki.requests import SigningRequest
from apiserver.pki.signers import Grant


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate that was approved. `uid` is its request's; `requester` is who is named to the
    signer as having wanted it."""

    uid: str
    kind: str
    namespace: str
    name: str
    request: SigningRequest
    granted: Grant
    requester: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM, with whatever else came along; nothing of it is checked yet."""

    pem: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """The signer has the order and has not decided. `after_s`: when it wants to be asked again, 0
    if it does not say."""

    why: str
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Declined:
    """The signer will not sign this. For good: nobody asks again without a person."""

    message: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """It answered, but not what it should. Others' orders may fare better."""

    why: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """It can't be asked: down, slow, or not letting us in. So it is with every order."""

    why: str
    after_s: float = 0.0


Answer = Issued | Pending | Declined | Unusable | Unavailable


class Signer(Protocol):
    """Who signs outside of this process."""

    @property
    def title(self) -> str:
        """What people call it in messages."""

    async def ask(self, order: Order) -> Answer:
        """Make the order, or look what became of it. Does not raise; ends in bounded time."""

    async def forget(self, order: Order) -> None:
        """The refusal was stored: the next time this order is a new one. Does not raise."""
