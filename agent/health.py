"""`homeport-agent health`: is the agent of this device up, and does it stay up? For greenboot.

An offline device is healthy: whether the service can be reached is the agent's own affair, and no
reason to go back to another system. What counts is that systemd has the unit enabled and active,
and that it stays so for a while. A restart within that while counts as a failure, also where the
unit is active again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent import world
from resources.records import dataclass

UNIT = "flightctl-agent.service"
QUICK_S = 10.0
UP = ("active", "reloading")

HEALTHY, UNHEALTHY, WRONG_USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Patience:
    timeout_s: float = 150.0
    stability_s: float = 60.0
    poll_s: float = 5.0


def show_argv() -> list[str]:
    return ["systemctl", "show", "--all", "--", UNIT]


def properties(stdout: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in stdout.splitlines())
    return {key: value for key, found, value in pairs if found}


def check(where: world.World, patience: Patience, say: Callable[[str], None]) -> int:
    """The exit status; `say` is told why."""
    unit = _wait(where, patience, say)
    if unit is None:
        return UNHEALTHY
    if text := unit.get("StatusText"):
        say(f"{UNIT} says: {text}")
    restarts = unit.get("NRestarts", "")
    end = where.monotonic() + patience.stability_s
    while where.monotonic() < end:
        where.sleep(patience.poll_s)
        unit = _look(where)
        if unit is None:
            continue
        if unit.get("ActiveState") not in UP:
            say(f"{UNIT} did not stay up: it is {unit.get('ActiveState', 'unknown')}")
            return UNHEALTHY
        if unit.get("NRestarts", "") != restarts:
            say(f"{UNIT} was restarted within {patience.stability_s:g} s")
            return UNHEALTHY
    say(f"{UNIT} is up and stays up")
    return HEALTHY


def _wait(
    where: world.World, patience: Patience, say: Callable[[str], None]
) -> Mapping[str, str] | None:
    """The unit once it is up; None = it is not, or will not be."""
    deadline = where.monotonic() + patience.timeout_s
    last = "unknown"
    while True:
        unit = _look(where)
        if unit is not None:
            last = unit.get("ActiveState", "unknown")
            enabled = unit.get("UnitFileState", "")
            if enabled != "enabled":
                say(f"{UNIT} is not enabled: {enabled or 'no such unit'}")
                return None
            if last in UP:
                return unit
            if last == "failed":
                say(f"{UNIT} has failed: {unit.get('Result', '')}")
                return None
        if where.monotonic() >= deadline:
            say(f"{UNIT} is not up after {patience.timeout_s:g} s: it is {last}")
            return None
        where.sleep(patience.poll_s)


def _look(where: world.World) -> dict[str, str] | None:
    """None = systemd did not answer; the next look may be luckier."""
    answer = where.run(show_argv(), timeout_s=QUICK_S)
    return properties(answer.stdout) if answer.ok else None
