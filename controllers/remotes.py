"""Repositories by name, as Remotes: credentials are read when a Repository changes, and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controllers.client import FLIGHTCTL, Client
from controllers.gitremote import Remote, remote_of

Json = dict[str, Any]


@dataclass(slots=True)
class Remotes:
    """The Remotes of one process. A Repository's uid and generation say whether it changed."""

    client: Client
    _known: dict[tuple[str, str], tuple[Json, Remote]] = field(default_factory=dict, repr=False)

    async def of(self, namespace: str, name: str) -> Remote | None:
        """The Remote of a Repository; None if there is none. Raises BadRemote."""
        key = (namespace, name)
        shown = await self.client.get(FLIGHTCTL, namespace, "repositories", name)
        if shown is None:
            self._known.pop(key, None)
            return None
        identity = _identity(shown)
        if key in self._known and self._known[key][0] == identity:
            return self._known[key][1]
        whole = await self.client.credentials(namespace, name)
        if whole is None:
            return None
        remote = remote_of(whole)
        self._known[key] = _identity(whole), remote
        return remote


def _identity(repository: Json) -> Json:
    return {key: repository["metadata"][key] for key in ("uid", "generation")}
