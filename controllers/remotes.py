"""Repositories with their credentials, by name: the one place where controllers read these.

Each reading is noted by the API server, and opening a locked key takes time on purpose; so what was
read is kept, until the Repository is said to have changed or CREDENTIALS_S have passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from controllers import gitremote
from controllers.client import Client
from controllers.gitremote import Remote
from controllers.remembering import Memory

Json = dict[str, Any]

# A change that nobody told of is noticed after as long.
CREDENTIALS_S = 300.0
REMEMBERED = 2_000


class Known:
    """A Repository as it is stored, and as git is told of it."""

    def __init__(self, repository: Mapping[str, Any]) -> None:
        self.repository = repository

    @cached_property
    def remote(self) -> Remote:
        """Raises BadRemote, each time anew."""
        return gitremote.remote_of(self.repository)


class Remotes:
    """The Repositories of one process."""

    def __init__(self, client: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._known: Memory[tuple[str, str], Known] = Memory(REMEMBERED, monotonic=monotonic)

    async def of(self, namespace: str, name: str) -> Known | None:
        """The Repository; None if there is none."""
        key = namespace, name
        found = self._known.get(key, CREDENTIALS_S)
        if found is None:
            question = self._known.asking()
            repository = await self._client.credentials(namespace, name)
            if repository is None:
                return None
            found = Known(repository)
            self._known.put(key, found, question)
        return found

    def changed(self, namespace: str, name: str) -> None:
        """The Repository was changed, or is gone: it is read again."""
        self._known.drop((namespace, name))
