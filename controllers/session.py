"""How the controllers reach the API server, described once, opened in whichever loop needs it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp

TOTAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is. With `socket` a UNIX socket, whose file mode is the identity;
    otherwise `server` over TLS with a client certificate."""

    server: str = "http://localhost"
    socket: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def session(self, *, total_s: float | None = TOTAL_S) -> aiohttp.ClientSession:
        """A session in the running loop. Watches need one without a total limit."""
        connector: aiohttp.BaseConnector
        if self.socket is not None:
            connector = aiohttp.UnixConnector(str(self.socket), limit=0)
        else:
            connector = aiohttp.TCPConnector(ssl=self._context(), limit=0)
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=5)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    def _context(self) -> ssl.SSLContext | bool:
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=self.ca and str(self.ca))
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context
