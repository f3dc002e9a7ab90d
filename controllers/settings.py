"""What the controllers are told at their start, beside where the API server is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# How often outside sources are asked whether they have changed. `homeport up` asks every 5 seconds:
# there they are few, and a person waits.
POLL_S = 60.0
# How often it is tried whether a repository can be read.
ACCESS_S = 120.0
# Which SSH servers are known, for Repositories that do not say so themselves; where flightctl's
# packages put it. It need not exist.
KNOWN_HOSTS = Path("/etc/flightctl/ssh/known_hosts")


@dataclass(frozen=True, slots=True)
class Settings:
    """`state`: a directory of ours alone; what lies in it can be made anew. `host_kubeconfig`: the
    cluster whose Secrets are read, if it is not the one that we run in."""

    state: Path
    poll_s: float = POLL_S
    host_kubeconfig: Path | None = None
    access_s: float = ACCESS_S
    known_hosts: Path = KNOWN_HOSTS

    @property
    def mirrors(self) -> Path:
        return self.state / "git"
