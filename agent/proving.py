"""Shows the service that this device's keys are of one TPM: the client's side of
`flightctl.v1.Enrollment/TPMChallenge`, which is gRPC.

One call, four messages, on a connection of its own with the enrolment certificate. It runs in the
child that talks to the TPM (`agent.tpm`), the only one that needs `h2`. Nothing is kept: what a
challenge was is of no use after it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from agent import transport

Json = dict[str, Any]
Activate = Callable[[bytes, bytes], bytes]

PATH = "/flightctl.v1.Enrollment/TPMChallenge"
TIMEOUT_S = 50.0
PROVED, REFUSED, LATER = "proved", "refused", "later"
_READ_BYTES = 16 << 10
_MESSAGE_BYTES_MAX = 64 << 10
# gRPC's code for a request that is not, or not any more, in a state to be challenged.
_FAILED_PRECONDITION = "9"


class _Broken(Exception):
    """The exchange ended before it was over; it may be begun again."""


def prove(question: Json, activate: Activate) -> Json:
    """`{"outcome": …, "message": …}`. `activate` has the TPM open a credential."""
    shown = transport.Credentials(
        authority=question["authority"].encode(),
        certificate=question["certificate"].encode(),
        key=question["enrollmentKey"].encode(),
        server_name=question["serverName"],
        insecure=question["insecure"],
    )
    try:
        with transport.connected(question["server"], shown, "h2", TIMEOUT_S) as connection:
            return _exchanged(_Call(connection, question["server"]), question["name"], activate)
    except (_Broken, OSError, ValueError) as error:
        return {"outcome": LATER, "message": str(error) or type(error).__name__}


def _exchanged(call: _Call, name: str, activate: Activate) -> Json:
    call.send(_field(1, _field(1, name.encode())))
    credential = dict(_fields(call.expect(1)))
    secret = activate(credential.get(1, b""), credential.get(2, b""))
    call.send(_field(2, _field(1, secret)))
    verdict = dict(_fields(call.receive()))
    outcome = PROVED if 2 in verdict else REFUSED if 3 in verdict else ""
    if not outcome:
        raise _Broken("the service answered with something else")
    said = dict(_fields(next(iter(verdict.values()))))
    return {"outcome": outcome, "message": said.get(1, b"").decode(errors="replace")}


class _Call:
    """One gRPC call as a client, on a socket that blocks."""

    def __init__(self, connection: ssl.SSLSocket, server: str) -> None:
        import h2.config
        import h2.connection

        self._socket = connection
        self._deadline = time.monotonic() + TIMEOUT_S
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._arrived = bytearray()
        self._trailers: dict[str, str] | None = None
        self._h2.initiate_connection()
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": urlsplit(server).netloc,
            ":path": PATH,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        self._number = self._h2.get_next_available_stream_id()
        self._h2.send_headers(self._number, list(headers.items()))
        self._flush()

    def send(self, message: bytes) -> None:
        self._h2.send_data(self._number, b"\0" + len(message).to_bytes(4, "big") + message)
        self._flush()

    def expect(self, number: int) -> bytes:
        """The only field of the next message, which must be that."""
        found = dict(_fields(self.receive()))
        if set(found) != {number}:
            said = next((dict(_fields(each)).get(1, b"") for each in found.values()), b"")
            raise _Broken(said.decode(errors="replace") or "the service began with something else")
        return found[number]

    def receive(self) -> bytes:
        """The next message. Raises _Broken at the end of the call."""
        while (message := self._message()) is None:
            if self._trailers is not None:
                code = self._trailers.get("grpc-status", "?")
                words = unquote(self._trailers.get("grpc-message", ""))
                if code == _FAILED_PRECONDITION:
                    raise _Broken(f"not now: {words}")
                raise _Broken(f"gRPC status {code}: {words}")
            self._read()
        return message

    def _message(self) -> bytes | None:
        if len(self._arrived) < 5:
            return None
        size = int.from_bytes(self._arrived[1:5], "big")
        if self._arrived[0] or size > _MESSAGE_BYTES_MAX:
            raise _Broken("an answer that can't be read")
        if len(self._arrived) < 5 + size:
            return None
        message = bytes(self._arrived[5 : 5 + size])
        del self._arrived[: 5 + size]
        return message

    def _read(self) -> None:
        import h2.events
        import h2.exceptions

        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _Broken("no answer in time")
        self._socket.settimeout(left)
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise _Broken("the service closed the connection")
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise _Broken(f"not HTTP/2: {error}") from error
        for event in events:
            match event:
                case h2.events.DataReceived():
                    self._arrived += event.data
                    size = event.flow_controlled_length
                    self._h2.acknowledge_received_data(size, self._number)
                case h2.events.ResponseReceived():
                    headers = _texts(event.headers)
                    if headers.get(":status") != "200":
                        raise _Broken(f"HTTP status {headers.get(':status')}")
                    if "grpc-status" in headers:
                        self._trailers = headers
                case h2.events.TrailersReceived():
                    self._trailers = _texts(event.headers)
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise _Broken("the service ended the call")
                case _:
                    pass
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


def _texts(headers: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


def _field(number: int, payload: bytes) -> bytes:
    """A field of protobuf that has a length."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that has none of other kinds. Raises _Broken."""
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        size, at = _read_varint(raw, at)
        if key & 7 != 2 or at + size > len(raw):
            raise _Broken("a message that can't be read")
        yield key >> 3, raw[at : at + size]
        at += size


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(raw):
            break
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Broken("a message that can't be read")
