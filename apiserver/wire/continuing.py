"""Continue tokens: where the next page of a list begins.

A token carries the first page's version, the key of the last object given out, and a fingerprint of
what was asked (kind, namespace, selectors). It is checked, not signed: it grants nothing, for each
page is authorised like the first, and a forged key only moves the caller within a list that they
may read whole. What the check refuses is a token that was cut, mangled or meant for another list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from apiserver.errors import BadRequest

_LENGTH_MAX = 4096
_CHECK_BYTES = 9


@dataclass(frozen=True, slots=True)
class Position:
    """The version that all pages carry, and the last (namespace, name) of the page before."""

    version: int
    after: tuple[str, str]


def scope_of(*parts: str) -> str:
    """A fingerprint of what a list selects; parts may hold any text."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def write(position: Position, scope: str) -> str:
    payload = json.dumps([position.version, *position.after], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_check(payload, scope) + payload).decode().rstrip("=")


def read(token: str, scope: str) -> Position:
    """The position in a token of ours for the same list. Raises BadRequest."""
    try:
        if len(token) > _LENGTH_MAX:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check(payload, scope):
            raise ValueError("it belongs to another list, or was changed")
        return _position(json.loads(payload))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error


def _position(said: Any) -> Position:
    """Raises ValueError for what `write` never writes: who knows how the check is made can put
    anything behind one."""
    if not isinstance(said, list) or [type(part) for part in said] != [int, str, str]:
        raise ValueError("it is none of ours")
    version, namespace, name = said
    text = f"{namespace}{name}".encode()  # a lone surrogate is a ValueError here
    if not 0 <= version < 2**63 or b"\0" in text:
        raise ValueError("it is none of ours")
    return Position(version, (namespace, name))


def _check(payload: bytes, scope: str) -> bytes:
    return hashlib.sha256(scope.encode() + b"\0" + payload).digest()[:_CHECK_BYTES]
