"""Telling systemd how far we are (`Type=notify`), and nobody where there is no systemd.

READY comes before the network does: a first boot without a network must not run into the start
timeout. Afterwards the socket's name is taken out of the environment, so that no child of ours
speaks in our name. Where the unit has a `WatchdogSec`, whoever waits for us wants to hear `ALIVE`
before it is over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger("agent.notify")

TIMEOUT_S = 10.0
VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
WATCHDOG = "WATCHDOG_USEC"


class Notifier:
    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.pop(VARIABLE, "")
        patience_us = environ.pop(WATCHDOG, "")
        self.watchdog_s = int(patience_us) / 1e6 if patience_us.isdigit() else 0.0

    def tell(self, *messages: str) -> None:
        """Best effort: a systemd that does not listen is no reason not to work."""
        if not self._address:
            return
        # An abstract address is written with an @ and sent with a NUL.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.settimeout(TIMEOUT_S)
            channel.connect(address)
            channel.sendall(("\n".join(messages) + "\n").encode())

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self.tell(f"STATUS={' '.join(text.split())}")
