"""The place where TLS handshakes can be made to wait for one another.

Usually they need not. With a key in a TPM they must (`tpmtls`, which takes this over): what OpenSSL
is told for such a handshake, it is told for the whole process.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Guard = Callable[[ssl.SSLContext], AbstractContextManager[None]]

_guard: Guard = lambda _: nullcontext()  # noqa: E731


def guarded(context: ssl.SSLContext) -> AbstractContextManager[None]:
    """To be held during a handshake."""
    return _guard(context)


def guard_by(guard: Guard) -> None:
    """From now on, in this process."""
    global _guard
    _guard = guard
