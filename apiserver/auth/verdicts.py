"""What identity providers say of tokens that only they can read, remembered for seconds.

The invariants: no token is kept, only its digest; what was said of it holds for GOOD_S at most, and
never longer than the token; a changed AuthProvider is asked anew; a token is asked about once at a
time, however many requests bring it; and a provider that is slow or down costs its own users time,
and nobody else:

- whoever waits, waits for their own token, with a limit;
- tokens that were never good wait in a line of their own, so that invented ones are no lever
  against those who are known;
- a provider that does not answer is left alone for REST_S, in which it is said to be down at once.

Both memories are bounded, and apart: a flood of invented tokens pushes out no good one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson
import structlog

from apiserver.auth import oidc
from apiserver.auth.asking import OddAnswer, ProviderUnreachable
from apiserver.auth.claims import Claims, Provider
from apiserver.errors import ServiceUnavailable, Unauthorized
from resources.kind import Json

log = structlog.get_logger(__name__)

# As long as the reference keeps the verdicts of clusters; who is turned away may come again sooner.
GOOD_S, BAD_S = 5.0, 2.0
# Claims of all that are remembered, and the number of those that are not taken.
GOOD_BYTES_MAX, BAD_MAX = 16 << 20, 10_000
# Of one user. A thousand groups take half of it.
CLAIMS_BYTES_MAX = 64 << 10
PATIENCE_S = 10.0
REST_S = 5.0
STRANGERS_MAX = 16
PROVIDERS_MAX = 1_000

Key = tuple[str, str, bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """A token is good: what is said of its owner, and for how long at most."""

    claims: Claims
    lasts_s: float = GOOD_S


# Raises Unauthorized for a token that is not good, ProviderUnreachable while that can't be known.
Ask = Callable[[Provider, str], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """`said`: the claims as JSON, or why the token was refused. `spec` is what was asked by."""

    said: bytes
    spec: Json
    until: float


@dataclass(slots=True)
class _Door:
    """Where those wait who ask one provider."""

    strangers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STRANGERS_MAX))
    closed_until: float = 0.0


@dataclass(slots=True)
class Verdicts:
    """Of all providers of a process."""

    ask: Ask
    monotonic: Callable[[], float] = time.monotonic
    patience_s: float = PATIENCE_S
    good_bytes_max: int = GOOD_BYTES_MAX
    bad_max: int = BAD_MAX
    _good: OrderedDict[Key, _Kept] = field(default_factory=OrderedDict)
    _good_bytes: int = 0
    _bad: OrderedDict[Key, _Kept] = field(default_factory=OrderedDict)
    _under_way: dict[Key, asyncio.Future[None]] = field(default_factory=dict)
    _doors: dict[tuple[str, str], _Door] = field(default_factory=dict)

    async def of(self, provider: Provider, token: str) -> Claims:
        """What is said of the owner. Raises Unauthorized, ServiceUnavailable."""
        key = (provider.home, provider.name, hashlib.sha256(token.encode()).digest())
        while True:
            if kept := self._fresh(self._good, key, provider):
                claims: Claims = orjson.loads(kept.said)
                return claims
            if kept := self._fresh(self._bad, key, provider):
                raise Unauthorized(kept.said.decode())
            asking = self._under_way.get(key)
            if asking is None:
                return await self._find_out(key, provider, token)
            # Whatever becomes of it, and of who began it, we look again.
            await asyncio.wait([asking])

    async def _find_out(self, key: Key, provider: Provider, token: str) -> Claims:
        door = self._door(provider)
        if self.monotonic() < door.closed_until:
            raise _down(provider)
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self._asked(door, key, provider, token)
        except Unauthorized as refusal:
            self._keep_bad(key, _Kept(str(refusal).encode(), provider.spec, self._in(BAD_S)))
            raise
        except ProviderUnreachable as problem:
            log.warning("identity provider out of reach", provider=provider.name, why=str(problem))
            is_odd = isinstance(problem, OddAnswer)
            if not is_odd:
                door.closed_until = self._in(REST_S)
            raise _down(provider, is_odd=is_odd) from problem
        finally:
            del self._under_way[key]
            done.set_result(None)
        lasts_s = min(found.lasts_s, GOOD_S)
        said = orjson.dumps(found.claims)
        self._keep_good(key, _Kept(said, provider.spec, self._in(lasts_s)))
        return found.claims

    async def _asked(self, door: _Door, key: Key, provider: Provider, token: str) -> Found:
        if key in self._good:
            return await self._patiently(provider, token)
        try:
            async with asyncio.timeout(self.patience_s):
                await door.strangers.acquire()
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"too many unknown tokens are waiting for identity provider {provider.name}",
                retry_after_s=oidc.RETRY_S,
            ) from error
        try:
            return await self._patiently(provider, token)
        finally:
            door.strangers.release()

    async def _patiently(self, provider: Provider, token: str) -> Found:
        try:
            async with asyncio.timeout(self.patience_s):
                return await self.ask(provider, token)
        except TimeoutError as error:
            raise ProviderUnreachable(f"no answer in {self.patience_s:g} s") from error

    def _in(self, seconds: float) -> float:
        return self.monotonic() + seconds

    def _fresh(self, memory: OrderedDict[Key, _Kept], key: Key, provider: Provider) -> _Kept | None:
        kept = memory.get(key)
        if kept is None or self.monotonic() >= kept.until or kept.spec != provider.spec:
            return None
        memory.move_to_end(key)
        return kept

    def _keep_good(self, key: Key, kept: _Kept) -> None:
        self._forget_good(key)
        self._good[key] = kept
        self._good_bytes += len(kept.said)
        while self._good_bytes > self.good_bytes_max:
            self._forget_good(next(iter(self._good)))

    def _forget_good(self, key: Key) -> None:
        if was := self._good.pop(key, None):
            self._good_bytes -= len(was.said)

    def _keep_bad(self, key: Key, kept: _Kept) -> None:
        self._forget_good(key)
        self._bad[key] = kept
        if len(self._bad) > self.bad_max:
            self._bad.popitem(last=False)

    def _door(self, provider: Provider) -> _Door:
        which = (provider.home, provider.name)
        if which not in self._doors and len(self._doors) >= PROVIDERS_MAX:
            self._doors.clear()
        return self._doors.setdefault(which, _Door())


def _down(provider: Provider, *, is_odd: bool = False) -> ServiceUnavailable:
    why = "does not answer as it should (our log says how)" if is_odd else "can't be reached"
    return ServiceUnavailable(
        f"the identity provider {provider.name} {why}, so its tokens can't be checked; "
        "certificates still work",
        retry_after_s=oidc.RETRY_S,
    )
