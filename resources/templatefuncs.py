"""The functions of templates: Go's own, as far as labels and names need them, and the reference's.

Values are texts, whole numbers, truth values, and the labels of the device as a whole. What comes
out is what Go makes of them, to the byte. Where Go would write its complaint into the output (as
`%!d(string=x)`) there is an error instead: no file of a device should ever hold that.

Every call is charged for what it reads and writes, before it is made where the result can be much
longer, so that no template, however it nests and repeats, takes long or grows.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import quote_plus

Labels: TypeAlias = Mapping[str, str]
Value: TypeAlias = str | int | bool | Labels

MAX_WIDTH: Final = 999


class Misuse(Exception):
    """A function was given what it cannot work with."""


class Purse(Protocol):
    """What an evaluation may still do."""

    def spend(self, size: int) -> None:
        """Take note of so many characters read or written. Raises when it is too much."""


@dataclass(frozen=True, slots=True)
class Function:
    """`least` and `most` arguments; `most` None is any number."""

    call: Callable[[Purse, Sequence[Value]], Value]
    least: int
    most: int | None


def size_of(value: Value) -> int:
    """What it costs to look at a value."""
    if isinstance(value, str):
        return len(value) + 1
    return 1 if isinstance(value, int) else 1 + sum(len(k) + len(v) for k, v in value.items())


def shown(value: Value) -> str:
    """A value as an action writes it."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"


def is_true(value: Value) -> bool:
    """Labels are true though there be none: the reference hands out a pointer to them."""
    return bool(value) if isinstance(value, str | int) else True


def _kind(value: Value) -> str:
    match value:
        case str():
            return "a text"
        case bool():
            return "a truth value"
        case int():
            return "a number"
    return "the labels as a whole"


