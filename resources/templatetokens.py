"""The words of a template: what stands between `{{` and `}}`, with where it stands.

One pass from left to right, never back, so the time is that of the length. Blanks are no words, but
a word knows whether one stood before it: Go's templates tell `f (x)` from `f(x)` by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A template that needs more is no template of a file any more; it bounds the memory of its form.
MAX_TOKENS: Final = 50_000

TEXT, OPEN, CLOSE, END = "text", "{{", "}}", "the end"
WORD, FIELD, VARIABLE, STRING, NUMBER = "word", "field", "variable", "string", "number"

_BLANKS = " \t\r\n"
_NAME = r"[^\W\d]\w*"
_PATTERNS = (
    (FIELD, re.compile(rf"(?:\.{_NAME})+|\.")),
    (VARIABLE, re.compile(rf"\$\w*(?:\.{_NAME})*")),
    (WORD, re.compile(_NAME)),
    (STRING, re.compile(r'"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`')),
    (NUMBER, re.compile(r"'(?:[^'\\\n]|\\[^\n])+'|[+-]?[0-9]\w*(?:\.\w*)?")),
    ("", re.compile(r":=|[=|(),]")),
)
# What may follow a name directly; anything else would be a part of it that no name can have.
_AFTER_NAME = re.compile(r"[ \t\r\n,|:()]|\}\}|$")
_CLOSE = re.compile(r"[ \t\r\n]+-\}\}|[ \t\r\n]*\}\}")
_CLOSE_COMMENT = re.compile(r"[ \t\r\n]-\}\}|\}\}")


class TemplateError(ValueError):
    """What is wrong with a template, or was when it was evaluated, and where: both from 1."""

    def __init__(self, text: str, offset: int, detail: str) -> None:
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)
        self.detail = detail
        super().__init__(f"line {self.line}, column {self.column}: {detail}")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    offset: int
    is_apart: bool = False


def tokens(text: str) -> list[Token]:
    """All words, the last one being END. Raises TemplateError."""
    found: list[Token] = []
    for token in _scan(text):
        found.append(token)
        if len(found) > MAX_TOKENS:
            raise TemplateError(text, token.offset, f"holds more than {MAX_TOKENS} words")
    return found


def _scan(text: str) -> Iterator[Token]:
    at, trims = 0, False
    while True:
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        if trims:
            plain = plain.lstrip(_BLANKS)
        inside = start + 2
        if (
            start >= 0
            and text[inside : inside + 1] == "-"
            and text[inside + 1 : inside + 2] in (*_BLANKS,)
        ):
            plain, inside = plain.rstrip(_BLANKS), inside + 2
        if plain:
            yield Token(TEXT, plain, at)
        if start < 0:
            yield Token(END, "", len(text))
            return
        if text.startswith("/*", inside):
            at, trims = _comment(text, start, inside)
            continue
        yield Token(OPEN, "{{", start)
        at = inside
        while not (close := _CLOSE.match(text, at)):
            token = _word(text, at, start)
            yield token
            at = token.offset + len(token.text)
        yield Token(CLOSE, "}}", at)
        at, trims = close.end(), "-" in close[0]


def _comment(text: str, start: int, inside: int) -> tuple[int, bool]:
    end = text.find("*/", inside + 2)
    if end < 0:
        raise TemplateError(text, start, "the comment is not closed: end it with */}}")
    close = _CLOSE_COMMENT.match(text, end + 2)
    if not close:
        raise TemplateError(text, end + 2, "a comment ends with */}} and has its action to itself")
    return close.end(), "-" in close[0]


def _word(text: str, at: int, start: int) -> Token:
    begin = at
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    if at == len(text):
        raise TemplateError(text, start, "the action is not closed: end it with }}")
    for kind, pattern in _PATTERNS:
        if found := pattern.match(text, at):
            word = found[0]
            if kind in (FIELD, VARIABLE, WORD) and not _AFTER_NAME.match(text, found.end()):
                raise TemplateError(text, found.end(), _strange(text, found.end()))
            return Token(kind or word, word, at, at > begin)
    if text[at] in "\"`'":
        raise TemplateError(text, at, "the quoted text is not closed")
    raise TemplateError(text, at, _strange(text, at))


def _strange(text: str, at: int) -> str:
    hint = '; a label with such a name is read by index .metadata.labels "…"'
    return f"unexpected {text[at]!r}{hint if text[at] in '-/.' else ''}"


# --- what constants mean --------------------------------------------------------------------

_INTEGER = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<x>(?:_?[0-9a-fA-F])+)|0[bB](?P<b>(?:_?[01])+)"
    r"|0[oO]?(?P<o>(?:_?[0-7])+)|(?P<d>0|[1-9](?:_?[0-9])*))"
)
_BASES = {"x": 16, "b": 2, "o": 8, "d": 10}
_ESCAPE = re.compile(
    r"\\(?:(?P<short>[abfnrtv\\'\"])|x(?P<x>[0-9a-fA-F]{2})|(?P<o>[0-7]{3})"
    r"|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<bad>.))",
    re.DOTALL,
)
_SHORT = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))


def integer(text: str) -> int | None:
    """A whole number as Go writes it, of 64 bits; None if it is none. A character is its number."""
    if text.startswith("'"):
        inside = unquoted(text)
        return ord(inside) if inside is not None and len(inside) == 1 else None
    found = _INTEGER.fullmatch(text)
    if not found:
        return None
    base = next(key for key in _BASES if found[key] is not None)
    digits = found[base].replace("_", "")
    # More digits than the longest that fits need not be computed.
    if len(digits) > 70:
        return None
    number = int(found["sign"] + digits, _BASES[base])
    return number if -(1 << 63) <= number < 1 << 63 else None


def unquoted(text: str) -> str | None:
    """The text of a quoted constant as Go reads it; None where Go does not, or where it is not
    Unicode."""
    quote, inside = text[0], text[1:-1]
    other = {'"': "'", "'": '"'}.get(quote)
    pieces, at = bytearray(), 0
    try:
        if quote == "`":
            return inside.encode().decode().replace("\r", "")
        for found in _ESCAPE.finditer(inside):
            pieces += inside[at : found.start()].encode()
            at = found.end()
            if found["bad"] or found["short"] == other:
                return None
            if found["short"]:
                pieces += _SHORT[found["short"]].encode()
            elif byte := found["x"]:
                pieces.append(int(byte, 16))
            elif byte := found["o"]:
                pieces.append(int(byte, 8))
            else:
                pieces += chr(int(found["u"] or found["U"], 16)).encode()
        pieces += inside[at:].encode()
        return pieces.decode()
    except (ValueError, OverflowError):
        # No Unicode character has the number, or the bytes are no text.
        return None
