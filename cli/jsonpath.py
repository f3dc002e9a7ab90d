"""kubectl's JSONPath templates: text, and in braces paths, literals and ranges. Pure.

    {.metadata.name}{"\\t"}{range .items[*]}{.metadata.name}{"\\n"}{end}

A template is parsed once into a tree of small frozen things, and evaluated against documents. As
with kubectl a field that is missing is nothing, an index beyond the end is an error, and several
results stand beside each other with a space between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cli import gojson

DEPTH_MAX = 64


class BadTemplate(ValueError):
    """The template cannot be read, or not be applied to this document."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    name: str


@dataclass(frozen=True, slots=True)
class Union:
    """`[a,b]`: fields, indexes, slices, one after the other."""

    parts: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    start: int | None
    stop: int | None
    step: int | None
    is_index: bool = False


@dataclass(frozen=True, slots=True)
class Wild:
    pass


@dataclass(frozen=True, slots=True)
class Deep:
    """`..`: the value itself and everything below it."""


@dataclass(frozen=True, slots=True)
class Filter:
    left: Path | Text
    operator: str
    right: Path | Text | None


Step = Field | Union | Slice | Wild | Deep | Filter


@dataclass(frozen=True, slots=True)
class Path:
    """Steps from where the template stands, or from the root (`$`)."""

    steps: tuple[Step, ...]
    from_root: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    over: Path
    body: tuple[Node, ...]


Node = Text | Path | Range

_NAME = re.compile(r"(?:\\.|[^\s.\[\]{}()'\",=<>!|@$*?])+")
_NUMBER = re.compile(r"-?\d+")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>|=~")
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse(template: str) -> tuple[Node, ...]:
    """Raises BadTemplate, which says where."""
    reader = _Reader(template)
    nodes = reader.nodes(inside_range=False)
    return nodes


def relaxed(text: str) -> str:
    """`metadata.name`, `.metadata.name` and `{.metadata.name}` as the last of them: what column
    specifications, `--sort-by` and `wait` take."""
    bare = text.removeprefix("{").removesuffix("}") if text.startswith("{") else text
    return "{" + (bare if bare.startswith((".", "[", "$", "@")) else f".{bare}") + "}"


def evaluate(nodes: Sequence[Node], document: Any) -> str:
    """The text that the template makes of `document`."""
    return "".join(_written(nodes, document, document, 0))


def find(nodes: Sequence[Node], document: Any) -> list[Any]:
    """What the paths of the template find, one after the other."""
    found: list[Any] = []
    for node in nodes:
        if isinstance(node, Path):
            found += _follow(node, document, document)
    return found


