"""The relay that ways to servers are made of carries, cuts and lets nobody in."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from tests.fakes import relaying
from tests.fakes.relaying import Line, Passing, Relay, everything

PATIENCE_S = 30.0


class Echo(socketserver.StreamRequestHandler):
    """Says what it was told, once it was told all, and how much that was."""

    def handle(self) -> None:
        with suppress(OSError):
            said = self.rfile.read()
            self.wfile.write(said + b" %d" % len(said))


@pytest.fixture
def port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=partial(server.serve_forever, 0.01))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@contextmanager
def relayed(
    connect: Callable[[], socket.socket | None],
    *,
    asks: Passing = everything,
    answers: Passing = everything,
) -> Iterator[Relay]:
    relay = Relay(connect, asks=asks, answers=answers)
    relay.start()
    try:
        yield relay
    finally:
        relay.close()


def called(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S)


def heard(client: socket.socket) -> bytes:
    """All until the end, which is one too where the line was broken."""
    said = b""
    with suppress(ConnectionError):
        while chunk := client.recv(1 << 16):
            said += chunk
    return said


def test_who_has_said_all_still_hears_the_answer(port: int) -> None:
    many = bytes(3 * relaying.CHUNK_BYTES)
    with relayed(partial(relaying.to, port)) as relay, called(relay) as client:
        client.sendall(many)
        client.shutdown(socket.SHUT_WR)
        assert heard(client) == many + b" %d" % len(many)


def test_a_cut_ends_each_connection_and_the_next_is_carried(port: int) -> None:
    is_asked = threading.Event()

    def asks(_: bytes, __: Line) -> bool:
        is_asked.set()
        return True

    with relayed(partial(relaying.to, port), asks=asks) as relay:
        with called(relay) as client:
            client.sendall(b"a")
            assert is_asked.wait(PATIENCE_S)
            relay.cut()
            assert heard(client) == b""
        with called(relay) as client:
            client.sendall(b"b")
            client.shutdown(socket.SHUT_WR)
            assert heard(client) == b"b 1"


def test_who_is_let_in_by_nobody_is_hung_up_on(port: int) -> None:
    with relayed(partial(relaying.to, port)) as relay:
        relay.is_closed = True
        with called(relay) as client:
            assert heard(client) == b""
    with relayed(lambda: None) as relay, called(relay) as client:
        assert heard(client) == b""


@pytest.mark.parametrize("direction", ["asks", "answers"])
def test_what_is_not_passed_on_ends_its_direction(port: int, direction: str) -> None:
    def lost(chunk: bytes, _: Line) -> bool:
        return b"b" not in chunk

    ways = {direction: lost}
    with relayed(partial(relaying.to, port), **ways) as relay, called(relay) as client:
        client.sendall(b"b")
        client.shutdown(socket.SHUT_WR)
        assert heard(client) == {"asks": b" 0", "answers": b""}[direction]


def test_who_is_carried_when_the_relay_closes_is_cut_off(port: int) -> None:
    with relayed(partial(relaying.to, port)) as relay:
        client = called(relay)
    with client:
        assert heard(client) == b""
