"""What a measurement is, and how many of them are shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

CORE = "core, without HTTP"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement, beside the goal of architecture §11 and the reference's figure."""

    what: str
    value: float
    unit: str
    goal: str = "-"
    reference: str = "-"
    scope: str = CORE


def yardstick() -> Figure:
    """How fast this machine is at what all the rest is made of, for comparing two machines."""
    best, number = 0.0, 2_000_000
    for _ in range(3):
        start, total = time.process_time(), 0
        for n in range(number):
            total += n
        best = max(best, number / (time.process_time() - start) / 1e6)
    return Figure("yardstick: additions in Python", best, "million/s", scope="-")


async def latency(work: Callable[[], Awaitable[Any]], rounds: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def show(figures: list[Figure]) -> None:
    width = max(len(figure.what) for figure in figures)
    print(f"{'what':{width}}  {'ours':>20}  {'goal':>14}  {'reference':>18}  scope")
    for figure in figures:
        ours = f"{figure.value:,.2f} {figure.unit}"
        print(
            f"{figure.what:{width}}  {ours:>20}  {figure.goal:>14}  {figure.reference:>18}"
            f"  {figure.scope}"
        )
