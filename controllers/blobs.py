"""Bytes for the API server: each blob by itself, under its digest, several on their way at a time.

A large one is looked for before it is sent. A small one is just sent: asking costs as much, and
sending what is there already stores nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from controllers.client import Client
from controllers.remembering import Memory
from resources import digest

# The API server keeps for an hour what nothing points at yet; half of that leaves time to use it.
KNOWN_S = 1800.0
KNOWN_MAX = 100_000
ASKED_FROM_BYTES = 64 * 1024
# The API server commits in groups what comes together.
PARALLEL = 16


class Blobs:
    """Remembers for a while what is there, so that of a large tree in which one file changed one
    file is asked for."""

    def __init__(self, client: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._known: Memory[tuple[str, str], bool] = Memory(KNOWN_MAX, monotonic=monotonic)
        # By the plain digest, which leaves this process nowhere.
        self._secret: Memory[tuple[str, str], str] = Memory(KNOWN_MAX, monotonic=monotonic)

    async def keep_all(
        self, namespace: str, blobs: Sequence[bytes], *, is_secret: bool = False
    ) -> list[str]:
        """`keep` for each of them, in order. Raises what the first that failed raised."""
        few = asyncio.Semaphore(PARALLEL)

        async def one(blob: bytes) -> str:
            async with few:
                return await self.keep(namespace, blob, is_secret=is_secret)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(blob)) for blob in blobs]
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None
        return [task.result() for task in tasks]

    async def keep(self, namespace: str, blob: bytes, *, is_secret: bool = False) -> str:
        """See to it that the API server has `blob`; its digest there."""
        name = digest.of_bytes(blob)
        if is_secret:
            return await self._keep_secret(namespace, name, blob)
        if self._known.get((namespace, name), KNOWN_S):
            return name
        is_large = len(blob) >= ASKED_FROM_BYTES
        if not (is_large and await self._client.has_content(namespace, name)):
            await self._client.post_content(namespace, blob)
        self._known.put((namespace, name), True)
        return name

    async def _keep_secret(self, namespace: str, name: str, blob: bytes) -> str:
        """Only the API server can say under which digest. Of a whole repository it is asked once
        for each file: most are the same in the next commit."""
        kept = self._secret.get((namespace, name), KNOWN_S)
        if kept is None:
            kept = await self._client.post_content(namespace, blob, is_secret=True)
            self._secret.put((namespace, name), kept)
        return kept

    def forget(self) -> None:
        """Something that should be there was not."""
        self._known.clear()
        self._secret.clear()
