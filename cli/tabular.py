"""Columns of text as kubectl aligns them. Pure.

The rules are those of Go's tabwriter with kubectl's settings: a cell is its text and three spaces,
and six characters at least; the last one of a line is as it is. Widths are remembered, so that what
a watch brings later stands under what came first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GAP = 3
CELL_MIN = 6
_BREAK = re.compile(r"[\n\r\f]")


class Columns:
    """Lines of cells under common widths."""

    def __init__(self) -> None:
        self._widths: list[int] = []

    def lines(self, rows: Iterable[Sequence[str]]) -> list[str]:
        """Aligned with each other, and with all rows before."""
        kept = [[_one_line(cell) for cell in row] for row in rows]
        for row in kept:
            for place, cell in enumerate(row):
                if place == len(self._widths):
                    self._widths.append(0)
                self._widths[place] = max(self._widths[place], CELL_MIN, len(cell) + GAP)
        return [self._line(row) for row in kept]

    def _line(self, row: Sequence[str]) -> str:
        padded = [cell.ljust(self._widths[place]) for place, cell in enumerate(row[:-1])]
        return "".join([*padded, *row[-1:]])


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    return Columns().lines(rows)


def _one_line(cell: str) -> str:
    """A cell ends where its first line ends, and says that there is more."""
    first = _BREAK.split(cell, maxsplit=1)[0]
    return first if first == cell else first + "..."
