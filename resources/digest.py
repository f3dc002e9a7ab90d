"""Canonical JSON and content digests; standard library only, for the agent uses it too.

The invariant: two documents have one digest exactly if they are equal as JSON. Keys are sorted,
no blanks, no NaN, text as UTF-8; integers and floats stay apart, as in the documents themselves.

What holds a secret has a keyed digest instead: a plain one would let whoever sees it test guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

PREFIX = "sha256:"
KEYED_PREFIX = "hmac-sha256:"


def canonical(document: Any) -> bytes:
    """The canonical JSON of `document`. Raises ValueError for NaN and infinities."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def of(document: Any) -> str:
    """`sha256:<64 hex>` of the canonical JSON of `document`."""
    return of_bytes(canonical(document))


def of_bytes(blob: bytes) -> str:
    """`sha256:<64 hex>` of bytes as they are."""
    return PREFIX + hashlib.sha256(blob).hexdigest()


def keyed(key: bytes, blob: bytes) -> str:
    """`hmac-sha256:<64 hex>` of bytes that are a secret."""
    return KEYED_PREFIX + hmac.new(key, blob, hashlib.sha256).hexdigest()
