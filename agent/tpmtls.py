"""TLS with a key that is in a TPM: OpenSSL's provider `tpm2` signs handshakes there.

Python's `ssl` knows no providers, but it uses the process's own libcrypto, so what is told to that
holds for it too. Three things are peculiar, and each was seen to fail without its remedy:

- For a handshake with a TPM's key OpenSSL must prefer the provider's signatures, else it takes the
  public part elsewhere and can't sign; for one with a key in a file it must not. The preference is
  the whole process's, so it is given for the time of a handshake only.
- The provider is used by one thread at a time. So handshakes wait for one another here, and for the
  loading of keys. Reading and writing on connections is not concerned: it signs nothing.
- Unloading a key speaks to the TPM too, and happens wherever the last connection is closed. So a
  context is made once for each certificate, and kept until the process ends; a certificate lasts
  for months.

While the preference holds, the provider verifies the other side's signatures too, in the TPM: a
service whose certificates have keys that a TPM can't load (RSA above 2048 or 3072 bits, by model)
can't be reached with a key in one (docs/decisions/0027).
"""

from __future__ import annotations

import ctypes
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent import handshaking
from agent.transport import Credentials

PREFERRED = b"?tpm2.signature=yes"

_lock = threading.RLock()
_kept: dict[Credentials, ssl.SSLContext] = {}
_loaded: list[ctypes.CDLL] = []


def context(shown: Credentials, make: Callable[[Credentials], ssl.SSLContext]) -> ssl.SSLContext:
    """The context for these credentials. Raises ValueError where OpenSSL can't use the key."""
    with _lock:
        _provider()
        if shown not in _kept:
            _kept[shown] = make(shown)
        return _kept[shown]


def _provider() -> ctypes.CDLL:
    """libcrypto with the provider in it. Raises ValueError."""
    if not _loaded:
        library = _libcrypto()
        # "default" is there by itself only as long as no other is loaded.
        for name in (b"default", b"tpm2"):
            if not library.OSSL_PROVIDER_load(None, name):
                raise ValueError("OpenSSL's tpm2 provider cannot be loaded (package tpm2-openssl)")
        handshaking.guard_by(_guard)
        _loaded.append(library)
    return _loaded[0]


def _libcrypto() -> ctypes.CDLL:
    """The one that this process's `ssl` uses already."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "libcrypto.so" in path:
            library = ctypes.CDLL(path)
            library.OSSL_PROVIDER_load.restype = ctypes.c_void_p
            for function in (library.OSSL_PROVIDER_load, library.EVP_set_default_properties):
                function.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
            return library
    raise ValueError("this Python brings an OpenSSL of its own, which has no providers")


@contextmanager
def _guard(context: ssl.SSLContext) -> Iterator[None]:
    with _lock:
        is_in_tpm = any(context is each for each in _kept.values())
        if is_in_tpm:
            _provider().EVP_set_default_properties(None, PREFERRED)
        try:
            yield
        finally:
            if is_in_tpm:
                _provider().EVP_set_default_properties(None, b"")
