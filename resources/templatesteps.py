"""What a parsed template is made of: steps that run one after another, each a closure.

A step that computes gives a value, one that acts gives text. What they share is the `Run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from resources import templatefuncs as funcs
from resources.templatefuncs import Labels, Misuse, Value

# What one evaluation may read and write by functions and actions: twice the longest file. What
# stands in the template as it is costs nothing.
MAX_SPENT: Final = 2 << 20


class Run:
    """One evaluation: the device, what was set on the way, and what may still be spent."""

    __slots__ = ("_left", "is_strict", "labels", "name", "slots")

    def __init__(self, name: str, labels: Labels, slots: int, *, is_strict: bool) -> None:
        self.name, self.labels, self.is_strict = name, labels, is_strict
        self.slots: list[Any] = [None] * slots
        self._left = MAX_SPENT

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Misuse("the template does too much: more than 2 MiB are read and written")


class Stop(Exception):
    """An evaluation cannot go on, for a reason that lies at this offset."""

    def __init__(self, offset: int, detail: str) -> None:
        self.offset, self.detail = offset, detail


Compute: TypeAlias = Callable[[Run], Value]
Act: TypeAlias = Callable[[Run], str]


def name(run: Run) -> Value:
    return run.name


def all_labels(run: Run) -> Value:
    return run.labels


def slot(number: int) -> Compute:
    def compute(run: Run) -> Value:
        value: Value = run.slots[number]
        return value

    return compute


def labelled(key: str, offset: int) -> Compute:
    def compute(run: Run) -> Value:
        value = run.labels.get(key)
        if value is None:
            if run.is_strict:
                raise Stop(offset, f'the device has no label "{key}"')
            return ""
        return value

    return compute


def remembering(number: int, compute: Compute) -> Compute:
    def remember(run: Run) -> Value:
        value = run.slots[number] = compute(run)
        return value

    return remember


def deciding(computes: tuple[Compute, ...], *, stops_at: bool) -> Compute:
    def decide(run: Run) -> Value:
        for compute in computes:
            value = compute(run)
            if funcs.is_true(value) is stops_at:
                break
        return value

    return decide


def calling(function: funcs.Function, computes: tuple[Compute, ...], offset: int) -> Compute:
    def call(run: Run) -> Value:
        values = [compute(run) for compute in computes]
        try:
            run.spend(sum(map(funcs.size_of, values)))
            value = function.call(run, values)
            run.spend(funcs.size_of(value))
        except Misuse as problem:
            raise Stop(offset, str(problem)) from None
        return value

    return call


def writing(text: str) -> Act:
    # Written once at most, for nothing repeats: the length of the template has paid for it.
    return lambda _: text


def printing(compute: Compute, offset: int) -> Act:
    def show(run: Run) -> str:
        value = compute(run)
        text = value if isinstance(value, str) else funcs.shown(value)
        try:
            run.spend(len(text))
        except Misuse as problem:
            raise Stop(offset, str(problem)) from None
        return text

    return show


def setting(number: int, compute: Compute) -> Act:
    def put(run: Run) -> str:
        run.slots[number] = compute(run)
        return ""

    return put


def choosing(
    branches: tuple[tuple[Act | None, Compute, tuple[Act, ...]], ...],
    otherwise: tuple[Act, ...],
) -> Act:
    def choose(run: Run) -> str:
        chosen = otherwise
        for set_variable, compute, acts in branches:
            if set_variable is not None:
                set_variable(run)
            if funcs.is_true(compute(run)):
                chosen = acts
                break
        return "".join([act(run) for act in chosen])

    return choose
