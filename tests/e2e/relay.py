"""The only way out of a device: ports of its own loopback that lead to ports of the host's.

A device has a network namespace with nothing but a loopback in it. A socket belongs to the
namespace it was made in, so a listener made inside, served from outside, is a cable: no bridge, no
address, no packet filter, and the host's network stays as it was. Pull the cable, and the device
sees a network that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
CHUNK_BYTES = 1 << 16


class Relay:
    """Ports of a device's loopback → ports of the host's."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self.ports = dict(ports)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listeners: list[socket.socket] = []
        self._cables: set[asyncio.Task[None]] = set()
        self._is_cut = False

    def attach(self, pid: int) -> None:
        """Lay the cables into the network namespace of process `pid`, new or old. Cut stays cut."""
        self.detach()
        self._listeners = sockets_inside(pid, self.ports)
        if not self._is_cut:
            self._run(self._serve())

    def cut(self) -> None:
        """The network is gone: nothing answers, and what was connected is cut off."""
        self._is_cut = True
        self._run(self._cut())

    def mend(self) -> None:
        self._is_cut = False
        self._run(self._serve())

    def detach(self) -> None:
        """Leave the device's namespace."""
        self._run(self._cut())
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def close(self) -> None:
        self.detach()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.listen(64)
            loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """At once: what asyncio's own server accepts while it is closed stays open for ever."""
        try:
            inside, _ = listener.accept()
        except BlockingIOError:
            return  # who called has gone
        inside.setblocking(False)
        port = self.ports[listener.getsockname()[1]]
        cable = asyncio.create_task(_cable(inside, port))
        self._cables.add(cable)
        cable.add_done_callback(self._cables.discard)
        # Also if it was cancelled before its first step.
        cable.add_done_callback(lambda _: inside.close())

    async def _cut(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            # A listener that nobody accepts from still completes handshakes; this one refuses.
            with contextlib.suppress(OSError):  # it was not listening
                listener.shutdown(socket.SHUT_RDWR)
        cables = list(self._cables)
        for cable in cables:
            cable.cancel()
        await asyncio.gather(*cables, return_exceptions=True)


async def _cable(inside: socket.socket, port: int) -> None:
    """Both directions, until both have ended or one breaks."""
    with socket.socket() as outside, contextlib.suppress(OSError, ExceptionGroup):
        outside.setblocking(False)
        await asyncio.get_running_loop().sock_connect(outside, ("127.0.0.1", port))
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(inside, outside))
            pumps.create_task(_pump(outside, inside))


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await loop.sock_recv(source, CHUNK_BYTES):
        await loop.sock_sendall(sink, chunk)
    sink.shutdown(socket.SHUT_WR)


def sockets_inside(pid: int, ports: Collection[int]) -> list[socket.socket]:
    """Sockets bound to these ports of the loopback of `pid`'s network namespace."""
    made: list[socket.socket] = []
    problem: list[BaseException] = []

    def inside() -> None:
        # Only this thread moves, and it ends here: no other code of ours ever runs inside.
        try:
            namespace = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(namespace)
            for port in ports:
                sock = socket.socket()
                made.append(sock)
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if problem:
        for sock in made:
            sock.close()
        raise problem[0]
    return made
