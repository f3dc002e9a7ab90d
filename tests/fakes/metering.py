"""What one exchange with the service costs on the wire: our client, our server, real TLS 1.3.

Counted by the kernel, at the client's socket: the bytes of TCP both ways, and the segments, each
with the headers of IPv4 and TCP. What a connection costs beyond what can be asked (the four
segments that end it) is added.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import transport

Json = dict[str, Any]

TCP_INFO_BYTES = 144
HEADERS_BYTES = 52  # IPv4 20, TCP 20, time stamps 12
SEGMENTS_OF_AN_END = 4


@dataclass(frozen=True)
class Costs:
    """Bytes; a document that is asked for or told costs its own length besides."""

    connection: int
    poll: int
    report: int


def spent(client: transport.Client) -> int:
    """Bytes on the wire since the connection that is open was begun."""
    connection = client._connection
    assert connection is not None
    raw = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    acked, received, segments_out, segments_in = struct.unpack_from("=QQII", raw, 120)
    return int(acked + received + HEADERS_BYTES * (segments_out + segments_in))


def measured(
    client: transport.Client, name: str, version: Callable[[], str], status: Json
) -> Costs:
    """`version` is the one to know, so that the poll is answered with nothing new."""
    path = f"/devices/{name}"
    body = {"apiVersion": "v1beta1", "kind": "Device", "metadata": {"name": name}, "status": status}

    def poll() -> None:
        client.get(f"{path}/rendered", {"knownRenderedVersion": version()})

    def put() -> None:
        client.request("PUT", f"{path}/status", body=body)

    poll()
    first = spent(client)
    poll()
    second = spent(client)
    put()
    third = spent(client)
    end = SEGMENTS_OF_AN_END * HEADERS_BYTES
    a_poll = second - first
    return Costs(first - a_poll + end, a_poll, third - second - _length(status))


def _length(status: Json) -> int:
    import json

    return len(json.dumps(status, separators=(",", ":")))
