"""Requests of the command line to the Kubernetes protocol; standard library, since starting fast
is half of a good command line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from cli.kubeconfig import Access

Json = dict[str, Any]

TIMEOUT_S = 30
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Refused(Exception):
    """The API server said no; the message is its own."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Unreachable(Exception):
    """There was no answer."""


class Client:
    """One server, one identity."""

    def __init__(self, access: Access) -> None:
        self.access = access

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
        with self._open(method, path, query, body, accept, content_type, TIMEOUT_S) as response:
            answer: Json = json.loads(response.read())
            return answer

    def stream(self, path: str, *, query: dict[str, str], accept: str) -> Iterator[Json]:
        """Watch events, one for each line, until the server ends the watch."""
        with self._open("GET", path, query, None, accept, "application/json", None) as response:
            while line := response.readline():
                yield json.loads(line)

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: Any,
        accept: str,
        content_type: str,
        timeout_s: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.access.server)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, context=self.access.context, timeout=timeout_s
        )
        headers = {"Accept": accept, "User-Agent": "homeport"}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["Content-Type"] = content_type
        target = path + ("?" + urlencode(query) if query else "")
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _refused(response.status, response.read())
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"no answer from {self.access.server}: {error}; is `homeport up` running?"
            ) from error
        finally:
            connection.close()


def _refused(code: int, raw: bytes) -> Refused:
    try:
        status = json.loads(raw)
        return Refused(code, str(status.get("reason", "")), str(status.get("message", "")))
    except (ValueError, AttributeError):
        return Refused(code, "", raw[:300].decode(errors="replace"))
