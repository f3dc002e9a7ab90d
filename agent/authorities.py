"""Whom this device trusts as its service: the authorities that the configuration names, or those
that the service named since.

The service gives its authorities along with each certificate, so that one that is replaced there is
known here long before the old one ends. What it named stands in for what the configuration names,
and for that alone: both are told apart by a digest, so a configuration that names another authority
counts at once, and one that names none (the system's are trusted) is never overruled. Who keeps
something here has reached the service under it before: no answer can lock a device out.
"""

from __future__ import annotations

import hashlib
import json

from agent import config, transport, world
from resources.records import dataclass

BYTES_MAX = 1 << 18


@dataclass(frozen=True, slots=True)
class _Named:
    instead_of: str = ""
    pem: bytes = b""


class Authorities:
    """`keep` is called by the contact thread only; the rest by any."""

    def __init__(self, where: world.World, path: str) -> None:
        self._world = where
        self._path = path
        self._named = self._read()

    def of(self, service: config.Service) -> bytes:
        """PEM; empty = the system's. An authority that is configured but not there is never
        replaced by the system's: raises Unreachable, and the next request looks again."""
        configured = self._configured(service)
        if service.authority and not configured:
            raise transport.Unreachable(
                f"no certificate authority: {service.authority.path} is missing"
            )
        named = self._named
        return named.pem if configured and named.instead_of == _digest(configured) else configured

    def is_news(self, service: config.Service, pem: bytes) -> bool:
        """Whether keeping these would change whom we trust. Raises Unreachable."""
        trusted = self.of(service)
        return bool(pem and trusted) and len(pem) <= BYTES_MAX and pem != trusted

    def keep(self, service: config.Service, pem: bytes) -> None:
        """Trust these from now on, where the configuration names what it names now."""
        named = _Named(_digest(self._configured(service)), pem)
        document = {"insteadOf": named.instead_of, "pem": pem.decode("ascii")}
        uid, gid = self._world.uid_of("root"), self._world.gid_of("root")
        raw = json.dumps(document).encode()
        self._world.write(self._path, raw, mode=0o600, uid=uid or 0, gid=gid or 0)
        self._named = named

    def _configured(self, service: config.Service) -> bytes:
        try:
            return service.authority.load(self._world)
        except OSError as error:
            raise transport.Unreachable(
                f"the certificate authority cannot be read: {error}"
            ) from error

    def _read(self) -> _Named:
        try:
            document = json.loads(self._world.read(self._path) or b"{}")
            return _Named(document["insteadOf"], document["pem"].encode("ascii"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Nothing is lost: the configured ones count, and what follows them is named again.
            return _Named()


def _digest(pem: bytes) -> str:
    return hashlib.sha256(pem).hexdigest()