def text_of(value: Any) -> str:
    """One result, as it is printed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return gojson.number(value)
    return value if isinstance(value, str) else gojson.compact(value)


def _written(nodes: Sequence[Node], here: Any, root: Any, depth: int) -> Iterator[str]:
    for node in nodes:
        match node:
            case Text(text):
                yield text
            case Range(over, body):
                for value in _follow(over, here, root):
                    yield from _written(body, value, root, depth + 1)
            case _:
                yield " ".join(text_of(value) for value in _follow(node, here, root))


def _follow(path: Path, here: Any, root: Any) -> list[Any]:
    values = [root if path.from_root else here]
    for step in path.steps:
        # Of a union kubectl takes the first part of all values, then the second of all.
        parts = step.parts if isinstance(step, Union) else (step,)
        values = [found for part in parts for value in values for found in _step(part, value, root)]
    return values


def _step(step: Step, value: Any, root: Any) -> Iterator[Any]:
    match step:
        case Field(name):
            if isinstance(value, dict) and name in value:
                yield value[name]
        case Slice():
            yield from _sliced(step, value)
        case Wild():
            yield from _inner(value)
        case Deep():
            yield value
            for inner in _inner(value):
                yield from _step(step, inner, root)
        case Filter():
            for item in value if isinstance(value, list) else _inner(value):
                if _holds(step, item, root):
                    yield item


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    return list(value) if isinstance(value, list) else []


def _sliced(step: Slice, value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        return
    if not step.is_index:
        yield from value[step.start : step.stop : step.step]
        return
    index = step.start or 0
    if not -len(value) <= index < len(value):
        raise BadTemplate(f"array index out of bounds: index {index}, length {len(value)}")
    yield value[index]


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}


def _holds(step: Filter, item: Any, root: Any) -> bool:
    left = _operand(step.left, item, root)
    if step.right is None:
        return bool(left)
    right = _operand(step.right, item, root)
    if not left or not right:
        return False
    a, b = left[0], right[0]
    if isinstance(a, str) is not isinstance(b, str):
        # A literal without quotes is a word: `@.ready==true`, `@.count==3`.
        a, b = text_of(a), text_of(b)
    try:
        return _COMPARE[step.operator](a, b)
    except TypeError:
        return False


def _operand(side: Path | Text, item: Any, root: Any) -> list[Any]:
    return [side.text] if isinstance(side, Text) else _follow(side, item, root)


class _Reader:
    """Recursive descent over the text of a template."""

    def __init__(self, template: str) -> None:
        self.text = template
        self.at = 0
        self.depth = 0

    def nodes(self, *, inside_range: bool) -> tuple[Node, ...]:
        found: list[Node] = []
        while self.at < len(self.text):
            brace = self.text.find("{", self.at)
            if brace < 0:
                found.append(Text(self.text[self.at :]))
                self.at = len(self.text)
                break
            if brace > self.at:
                found.append(Text(self.text[self.at : brace]))
            self.at = brace + 1
            self._skip()
            if self._word("end"):
                if not inside_range:
                    raise self.wrong("{end} without {range}")
                self._expect("}")
                return tuple(found)
            found += self._braces()
        if inside_range:
            raise self.wrong("{range} without {end}")
        return tuple(found)

    def _braces(self) -> list[Node]:
        if self._word("range"):
            self._skip()
            over = self._path()
            self._skip()
            self._expect("}")
            self.depth += 1
            if self.depth > DEPTH_MAX:
                raise self.wrong("ranges are nested too deeply")
            body = self.nodes(inside_range=True)
            self.depth -= 1
            return [Range(over, body)]
        found: list[Node] = []
        while True:
            self._skip()
            if self._peek() == "}":
                self.at += 1
                return found
            if self._peek() in ("'", '"'):
                found.append(Text(self._quoted()))
            elif not self._peek():
                raise self.wrong("a brace is not closed")
            else:
                found.append(self._path())

    def _path(self) -> Path:
        begin = self.at
        from_root = self._peek() == "$"
        if self._peek() in ("$", "@"):
            self.at += 1
        steps: list[Step] = []
        while True:
            if self.text.startswith("..", self.at):
                self.at += 1 if self.text[self.at + 2 : self.at + 3] not in ("[",) else 2
                steps.append(Deep())
            elif self._peek() == ".":
                self.at += 1
                if self._peek() == "*":
                    self.at += 1
                    steps.append(Wild())
                elif self._peek() != "[" and (name := self._name()):
                    steps.append(Field(name))
            elif self._peek() == "[":
                steps.append(self._brackets())
            elif not steps and (name := self._name()):
                steps.append(Field(name))
            else:
                break
        # NB: every path consumes something, or the reader would stand still for ever.
        if self.at == begin:
            raise self.wrong(f'unexpected "{self._peek()}"')
        return Path(tuple(steps), from_root)

    def _brackets(self) -> Step:
        self._expect("[")
        self._skip()
        if self._peek() == "?":
            return self._filter()
        parts: list[Step] = []
        while True:
            self._skip()
            parts.append(self._part())
            self._skip()
            if self._peek() != ",":
                break
            self.at += 1
        self._expect("]")
        return parts[0] if len(parts) == 1 else Union(tuple(parts))

    def _part(self) -> Step:
        if self._peek() == "*":
            self.at += 1
            return Wild()
        if self._peek() in ("'", '"'):
            return Field(self._quoted())
        start = self._integer()
        if self._peek() != ":":
            if start is not None:
                return Slice(start, None, None, is_index=True)
            if name := self._name():
                return Field(name)
            raise self.wrong("an index, a slice, a name in quotes or * is expected")
        self.at += 1
        stop = self._integer()
        step = None
        if self._peek() == ":":
            self.at += 1
            step = self._integer()
            if step is not None and step < 1:
                raise self.wrong("a step must be at least 1")
        return Slice(start, stop, step)

    def _filter(self) -> Filter:
        self._expect("?")
        self._expect("(")
        left = self._side()
        self._skip()
        operator, right = "", None
        if found := _OPERATOR.match(self.text, self.at):
            operator = found[0]
            if operator not in _COMPARE:
                raise self.wrong(f"{operator} is not supported; use == != < > <= >=")
            self.at = found.end()
            right = self._side()
            self._skip()
        self._expect(")")
        self._expect("]")
        return Filter(left, operator, right)

    def _side(self) -> Path | Text:
        self._skip()
        if self._peek() in ("'", '"'):
            return Text(self._quoted())
        if self._peek() in ("@", "$", "."):
            return self._path()
        found = re.compile(r"[^\s()\[\]=!<>]+").match(self.text, self.at)
        if found is None:
            raise self.wrong("one side of the filter is missing")
        self.at = found.end()
        return Text(found[0])

    def _quoted(self) -> str:
        quote = self._peek()
        closing = re.compile(rf"(?:\\.|[^\\{quote}])*{quote}", re.DOTALL)
        found = closing.match(self.text, self.at + 1)
        if found is None:
            raise self.wrong("a quote is not closed")
        self.at = found.end()
        return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), found[0][:-1])

    def _name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return _ESCAPE.sub(r"\1", found[0])

    def _integer(self) -> int | None:
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return int(found[0])

    def _word(self, word: str) -> bool:
        if re.compile(rf"{word}(?=[\s}}.\[@$])").match(self.text, self.at) is None:
            return False
        self.at += len(word)
        return True

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self.wrong(f'"{character}" is expected')
        self.at += 1

    def wrong(self, what: str) -> BadTemplate:
        return BadTemplate(f"{what} at character {self.at + 1} of {self.text!r}")
