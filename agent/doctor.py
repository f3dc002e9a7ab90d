"""`homeport-agent doctor`: what keeps this device from being managed, or soon will.

Each check looks at one thing, changes nothing, and says what is wrong and what to do about it. A
check that fails by itself is an error of its own and spares the others. The agent need not run, nor
be configured: that is when a doctor is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from agent import checks, child, config, fields, world
from agent.findings import ERROR, WARNING, Finding, Patient
from resources.records import asdict

Json = dict[str, Any]


def examine(
    where: world.World,
    load: Callable[[], config.Settings],
    *,
    real_path: Callable[[str], str] = str,
    ask: Callable[[Json], Json] = child.ask,
) -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    settings, found = None, []
    try:
        settings = load()
    except (fields.ConfigError, OSError) as error:
        hint = "put the service's enrolment configuration there; the agent waits for it"
        found = [Finding(ERROR, "configuration", str(error), hint)]
    patient = Patient(where, settings, real_path, ask)
    for check in checks.CHECKS:
        try:
            found += check(patient)
        except Exception as error:  # one broken check must not hide what the others see
            name = check.__name__.replace("_", " ")
            found.append(Finding(ERROR, name, f"not looked at: {error}"))
    return found


def report(found: list[Finding]) -> Json:
    return {
        "errors": sum(one.level == ERROR for one in found),
        "warnings": sum(one.level == WARNING for one in found),
        "findings": [asdict(one) for one in found],
    }


def lines(found: list[Finding]) -> Iterator[str]:
    for one in found:
        yield f"{one.level:<8} {one.check}: {one.message}"
        if one.hint:
            yield f"{'':<8} hint: {one.hint}"
    counts = report(found)
    yield ", ".join(_counted(counts[f"{word}s"], word) for word in (ERROR, WARNING))


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
