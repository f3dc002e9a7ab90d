"""What a row of bad input is, and short ways to write one.

`expected` is a word or a field path that the answer must hold, whatever its case. A row is made
when it is sent, for it may need what only a running service has: a key, a name, a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.fakes import bare_http
from tests.fakes.bare_http import Door
from tests.fakes.inputs_rig import Rig

Json = dict[str, Any]
Header = tuple[str, str]

# What an answer looks like: the face's own Status; text, of a request that HTTP itself forbids; no
# body, as HEAD has it; no answer at all, where TLS ends it.
STATUS, PLAIN, EMPTY, NOTHING = "status", "plain", "empty", "nothing"

GROUP = "/apis/flightctl.io/v1beta1"
OURS = "/apis/homeport.dev/v1alpha1"
PLACE = f"{GROUP}/namespaces/default"
AGENTS = "/api/v1"


class Ask(NamedTuple):
    """What is sent, and where."""

    door: Door
    raw: bytes
    method: str = "GET"


class Bad(NamedTuple):
    id: str
    make: Callable[[Rig], Ask]
    code: int
    expected: str
    form: str = STATUS


def typed(media: str) -> Header:
    return ("Content-Type", media)


JSON = typed("application/json")


def content(body: object) -> bytes:
    """Bytes and text as they are, all else as JSON."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def by_admin(
    method: str, target: str, body: object = b"", *headers: Header
) -> Callable[[Rig], Ask]:
    """An administrator asks the users' face."""
    said = headers if headers or body == b"" else (JSON,)
    raw = bare_http.request(method, target, said, content(body))
    return lambda rig: Ask(rig.admin, raw, method)


def by_device(
    method: str, target: str, body: object = b"", *headers: Header
) -> Callable[[Rig], Ask]:
    """The device asks the agents' face; `{name}` in the target is its name."""
    said = headers if headers or body == b"" else (JSON,)

    def make(rig: Rig) -> Ask:
        path = AGENTS + target.replace("{name}", rig.agent.name)
        return Ask(rig.device, bare_http.request(method, path, said, content(body)), method)

    return make


def by_factory(
    method: str, target: str, body: object = b"", *headers: Header
) -> Callable[[Rig], Ask]:
    """Who holds the enrolment certificate asks the agents' face."""
    said = headers if headers or body == b"" else (JSON,)
    raw = bare_http.request(method, AGENTS + target, said, content(body))
    return lambda rig: Ask(rig.factory, raw, method)
