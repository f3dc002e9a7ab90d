"""Ports of the loopback for programs that cannot say which one they took, or that come back to it.

Not from the kernel's own range: of that it lends a port to whoever connects to something, also
while the program that shall listen there is on its way, or dead for a moment.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

LEAST = 16_384
_LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """One that nobody has now."""
    lent_from = int(_LENT.read_text().split()[0])
    while True:
        port = random.randrange(LEAST, max(lent_from, LEAST + 1024))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return port