def _text(function: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    raise Misuse(f"{function} takes a text here, not {_kind(value)}")


# --- comparing ------------------------------------------------------------------------------


def _eq(_: Purse, values: Sequence[Value]) -> bool:
    first = values[0]
    for other in values[1:]:
        _comparable(first, other)
        if first == other:
            return True
    return False


def _ne(purse: Purse, values: Sequence[Value]) -> bool:
    return not _eq(purse, values)


def _comparable(one: Value, other: Value) -> None:
    if _kind(one) != _kind(other):
        raise Misuse(f"{_kind(one)} and {_kind(other)} cannot be compared")


def _ordering(holds: Callable[[Any, Any], bool]) -> Callable[[Purse, Sequence[Value]], bool]:
    def compare(_: Purse, values: Sequence[Value]) -> bool:
        one, other = values
        _comparable(one, other)
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise Misuse(f"{_kind(one)} is neither more nor less than another")
        # Texts by their characters' numbers, which is the order of their bytes too.
        return holds(one, other)

    return compare


def _not(_: Purse, values: Sequence[Value]) -> bool:
    return not is_true(values[0])


# --- parts ----------------------------------------------------------------------------------


def _index(_: Purse, values: Sequence[Value]) -> str:
    labels, key = values
    if isinstance(labels, str | int):
        raise Misuse(f"index takes the labels, not {_kind(labels)}")
    # As in Go: by index, a label that is not there is empty, and never an error.
    return labels.get(_text("index", key), "")


def _get_or_default(_: Purse, values: Sequence[Value]) -> str:
    labels, key, default = values
    if isinstance(labels, str | int):
        raise Misuse(f"getOrDefault takes the labels, not {_kind(labels)}")
    default = _text("getOrDefault", default)
    return labels.get(_text("getOrDefault", key), default)


def _len(_: Purse, values: Sequence[Value]) -> int:
    match values[0]:
        case str() as text:
            return len(text.encode())
        case int():
            raise Misuse(f"{_kind(values[0])} has no length")
        case labels:
            return len(labels)


def _slice(_: Purse, values: Sequence[Value]) -> str:
    blob = _text("slice", values[0]).encode()
    bounds = [0, len(blob)]
    for place, bound in enumerate(values[1:]):
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise Misuse(f"slice counts with numbers, not {_kind(bound)}")
        if not 0 <= bound <= len(blob):
            raise Misuse(f"slice: {bound} is outside a text of {len(blob)} bytes")
        bounds[place] = bound
    begin, end = bounds
    if begin > end:
        raise Misuse(f"slice: {begin} lies behind {end}")
    try:
        return blob[begin:end].decode()
    except UnicodeDecodeError:
        raise Misuse("slice: it counts bytes, and would cut a character in two") from None


# --- texts ----------------------------------------------------------------------------------


def _cased(change: Callable[[str], str]) -> Callable[[Purse, Sequence[Value]], str]:
    def call(_: Purse, values: Sequence[Value]) -> str:
        text = values[0]
        if not isinstance(text, str):
            return ""
        # Character by character: Go knows no rule that makes two of one.
        return change(text) if text.isascii() else "".join(_one(change(c), c) for c in text)

    return call


def _one(changed: str, was: str) -> str:
    return changed if len(changed) == 1 else was


def _replace(purse: Purse, values: Sequence[Value]) -> str:
    old, new = _text("replace", values[0]), _text("replace", values[1])
    text = values[2] if isinstance(values[2], str) else ""
    purse.spend(text.count(old) * len(new))
    return text.replace(old, new)


_HTML = str.maketrans(
    {'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"}
)
_JS = str.maketrans(
    {char: f"\\u{ord(char):04X}" for char in (*map(chr, range(0x20)), *"<>&=")}
    | {char: f"\\{char}" for char in "\\'\""}
)


def _js(text: str) -> str:
    escaped = text.translate(_JS)
    if escaped.isprintable():
        return escaped
    return "".join(c if c.isascii() or c.isprintable() else f"\\u{ord(c):04X}" for c in escaped)


def _escaping(change: Callable[[str], str]) -> Callable[[Purse, Sequence[Value]], str]:
    def call(purse: Purse, values: Sequence[Value]) -> str:
        text = _joined(values, shown)
        purse.spend(len(text))
        return change(text)

    return call


def _shown_at_an_address(value: Value) -> str:
    # What printing functions get is the pointer to the labels, and they say so.
    return shown(value) if isinstance(value, str | int) else "&" + shown(value)


def _joined(values: Sequence[Value], show: Callable[[Value], str]) -> str:
    pieces: list[str] = []
    was_text = True
    for value in values:
        is_text = isinstance(value, str)
        if pieces and not is_text and not was_text:
            pieces.append(" ")
        pieces.append(show(value))
        was_text = is_text
    return "".join(pieces)


def _print(_: Purse, values: Sequence[Value]) -> str:
    return _joined(values, _shown_at_an_address)


def _println(_: Purse, values: Sequence[Value]) -> str:
    return " ".join(map(_shown_at_an_address, values)) + "\n"


# --- printf ---------------------------------------------------------------------------------

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?P<dot>\.(?P<precision>\d*))?(?P<verb>.?)",
                   re.DOTALL)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Form:
    """One `%` of a format. `precision` is None where none is written."""

    flags: str
    width: int
    precision: int | None

    def padded(self, text: str, *, zeros: bool = True) -> str:
        if "-" in self.flags:
            return text.ljust(self.width)
        return text.rjust(self.width, "0" if zeros and "0" in self.flags else " ")


def _printf(purse: Purse, values: Sequence[Value]) -> str:
    form, rest = _text("printf", values[0]), list(reversed(values[1:]))
    pieces, at = [], 0
    for found in _VERB.finditer(form):
        pieces.append(form[at : found.start()])
        at = found.end()
        verb = found["verb"]
        if verb == "%":
            pieces.append("%")
            continue
        if not rest and verb:
            raise Misuse(f"printf has no value for {found[0]}")
        piece = _formatted(found, rest.pop() if verb else "")
        purse.spend(len(piece))
        pieces.append(piece)
    if rest:
        raise Misuse(f"printf has {len(rest)} more values than {_quoted(form, '')} takes")
    return "".join(pieces) + form[at:]


def _formatted(found: re.Match[str], value: Value) -> str:
    verb = found["verb"]
    width, precision = _number(found["width"]), _number(found["precision"])
    form = _Form(found["flags"], width, precision if found["dot"] else None)
    match value:
        case str() if verb in _TEXTS:
            return _TEXTS[verb](value, form)
        case bool() if verb in ("t", "v"):
            return form.padded(shown(value))
        case int() if not isinstance(value, bool) and verb in _BASES:
            return _integer(value, verb, form)
        case int() if not isinstance(value, bool) and verb == "c":
            is_character = 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF
            return form.padded(chr(value) if is_character else "\ufffd")
    if not verb:
        raise Misuse(f"printf: {found[0]} has no verb")
    raise Misuse(f"printf: {found[0]} does not go with {_kind(value)}")


