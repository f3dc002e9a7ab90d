"""How a download is ordered from the process that carries it out (`downloading`), and where what it
has begun is kept. What the agent knows of it without carrying its weight."""

from __future__ import annotations

import json

from resources.records import asdict, dataclass

# Below the agent's own folder.
FOLDER, BLOBS, SCRATCH = "downloads", "blobs", "scratch"
AUTH = "pull-auth.json"
MODULE = "agent.downloading"


@dataclass(frozen=True, slots=True)
class Order:
    """`folder` is for what is under way; `watched` are folders that must not fill up. `reference`
    is what podman is to fetch; empty = nothing that could be continued."""

    argv: tuple[str, ...]
    folder: str
    watched: tuple[str, ...] = ()
    reference: str = ""
    auth_file: str = ""

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def decode(raw: bytes) -> Order:
    found = json.loads(raw)
    return Order(
        tuple(found["argv"]),
        found["folder"],
        tuple(found["watched"]),
        found["reference"],
        found["auth_file"],
    )
