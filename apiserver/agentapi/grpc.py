"""gRPC on the agents' port: HTTP/2 for the few calls that are streams, told apart by ALPN.

A client that offers HTTP/1.1 gets it, even if it would take HTTP/2 too: the REST API is served as
HTTP/1.1 only, and agents use it so. Who offers HTTP/2 alone speaks gRPC, and gets this.

`h2` knows the protocol's rules and counts its windows; here bytes become messages and calls become
tasks. The invariants: a call's task ends before its connection is forgotten; what a client may keep
waiting has an end (calls of a connection, messages of a call, bytes of a message, seconds of a
call); an answer that does not fit the window that the client left is the end of the call, so that
nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import structlog

ALPN: Final = "h2"
CALLS_MAX = 8
HEADERS_BYTES_MAX = 16 * 1024
MESSAGE_BYTES_MAX = 64 * 1024
MESSAGES_MAX = 16
CALL_S_MAX = 120.0
# Clients ping every 30 s while they have calls; without any a connection is of no use.
IDLE_S_MAX = 60.0
# For the last bytes, and for clients that do not say good-bye.
CLOSE_S_MAX = 1.0
_PREFIX_BYTES = 5
_CONTENT_TYPE = "application/grpc"

log = structlog.get_logger()


class Code(IntEnum):
    """The codes of gRPC that are used here."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refused(Exception):
    """How a call ends that is not answered."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Call:
    """One call: messages come and go until its handler returns or raises Refused."""

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue(MESSAGES_MAX)
        self._partial = bytearray()
        self.is_ended = False

    @property
    def transport(self) -> asyncio.Transport:
        return self._connection.transport

    async def receive(self) -> bytes | None:
        """The next message; None once the client has said all."""
        if self.is_ended and self._arrived.empty():
            return None
        return await self._arrived.get()

    def send(self, message: bytes) -> None:
        """Raises Refused where the client leaves no room for it."""
        prefix = b"\0" + len(message).to_bytes(4, "big")
        self._connection.send(self._number, prefix + message)

    def feed(self, data: bytes) -> None:
        """Bytes of the client's. Raises Refused for more than there may be."""
        self._partial += data
        while len(self._partial) >= _PREFIX_BYTES:
            size = int.from_bytes(self._partial[1:_PREFIX_BYTES], "big")
            if self._partial[0]:
                raise Refused(Code.UNIMPLEMENTED, "compressed messages are not read")
            if size > MESSAGE_BYTES_MAX:
                raise Refused(Code.RESOURCE_EXHAUSTED, f"more than {MESSAGE_BYTES_MAX} bytes")
            end = _PREFIX_BYTES + size
            if len(self._partial) < end:
                return
            self._put(bytes(self._partial[_PREFIX_BYTES:end]))
            del self._partial[:end]

    def end(self) -> None:
        """The client has said all."""
        self.is_ended = True
        self._put(None)

    def _put(self, message: bytes | None) -> None:
        try:
            self._arrived.put_nowait(message)
        except asyncio.QueueFull as error:
            raise Refused(Code.RESOURCE_EXHAUSTED, "more messages than are read") from error


Handler = Callable[[Call], Awaitable[None]]