def _number(digits: str | None) -> int:
    if digits and (len(digits) > 9 or int(digits) > MAX_WIDTH):
        raise Misuse(f"printf: a width or precision is at most {MAX_WIDTH}")
    return int(digits or 0)


def _string(text: str, form: _Form) -> str:
    return form.padded(text[: form.precision])


def _quoted_form(text: str, form: _Form) -> str:
    return form.padded(_quoted(text[: form.precision], form.flags))


def _value_form(text: str, form: _Form) -> str:
    if "#" not in form.flags:
        return _string(text, form)
    # The sharp and the plus were for the verb, and say nothing to the quoting.
    return form.padded(_quoted(text[: form.precision], ""))


def _quoted(text: str, flags: str) -> str:
    raw = "`" not in text and "\ufeff" not in text
    if "#" in flags and raw and all(c == "\t" or (c >= " " and c != "\x7f") for c in text):
        return f"`{text}`"
    return '"' + "".join(_escaped(c, ascii_only="+" in flags) for c in text) + '"'


_ESCAPES = {'"': r"\"", "\\": r"\\", "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n",
            "\r": r"\r", "\t": r"\t", "\v": r"\v"}  # fmt: skip


def _escaped(char: str, *, ascii_only: bool) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable() and (char.isascii() or not ascii_only):
        return char
    number = ord(char)
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _hexadecimal(digits: str) -> Callable[[str, _Form], str]:
    def write(text: str, form: _Form) -> str:
        pieces = [format(byte, f"02{digits}") for byte in text.encode()[: form.precision]]
        prefix = f"0{digits}" if "#" in form.flags and pieces else ""
        apart = f" {prefix}" if " " in form.flags else ""
        return form.padded(prefix + apart.join(pieces))

    return write


_TEXTS: dict[str, Callable[[str, _Form], str]] = {
    "s": _string,
    "v": _value_form,
    "q": _quoted_form,
    "x": _hexadecimal("x"),
    "X": _hexadecimal("X"),
}
_BASES = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}


def _integer(value: int, verb: str, form: _Form) -> str:
    flags = form.flags
    if verb == "v":
        flags = flags.replace("#", "").replace("+", "")
    sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    least = 0
    if form.precision is not None:
        if form.precision == 0 and value == 0:
            return " " * form.width
        least = form.precision
    elif "0" in flags and "-" not in flags:
        least = form.width - len(sign)
    digits = format(abs(value), _BASES[verb]).rjust(least, "0")
    if "#" in flags:
        digits = _prefixed(digits, _BASES[verb])
    if verb == "O":
        digits = "0o" + digits
    return form.padded(sign + digits, zeros=False)


def _prefixed(digits: str, base: str) -> str:
    if base == "o":
        return digits if digits.startswith("0") else "0" + digits
    return digits if base == "d" else f"0{base}{digits}"


# `and` and `or` are none of these: they look at no more of their arguments than they need.
FUNCTIONS: Final[Mapping[str, Function]] = {
    "eq": Function(_eq, 2, None),
    "ne": Function(_ne, 2, 2),
    "lt": Function(_ordering(operator.lt), 2, 2),
    "le": Function(_ordering(operator.le), 2, 2),
    "gt": Function(_ordering(operator.gt), 2, 2),
    "ge": Function(_ordering(operator.ge), 2, 2),
    "not": Function(_not, 1, 1),
    "index": Function(_index, 2, 2),
    "len": Function(_len, 1, 1),
    "slice": Function(_slice, 1, 3),
    "print": Function(_print, 0, None),
    "println": Function(_println, 0, None),
    "printf": Function(_printf, 1, None),
    "html": Function(_escaping(lambda text: text.translate(_HTML)), 0, None),
    "js": Function(_escaping(_js), 0, None),
    "urlquery": Function(_escaping(lambda text: quote_plus(text, safe="")), 0, None),
    "upper": Function(_cased(str.upper), 1, 1),
    "lower": Function(_cased(str.lower), 1, 1),
    "replace": Function(_replace, 3, 3),
    "getOrDefault": Function(_get_or_default, 3, 3),
}
