"""Pushes: a webhook left a note on a Repository, and whoever reads from it is to look.

The note is a level, like everything that is looked at here: one that was not seen before means that
somebody pushed since, however often. After a start each note is one; to look once more is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controllers.client import FLIGHTCTL, Client
from resources import refreshing


@dataclass(slots=True)
class Pushes:
    """What one process has seen of the notes; it may all be lost."""

    client: Client
    # Called with a Repository that was pushed to.
    pushed: Callable[[Mapping[str, Any]], None]
    _seen: dict[tuple[str, str], str] = field(default_factory=dict)

    async def reconcile(self, namespace: str, name: str) -> None:
        """One look at the note."""
        key = namespace, name
        repository = await self.client.get(FLIGHTCTL, namespace, "repositories", name)
        if repository is None:
            self._seen.pop(key, None)
            return
        note = refreshing.note(repository)
        if note and note != self._seen.get(key):
            self.pushed(repository)
        self._seen[key] = note
