"""HTTPS to the service with a client certificate, on the standard library alone.

    ServiceError
    ├── Unreachable   network, proxy, TLS, timeout: nobody knows whether the request was seen
    │   ├── Untrusted     one side does not accept the other's certificate
    │   └── Cut           the connection ended before there was an answer
    ├── Throttled     429, or 503: later, `after_s` says when
    └── Rejected      any other answer that is not 2xx: `status`, `message`

One `Client` is one connection, used by one thread; `abort` may be called from any other. The
connection is kept alive between requests and opened again when the credentials were replaced, so a
renewed certificate is in use from the next request on.

Private keys reach OpenSSL through an anonymous memory file, never through one on a disk. Redirects
are not followed: a service that moves is a matter of configuration, not of an answer.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from agent import handshaking
from resources.records import dataclass

API_VERSION = "v1beta1"
API_PREFIX = "/api/v1"
RENEW_WITHIN = "Homeport-Renew-Within"
CONNECT_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 60.0
# A rendered device carries its files; a request's body is at most a status.
ANSWER_BYTES_MAX = 64 << 20
ERROR_BYTES_MAX = 64 << 10
CHUNK_BYTES = 64 << 10
RETRY_AFTER_S_MAX = 300.0
# Servers and middleboxes close idle connections; a request on a closed one would fail for nothing.
IDLE_S_MAX = 30.0
TPM_KEY = b"-----BEGIN TSS2 PRIVATE KEY-----"


class ServiceError(Exception):
    """The service did not do what was asked."""


class Unreachable(ServiceError):
    """No answer, or none that can be trusted to be complete."""


class Untrusted(Unreachable):
    """A certificate was refused, ours or theirs."""


class Cut(Unreachable):
    """Somebody on the way has closed the connection: the service, or who found it idle."""


class Throttled(ServiceError):
    def __init__(self, status: int, message: str, after_s: float) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.after_s = after_s


class Rejected(ServiceError):
    def __init__(self, status: int, message: str, body: str = "") -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.body = body


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one side shows and whom it trusts; equal credentials share a connection."""

    authority: bytes
    certificate: bytes
    key: bytes
    server_name: str = ""
    insecure: bool = False

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx. `document` is None where the answer has no JSON body; `renew_within_s` where the
    service wants this device's certificate renewed."""

    status: int
    document: Any = None
    renew_within_s: float | None = None


