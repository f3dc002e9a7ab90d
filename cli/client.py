"""Requests of the command line to the Kubernetes protocol; standard library, since starting fast
is half of a good command line.

    Problem                 what a person is told, in one line and where possible a hint
    ├── Refused             the API server said no
    └── Unreachable         there was no answer

One connection is kept from request to request. A request that reads is sent again where a kept
connection turns out to be gone; one that writes never is, since it may have been carried out: it
gets a connection of its own after a pause in which the server may have closed ours.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from cli import kubeconfig
from cli.kubeconfig import Access
from cli.problems import Problem

Json = dict[str, Any]

TIMEOUT_S = 30.0
# A server that lives sends a bookmark every minute.
QUIET_MAX_S = 150.0
# Servers close connections that rest; this is well below what any of them allows.
REST_MAX_S = 5.0
BUSY_TRIES = 5
BUSY_WAIT_MAX_S = 10.0

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Refused(Problem):
    """The API server said no; the message is its own."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details or {}
        if code == 401:
            self.hint = (
                "the server does not know who you are: the token or certificate of your kubeconfig "
                "has ended, or belongs to another service"
            )
        elif code == 403:
            self.hint = (
                "your role does not allow it: ask an administrator of the service for one that does"
            )

    def told(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        if self.code == 401:
            why = str(self) or "Unauthorized"
            return f"error: You must be logged in to the server ({why})"
        if self.reason == "Invalid":
            return _invalid(str(self), self.details)
        return f"Error from server{reason}: {self}"


class Unreachable(Problem):
    """There was no answer."""


class Client:
    """One server, one identity."""

    def __init__(self, access: Access, *, timeout_s: float = TIMEOUT_S) -> None:
        self.access = access
        self._timeout_s = timeout_s
        self._kept: http.client.HTTPSConnection | None = None
        self._rested_since = 0.0
        self._warned: set[str] = set()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> Json:
        """The answer's JSON. Raises Refused, Unreachable."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers(accept)
        if data is not None:
            headers["Content-Type"] = content_type
        for tries_left in reversed(range(BUSY_TRIES)):
            response = self._sent(method, _target(path, query), data, headers)
            raw = self._read(response)
            if response.status in (429, 503) and tries_left and "Retry-After" in response.headers:
                time.sleep(_seconds(response.headers["Retry-After"]))
                continue
            break
        self._warn(response)
        if response.status >= 400:
            raise refusal(response.status, raw)
        answer: Json = json.loads(raw) if raw else {}
        return answer

    def stream(
        self,
        path: str,
        *,
        query: dict[str, str],
        accept: str = "application/json",
        quiet_max_s: float = QUIET_MAX_S,
    ) -> Iterator[Json]:
        """Watch events, one for each line, until the server ends the watch."""
        connection = self._connection(self._timeout_s)
        try:
            connection.request("GET", _target(path, query), None, self._headers(accept))
            response = connection.getresponse()
            if response.status >= 400:
                raise refusal(response.status, response.read())
            # An answer that ends with its connection has taken the socket over.
            if connection.sock is not None:
                connection.sock.settimeout(quiet_max_s)
            while line := response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _sent(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if time.monotonic() - self._rested_since > REST_MAX_S:
            self.close()
        was_kept = self._kept is not None
        try:
            return self._once(method, target, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not (was_kept and method == "GET"):
                raise self._unreachable(error) from error
        try:
            return self._once(method, target, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _once(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if self._kept is None:
            self._kept = self._connection(self._timeout_s)
        self._kept.request(method, target, data, headers)
        return self._kept.getresponse()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        self._rested_since = time.monotonic()
        if response.will_close:
            self.close()
        return raw

    def _connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        parts = urlsplit(self.access.server)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, context=self.access.context, timeout=timeout_s
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from error
        assert connection.sock is not None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "homeport"}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        return headers

    def _warn(self, response: http.client.HTTPResponse) -> None:
        for header in response.headers.get_all("Warning") or ():
            text = _warning(header)
            if text and text not in self._warned:
                self._warned.add(text)
                print(f"Warning: {text}", file=sys.stderr)

    def _unreachable(self, error: Exception) -> Unreachable:
        server = self.access.server
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"the certificate of {server} cannot be verified: {error.verify_message}",
                "the kubeconfig belongs to another service, or the service has a new authority; "
                f"use the {kubeconfig.ADMIN} that this `homeport up` wrote into its data directory",
            )
        return Unreachable(
            f"no answer from {server}: {_cause(error)}",
            "is `homeport up` running, and is this its address? "
            "--kubeconfig and --context choose another one",
        )


def refusal(code: int, raw: bytes) -> Refused:
    """What an answer that is an error says."""
    try:
        status = json.loads(raw)
        reason, message = str(status.get("reason", "")), str(status.get("message", ""))
        return Refused(code, reason, message, status.get("details"))
    except (ValueError, AttributeError):
        return Refused(code, "", raw[:300].decode(errors="replace"))


def refused_by(status: Json) -> Refused:
    """What the Status object in an ERROR event of a watch says."""
    return Refused(
        int(status.get("code") or 0), str(status.get("reason", "")), str(status.get("message", ""))
    )


def _invalid(message: str, details: Json) -> str:
    """What is wrong with a document, a line for each field; or with a request, as it was said."""
    kind, name = details.get("kind", ""), details.get("name", "")
    causes = [f"{c.get('field')}: {c.get('message')}" for c in details.get("causes") or ()]
    told = f'The {kind} "{name}" is invalid' if kind or name else "The request is invalid"
    if len(causes) > 1:
        return f"{told}: \n" + "\n".join(f"* {cause}" for cause in causes)
    if not causes and not (kind or name):
        causes = [message]
    return f"{told}: {causes[0]}" if causes else told


def _target(path: str, query: dict[str, str] | None) -> str:
    return path + ("?" + urlencode(query) if query else "")


def _seconds(text: str) -> float:
    return min(float(text), BUSY_WAIT_MAX_S) if text.isdigit() else 1.0


def _warning(header: str) -> str:
    """The text of `299 - "text"`."""
    _, quote, rest = header.partition('"')
    return rest.removesuffix('"').replace('\\"', '"').replace("\\\\", "\\") if quote else ""


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return f"its name is not known ({error.strerror})"
    return str(error) or type(error).__name__
