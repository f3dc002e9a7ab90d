"""The file of encryption keys: a line for each, `NAME KEY`, where KEY is 32 bytes in base64.

The first writes, all read. Blank lines and lines that begin with # are nothing. No message ever
holds a part of a key. A file that is not there is made, with one key, only for a database that has
no encrypted value yet; where there are some, a new key would only hide that the right one is lost.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import structlog

from apiserver.store.sealing import KEY_BYTES, Key, Keyring

KEYS_MAX = 100
FILE_BYTES_MAX = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_OTHERS = 0o077

log = structlog.get_logger()


class BadKeys(Exception):
    """The keys can't be used; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Where the keys are. `may_be_made`: a file that is not there is made at the first start."""

    path: Path
    may_be_made: bool = False

    def read(self) -> Keyring | None:
        """The keys; None where there is no file and one may be made. Raises BadKeys."""
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError as error:
            if self.may_be_made:
                return None
            raise BadKeys(f"--encryption-keys: {self.path} does not exist") from error
        except OSError as error:
            raise BadKeys(
                f"--encryption-keys: {self.path} can't be read: {error.strerror}"
            ) from error
        if mode & _OTHERS:
            log.warning("encryption keys readable for others", path=str(self.path))
        return Keyring(self._keys(raw))

    def make(self) -> Keyring:
        """A new file with one key, there for good before anything is written with it."""
        name = f"key-{secrets.token_hex(4)}"
        secret = secrets.token_bytes(KEY_BYTES)
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{name} {base64.b64encode(secret).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        log.info("encryption key made", path=str(self.path), key=name)
        return Keyring([Key(name, secret)])

    def _keys(self, raw: bytes) -> list[Key]:
        if len(raw) > FILE_BYTES_MAX:
            raise self._bad(f"is larger than {FILE_BYTES_MAX} bytes")
        try:
            lines = raw.decode("ascii").splitlines()
        except UnicodeDecodeError as error:
            raise self._bad("is not text: each line is a name, a blank and a key") from error
        keys: dict[str, Key] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            key = self._key(number, words)
            if key.name in keys:
                raise self._bad(f"line {number}: there is another key {key.name}")
            keys[key.name] = key
        if not keys:
            raise self._bad("holds no key")
        if len(keys) > KEYS_MAX:
            raise self._bad(f"holds more than {KEYS_MAX} keys")
        return list(keys.values())

    def _key(self, number: int, words: list[str]) -> Key:
        # Nothing of the line is repeated: what stands in the place of the name may be the key.
        if len(words) != 2 or not _NAME.fullmatch(words[0]):
            raise self._bad(f"line {number} is not a name, a blank and a key")
        try:
            secret = base64.b64decode(words[1], validate=True)
        except binascii.Error:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise self._bad(f"line {number}: the key is not {KEY_BYTES} bytes in base64")
        return Key(words[0], secret)

    def _bad(self, why: str) -> BadKeys:
        return BadKeys(f"--encryption-keys: {self.path} {why}")
