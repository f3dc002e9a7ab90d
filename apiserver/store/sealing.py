"""Secrets at rest: AES-256-GCM under named keys, of which the first writes and all read.

What is sealed: the fields of objects that are secret (`resources.masking` knows which), contents
that hold a secret (those under a keyed digest), and the key of those digests. A sealed value is
bound to where it stands: who moves it to another object, field or digest has something that can't
be opened. In an object a secret is text, so a sealed one is a list, which no text can be taken for.

The invariant, with `keys`: the database names every key that one of its values needs. So a start
with the wrong file is refused before anything is written, and a key that is not named may go.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apiserver.store.database import StoreUnavailable
from resources import masking
from resources.kind import Json, Kind

KEY_BYTES = 32
# Random, which is safe for some four thousand million values under one key.
NONCE_BYTES = 12
# What a sealed value is longer than the plain one: the nonce, and the tag.
OVERHEAD_BYTES = NONCE_BYTES + 16
# The name of no key: what is sealed by it is plain.
PLAIN = ""


# Told after each value: `encrypt` or `decrypt`, the name of the key, seconds, and if it was done.
Observer = Callable[[str, str, float, bool], None]


class Unopenable(StoreUnavailable):
    """A value was sealed with a key that this process has not, or is not what was sealed there."""


@dataclass(frozen=True)
class Key:
    """`secret` stays out of every text that is made of it."""

    name: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.name!r})"

    @cached_property
    def cipher(self) -> AESGCM:
        return AESGCM(self.secret)


class Keyring:
    """Keys, the one that writes first; with none, everything is written plain."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = {key.name: key for key in keys}
        self._first = keys[0] if keys else None
        self.observer: Observer | None = None
        # How many keys were shown to be the right ones when the database was opened.
        self.canaries = 0

    @property
    def first(self) -> str:
        """The name of the key that writes."""
        return PLAIN if self._first is None else self._first.name

    def has(self, name: str) -> bool:
        return name in self._keys

    def seal(self, value: bytes, about: str) -> bytes:
        """`value` as it is stored by the key `first`, where `about` says."""
        if self._first is None:
            return value
        began = time.perf_counter()
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._first.cipher.encrypt(nonce, value, about.encode())
        self._tell("encrypt", self._first.name, began, is_done=True)
        return sealed

    def open(self, name: str, sealed: bytes, about: str) -> bytes:
        """What was sealed by the key `name`. Raises Unopenable."""
        if name == PLAIN:
            return sealed
        key = self._keys.get(name)
        if key is None:
            raise Unopenable(
                f"{about} is encrypted with the key {name}, which this server has not; give it the "
                "same --encryption-keys as the others"
            )
        began = time.perf_counter()
        try:
            nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            value = key.cipher.decrypt(nonce, rest, about.encode())
            self._tell("decrypt", name, began, is_done=True)
            return value
        except (InvalidTag, ValueError) as error:
            self._tell("decrypt", name, began, is_done=False)
            raise Unopenable(f"{about} can't be decrypted with the key {name}") from error

    def _tell(self, operation: str, key: str, began: float, *, is_done: bool) -> None:
        if self.observer is not None:
            self.observer(operation, key, time.perf_counter() - began, is_done)

    # --- objects --------------------------------------------------------------------------

    def sealed(self, kind: Kind, uid: str, part: Json) -> Json:
        """A document, or a part of one, with its secrets sealed; itself where there are none."""

        def change(value: Any, about: str) -> Any:
            if not isinstance(value, str):
                return value
            return [self.first, _text(self.seal(value.encode(), about))]

        return part if self._first is None else _changed(kind, uid, part, change)

    def opened(self, kind: Kind, uid: str, part: Json) -> Json:
        """The other way. Raises Unopenable."""

        def change(value: Any, about: str) -> Any:
            if not is_sealed(value):
                return value
            return self.open(value[0], base64.b64decode(value[1]), about).decode()

        return _changed(kind, uid, part, change)

    # --- texts and contents ----------------------------------------------------------------

    def sealed_text(self, value: str, about: str) -> str:
        """A text of our own, none of which has a blank inside."""
        if self._first is None:
            return value
        return f"{self.first} {_text(self.seal(value.encode(), about))}"

    def opened_text(self, stored: str, about: str) -> str:
        name, blank, sealed = stored.partition(" ")
        return self.open(name, base64.b64decode(sealed), about).decode() if blank else stored


def sealed_by(kind: Kind, part: Json) -> set[str]:
    """The keys by which the secrets in it are sealed, PLAIN among them where one is not."""
    found: set[str] = set()

    def look(value: Any, _about: str) -> Any:
        found.add(value[0] if is_sealed(value) else PLAIN)
        return value

    _changed(kind, "", part, look)
    return found


def is_sealed(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def about_content(digest: str) -> str:
    return f"content {digest}"


def about_key(store_uid: str) -> str:
    """Of the key of digests."""
    return f"content key of {store_uid}"


def about_canary(store_uid: str, name: str) -> str:
    return f"canary {name} of {store_uid}"


def _changed(kind: Kind, uid: str, part: Json, change: Callable[[Any, str], Any]) -> Json:
    """With every secret that is there changed, knowing where it stands."""
    return masking.replaced_secrets(
        kind, part, lambda value, path: change(value, f"{kind.kind} {uid} {'.'.join(path)}")
    )


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
