"""The real Linux world below a directory, with a clock that tests set and commands they script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent import world
from agent.linux import LinuxWorld

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class ClockedWorld(LinuxWorld):
    """Files, owners and permissions are real; `sleep` moves the clock instead of waiting."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.elapsed_s = 0.0
        self.offset_s = 0.0
        self.commands: list[tuple[str, ...]] = []
        self.answer: Callable[[tuple[str, ...]], world.Completed] | None = None
        self.chance = 0.5

    def now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed_s + self.offset_s)

    def monotonic(self) -> float:
        return self.elapsed_s

    def sleep(self, seconds: float) -> None:
        self.elapsed_s += seconds

    def random(self) -> float:
        return self.chance

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        self.commands.append(tuple(argv))
        if self.answer is not None:
            return self.answer(tuple(argv))
        return super().run(argv, timeout_s=timeout_s, stdin=stdin, env=env, cwd=cwd)

    def put(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """Test set-up: a file, with its directories."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        place.chmod(mode)
