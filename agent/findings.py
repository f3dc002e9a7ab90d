"""What `homeport-agent doctor` has found, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent import child, config, world
from resources.records import dataclass

Json = dict[str, Any]

# An error if the agent cannot do its work because of it now, a warning if it will not, or not all.
OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """`hint` is what to do about it."""

    level: str
    check: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """`settings` None = the configuration cannot be used; `ask` is `child.ask`."""

    world: world.World
    settings: config.Settings | None
    real_path: Callable[[str], str] = str
    ask: Callable[[Json], Json] = child.ask

    @property
    def data_dir(self) -> str:
        return self.settings.data_dir if self.settings else config.DATA_DIR