class Client:
    """One connection to one service. `credentials` is asked before each request."""

    def __init__(
        self,
        server: str,
        credentials: Callable[[], Credentials],
        *,
        environ: Mapping[str, str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        parts = urlsplit(server)
        assert parts.scheme == "https", server
        assert parts.hostname, server
        self._host = parts.hostname
        self._port = parts.port or 443
        self._prefix = parts.path.rstrip("/") + API_PREFIX
        self._credentials = credentials
        self._environ = os.environ if environ is None else environ
        self._monotonic = monotonic
        self._answer_bytes_max = answer_bytes_max
        self._connection: http.client.HTTPSConnection | None = None
        self._shown: Credentials | None = None
        self._used_at = 0.0
        self._aborted = False
        self._lock = threading.Lock()
        # Method, path, seconds, whether it was answered with 2xx: for who counts.
        self.on_done: Callable[[str, str, float, bool], None] = lambda *done: None

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> Answer:
        return self.request("GET", path, query=query, timeout_s=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
        want_body: bool = True,
    ) -> Answer:
        """One attempt. Raises a ServiceError; what to do then is the caller's business.

        An idle connection that turns out to be closed is opened again once, if the method may be
        repeated; nothing else is retried.
        """
        begun, is_well = self._monotonic(), False
        try:
            answer = self._request(method, path, query, body, timeout_s, want_body=want_body)
            is_well = True
            return answer
        finally:
            self.on_done(method, path, self._monotonic() - begun, is_well)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        timeout_s: float | None,
        *,
        want_body: bool,
    ) -> Answer:
        deadline = self._monotonic() + (timeout_s or REQUEST_TIMEOUT_S)
        payload = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        target = self._prefix + path + _query(query)
        is_reused = self._prepare()
        try:
            return self._attempt(method, target, payload, deadline, want_body=want_body)
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError) as error:
            self.close()
            if not is_reused or method == "POST" or self._aborted:
                raise _unreachable(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise _unreachable(error) from error
        try:
            return self._attempt(method, target, payload, deadline, want_body=want_body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise _unreachable(error) from error

    def abort(self) -> None:
        """Ends a request that another thread is waiting in, and refuses later ones."""
        with self._lock:
            self._aborted = True
            connection = self._connection
            if connection is not None and connection.sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown: that takes the TLS object away under the reader.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def close_idle(self) -> None:
        """An open connection costs the service memory; call it when nothing is to be said."""
        if self._connection is not None and self._monotonic() - self._used_at > IDLE_S_MAX:
            self.close()

    def _prepare(self) -> bool:
        """Whether there is a connection that was used before."""
        wanted = self._credentials()
        if wanted != self._shown:
            self.close()
            self._shown = wanted
        self.close_idle()
        return self._connection is not None

    def _attempt(
        self, method: str, target: str, payload: bytes, deadline: float, *, want_body: bool
    ) -> Answer:
        connection = self._connected(deadline)
        headers = {
            "Accept": "application/json",
            "Flightctl-API-Version": API_VERSION,
            "X-Request-Id": _request_id(),
        }
        if payload:
            headers["Content-Type"] = "application/json"
        if method == "PUT":
            # The answer is a device with all that was just sent; ours leaves it out when asked to.
            headers["Prefer"] = "return=minimal"
        self._limit(connection, deadline)
        connection.request(method, target, body=payload or None, headers=headers)
        response = connection.getresponse()
        self._used_at = self._monotonic()
        if not want_body:
            status = response.status
            self.close()
            return _judged(status, response, b"")
        is_fine = 200 <= response.status < 300
        limit = self._answer_bytes_max if is_fine else ERROR_BYTES_MAX
        raw = self._read(connection, response, deadline, limit, cut=not is_fine)
        self._used_at = self._monotonic()
        if response.will_close:
            self.close()
        return _judged(response.status, response, raw)

    def _read(
        self,
        connection: http.client.HTTPSConnection,
        response: http.client.HTTPResponse,
        deadline: float,
        limit: int,
        *,
        cut: bool,
    ) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := self._part(connection, response, deadline):
            parts.append(part)
            size += len(part)
            if size > limit:
                self.close()
                if not cut:
                    raise http.client.HTTPException(f"the answer is larger than {limit} bytes")
                return b"".join(parts)[:limit]
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        # `read1` stops at the last byte without telling the connection that it is free again.
        response.close()
        return b"".join(parts)

    def _part(
        self,
        connection: http.client.HTTPSConnection,
        response: http.client.HTTPResponse,
        deadline: float,
    ) -> bytes:
        self._limit(connection, deadline)
        return response.read1(CHUNK_BYTES)

    def _limit(self, connection: http.client.HTTPSConnection, deadline: float) -> None:
        left = deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        if connection.sock is not None:
            connection.sock.settimeout(left)

    def _connected(self, deadline: float) -> http.client.HTTPSConnection:
        if self._connection is not None:
            return self._connection
        assert self._shown is not None
        timeout_s = min(CONNECT_TIMEOUT_S, max(0.1, deadline - self._monotonic()))
        connection = _Connection(
            self._host,
            self._port,
            self._shown.server_name or self._host,
            tls_context(self._shown),
            timeout_s,
        )
        proxy = proxy_for(self._host, self._port, self._environ)
        if proxy is not None:
            connection.through(proxy)
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("the agent is stopping")
            self._connection = connection
        connection.connect()
        with self._lock:
            # NB race: abort() may have come while there was no socket to shut down.
            if self._aborted:
                raise ConnectionAbortedError("the agent is stopping")
        return connection


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    authorization: str = ""


class _Connection(http.client.HTTPSConnection):
    """As the standard one, but the name that the certificate must carry can be another."""

    def __init__(
        self, host: str, port: int, server_name: str, context: ssl.SSLContext, timeout_s: float
    ) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._server_name = server_name
        self._tls = context

    def through(self, proxy: Proxy) -> None:
        headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        host, port = self.host, self.port
        self.host, self.port = proxy.host, proxy.port
        self.set_tunnel(host, port, headers)

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        with handshaking.guarded(self._tls):
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def connected(server: str, shown: Credentials, protocol: str, timeout_s: float) -> ssl.SSLSocket:
    """A connection for another protocol than HTTP/1.1, by the same proxy and with the same trust.
    Raises OSError, and ValueError if the other side does not speak it."""
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or 443
    context = tls_context(shown)
    context.set_alpn_protocols([protocol])
    connection = _Connection(host, port, shown.server_name or host, context, timeout_s)
    proxy = proxy_for(host, port, os.environ)
    if proxy is not None:
        connection.through(proxy)
    connection.connect()
    made: ssl.SSLSocket = connection.sock
    if made.selected_alpn_protocol() != protocol:
        made.close()
        raise ValueError(f"the service does not speak {protocol}")
    return made


def tls_context(shown: Credentials) -> ssl.SSLContext:
    """TLS 1.3 only, as the reference. Raises ValueError for PEM that OpenSSL cannot use."""
    if TPM_KEY in shown.key:
        # The one key for which OpenSSL needs more than it has; imported where there is one.
        from agent import tpmtls

        return tpmtls.context(shown, _new_context)
    return _new_context(shown)


def _new_context(shown: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if shown.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif shown.authority:
            context.load_verify_locations(cadata=shown.authority.decode("ascii"))
        else:
            context.load_default_certs()
        if shown.certificate:
            _load_pair(context, shown.certificate, shown.key)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ValueError(f"the certificates cannot be used: {error}") from error
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    handle = os.memfd_create("credentials", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(handle), "wb") as out:
            out.write(certificate + b"\n" + key)
        # A password callback, else OpenSSL would ask on the terminal for an encrypted key.
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: "")
    finally:
        os.close(handle)


def _request_id() -> str:
    """A random UUID, without a module for it."""
    raw = bytearray(os.urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _judged(status: int, response: http.client.HTTPResponse, raw: bytes) -> Answer:
    if 200 <= status < 300:
        renew_within_s = _seconds(response.getheader(RENEW_WITHIN))
        if not raw.strip():
            return Answer(status, None, renew_within_s)
        try:
            return Answer(status, json.loads(raw), renew_within_s)
        except (ValueError, RecursionError) as error:
            raise Unreachable(f"the answer is not JSON: {error}") from error
    body = raw.decode(errors="replace")
    message = _message(body) or response.reason or "no reason given"
    if status in (429, 503):
        raise Throttled(status, message, _retry_after(response.getheader("Retry-After")))
    raise Rejected(status, message, body)


def _message(body: str) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            return str(document["message"])
    return " ".join(body.split())[:300]


def _retry_after(value: str | None) -> float:
    """Only the form in seconds: a date would need a clock that agrees with the service's."""
    return min(_seconds(value) or 0.0, RETRY_AFTER_S_MAX)


def _seconds(value: str | None) -> float | None:
    text = (value or "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _unreachable(error: Exception) -> Unreachable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Untrusted(f"the service's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "").upper():
        return Untrusted(f"the service refused the handshake: {error.reason}")
    is_cut = isinstance(error, http.client.RemoteDisconnected | ConnectionError | ssl.SSLEOFError)
    return Cut(_words(error)) if is_cut else Unreachable(_words(error))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _query(query: Mapping[str, str] | None) -> str:
    if not query:
        return ""
    return "?" + "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query.items())


def proxy_for(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment names for https to `host`, by Go's rules for NO_PROXY."""
    named = environ.get("HTTPS_PROXY") or environ.get("https_proxy") or ""
    if not named or _is_local(host):
        return None
    excluded = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if _is_excluded(host, port, excluded.split(",")):
        return None
    parts = urlsplit(named if "://" in named else f"http://{named}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"HTTPS_PROXY: {parts.scheme} proxies are not supported")
    authorization = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, authorization)


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _is_excluded(host: str, port: int, entries: Iterable[str]) -> bool:
    address = None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
    for raw in entries:
        entry = raw.strip().lower()
        if entry == "*":
            return True
        if not entry:
            continue
        if address is not None:
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
        name, _, wanted = entry.partition(":")
        if wanted and wanted != str(port):
            continue
        domain = name.removeprefix("*").removeprefix(".")
        is_suffix_only = name != domain
        if host.endswith(f".{domain}") or (host == domain and not is_suffix_only):
            return True
    return False