@dataclass(slots=True)
class Server:
    """The calls that there are, by path, and the connections that are open."""

    handlers: Mapping[str, Handler]
    connections: set[_Connection] = field(default_factory=set)

    async def close(self) -> None:
        """Ends all calls and connections."""
        open_ones = list(self.connections)
        tasks = [task for each in open_ones for task in each.tasks()]
        for each in open_ones:
            each.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.gather(*(each.gone.wait() for each in open_ones))
        for each in list(self.connections):
            each.transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._calls: dict[int, Call] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._idle: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()
        self.transport: asyncio.Transport

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._tasks.values())

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.add(self)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: CALLS_MAX,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_BYTES_MAX,
            },
        )
        self._h2.initiate_connection()
        self._flush()
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        for task in self._tasks.values():
            task.cancel()
        self._server.connections.discard(self)
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                self._take(event)
        except h2.exceptions.ProtocolError:
            # What was broken, and how, h2 has written into what is flushed now.
            self._flush()
            self.close()
            return
        self._flush()

    def send(self, number: int, data: bytes) -> None:
        if number not in self._calls:
            raise Refused(Code.CANCELLED, "the client is gone")
        if len(data) > min(self._h2.local_flow_control_window(number), self._frame_bytes):
            raise Refused(Code.RESOURCE_EXHAUSTED, "the client leaves no room for the answer")
        self._h2.send_data(number, data)
        self._flush()

    @property
    def _frame_bytes(self) -> int:
        return int(self._h2.max_outbound_frame_size)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(number)):
                self._start(number, {str(k): str(v) for k, v in event.headers or ()})
            case h2.events.DataReceived(stream_id=int(number)):
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, number)
                self._fed(number, lambda call: call.feed(event.data or b""))
            case h2.events.StreamEnded(stream_id=int(number)):
                self._fed(number, Call.end)
            case h2.events.StreamReset(stream_id=int(number)):
                self._forget(number)
            case h2.events.ConnectionTerminated():
                self.close()

    def _start(self, number: int, headers: dict[str, str]) -> None:
        handler = self._server.handlers.get(headers.get(":path", ""))
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith(
            _CONTENT_TYPE
        ):
            status = [(":status", "415"), ("content-length", "0")]
            self._h2.send_headers(number, status, end_stream=True)
            return
        self._h2.send_headers(number, [(":status", "200"), ("content-type", _CONTENT_TYPE)])
        if handler is None:
            self._finish(number, Code.UNIMPLEMENTED, "there is no such call")
            return
        call = self._calls[number] = Call(self, number)
        # Ended by `close`, and by the end of its stream or connection.
        task = asyncio.get_running_loop().create_task(self._run(number, call, handler))
        self._tasks[number] = task
        self._watch()

    async def _run(self, number: int, call: Call, handler: Handler) -> None:
        code, message = Code.OK, ""
        try:
            async with asyncio.timeout(CALL_S_MAX):
                await handler(call)
        except Refused as refused:
            code, message = refused.code, refused.message
        except TimeoutError:
            code, message = Code.DEADLINE_EXCEEDED, f"no end after {CALL_S_MAX:g} s"
        except Exception:
            log.exception("gRPC call failed")
            code, message = Code.INTERNAL, "the call failed"
        finally:
            self._tasks.pop(number, None)
            self._watch()
        if number in self._calls:
            self._finish(number, code, message)
            self._flush()

    def _fed(self, number: int, feed: Callable[[Call], None]) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        try:
            feed(call)
        except Refused as refused:
            self._finish(number, refused.code, refused.message)
            self._forget(number)

    def _finish(self, number: int, code: Code, message: str) -> None:
        trailers = [("grpc-status", str(int(code)))]
        if message:
            trailers.append(("grpc-message", quote(message, safe=" !'()*,/:;=@")))
        call = self._calls.pop(number, None)
        try:
            self._h2.send_headers(number, trailers, end_stream=True)
            if call is None or not call.is_ended:
                # Nothing more is read, so the client's half is over too, and counts no more.
                self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        except h2.exceptions.StreamClosedError:
            log.debug("gRPC call ended by the client")

    def _forget(self, number: int) -> None:
        self._calls.pop(number, None)
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def _watch(self) -> None:
        """A connection without calls is closed after a while."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._tasks and not self.transport.is_closing():
            self._idle = asyncio.get_running_loop().call_later(IDLE_S_MAX, self.transport.close)


class Switch(asyncio.Protocol):
    """The first protocol of each connection: gives it to HTTP/2 or HTTP/1.1 and is gone."""

    def __init__(self, server: Server, http1: Callable[[], asyncio.BaseProtocol]) -> None:
        self._server = server
        self._http1 = http1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        is_h2 = tls is not None and tls.selected_alpn_protocol() == ALPN
        chosen = _Connection(self._server) if is_h2 else self._http1()
        transport.set_protocol(chosen)
        chosen.connection_made(transport)
