"""Bytes for the API server: each sent once, under its digest, and looked for before it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

from controllers.client import Client
from controllers.remembering import Memory
from resources import digest

# The API server keeps for an hour what nothing points at yet; half of that leaves time to use it.
KNOWN_S = 1800.0
KNOWN_MAX = 100_000


class Blobs:
    """Remembers for a while what is there, so that of a large tree in which one file changed one
    file is asked for."""

    def __init__(self, client: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._known: Memory[tuple[str, str], bool] = Memory(KNOWN_MAX, monotonic=monotonic)

    async def keep(self, namespace: str, blob: bytes, *, is_secret: bool = False) -> str:
        """See to it that the API server has `blob`; its digest there."""
        if is_secret:
            # Only the API server can say under which digest.
            return await self._client.post_content(namespace, blob, is_secret=True)
        name = digest.of_bytes(blob)
        if self._known.get((namespace, name), KNOWN_S):
            return name
        if not await self._client.has_content(namespace, name):
            await self._client.post_content(namespace, blob)
        self._known.put((namespace, name), True)
        return name

    def forget(self) -> None:
        """Something that should be there was not."""
        self._known.clear()
