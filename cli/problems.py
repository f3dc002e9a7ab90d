"""What can go wrong for a person at a terminal, and how it is told: one line that says what and
where, in kubectl's words where kubectl has words for it, and a hint of what to do next."""

from __future__ import annotations

import sys


class Problem(Exception):
    """Expected. `hint` is a way on, where there is one."""

    hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint

    def told(self) -> str:
        return f"error: {self}"


def tell(problem: Problem) -> None:
    """To standard error."""
    print(problem.told(), file=sys.stderr)
    if problem.hint:
        print(f"hint: {problem.hint}", file=sys.stderr)
