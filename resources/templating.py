"""Templates in a fleet: the part of Go's text/template that labels and a name can use. Pure.

A text is parsed once, into closures, and evaluated for as many devices as there are. Its form is a
whitelist: text, actions, `if`, `with`, variables, comments, and calls of `templatefuncs`. All else
is refused by name when the fleet is applied, in branches that never run too, with line and column.

What a template can see is `.metadata.name` and `.metadata.labels`; that is checked here, not while
it runs, so `uses` is the whole truth: devices that agree in what it names get the same text.

Nothing is recursive but blocks and parentheses, whose depth is limited, and every evaluation pays
for what it reads and writes out of one purse: it ends soon, and with no more than it may be long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

from resources import templatefuncs as funcs
from resources import templatesteps as steps
from resources import templatetokens as lex
from resources.templatefuncs import Labels, Value
from resources.templatesteps import Act, Compute, Run, Stop
from resources.templatetokens import TemplateError, Token

MAX_DEPTH: Final = 10
__all__ = ["MAX_DEPTH", "MAX_RESULT", "Template", "TemplateError", "Used", "parse"]

# As long as the longest file.
MAX_RESULT: Final = 1 << 20
# Parsed forms that are kept: as many as a few fleets have, and few of those that fill a megabyte.
_KEPT, _KEPT_LONG, _LONG = 2_000, 16, 16_384

_REFUSED: Final = frozenset(
    ("range", "define", "template", "block", "break", "continue", "call", "nil")
)
_BLOCKS: Final = frozenset(("if", "with", "else", "end"))
_KNOWN: Final = "use .metadata.name, .metadata.labels and .metadata.labels.<key>"


@dataclass(frozen=True, slots=True)
class Used:
    """What of a device a template looks at: its name, and which labels. `every_label` says that it
    looks at all of them, or at one that it computes the key of."""

    name: bool = False
    labels: frozenset[str] = frozenset()
    every_label: bool = False

    def __or__(self, other: Used) -> Used:
        every = self.every_label or other.every_label
        return Used(self.name or other.name, self.labels | other.labels, every)

    def __bool__(self) -> bool:
        return self.name or bool(self.labels) or self.every_label


@dataclass(frozen=True, slots=True)
class Template:
    """A text that has been parsed."""

    text: str
    uses: Used
    _acts: tuple[Act, ...]
    _slots: int

    def evaluate(self, name: str, labels: Labels, *, is_strict: bool = True) -> str:
        """The text for a device. A label that is named by `.metadata.labels.x` and is not there is
        an error, or, not `is_strict`, empty. Raises TemplateError."""
        run = Run(name, labels, self._slots, is_strict=is_strict)
        try:
            result = "".join([act(run) for act in self._acts])
        except Stop as stop:
            raise TemplateError(self.text, stop.offset, stop.detail) from None
        if len(result) > MAX_RESULT:
            raise TemplateError(self.text, 0, "the result is longer than 1 MiB")
        return result

    def check(self) -> None:
        """Evaluate for a device called `name` without labels, as the reference does when a fleet
        is applied. Raises TemplateError."""
        self.evaluate("name", {}, is_strict=False)


def parse(text: str) -> Template:
    """The parsed form of a text, kept for the next time. Raises TemplateError."""
    return _parse_long(text) if len(text) > _LONG else _parse_short(text)


@lru_cache(_KEPT)
def _parse_short(text: str) -> Template:
    return _Parser(text).template()


@lru_cache(_KEPT_LONG)
def _parse_long(text: str) -> Template:
    return _Parser(text).template()


# --- parsing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Operand:
    """Something with a value. `constant` is its text if that is written out; `is_labels` says that
    it is the labels as a whole, whose use is still to be noted."""

    compute: Compute
    offset: int
    constant: str | None = None
    is_labels: bool = False


@dataclass(frozen=True, slots=True)
class _Dot:
    """What `.` is inside `with`."""

    slot: int
    is_labels: bool


class _Parser:
    """Tokens to closures, in one pass. Variables and dots are numbered slots: which one a name
    means is known here, as in Go, where no loop can change it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = lex.tokens(text)
        self._at = 0
        self._slots = 0
        self._scopes: list[dict[str, int]] = [{}]
        self._dots: list[_Dot] = []
        self._blocks = self._parentheses = 0
        self._name, self._every_label = False, False
        self._labels: set[str] = set()

    def template(self) -> Template:
        acts = self._acts()
        if self._peek().kind != lex.END:
            # Only else and end stop the parts of a block before the end of the text.
            self._refuse(self._peek(1), "there is no if or with that it belongs to")
        used = Used(self._name, frozenset(self._labels), self._every_label)
        return Template(self._text, used, acts, self._slots)

    # --- tokens ---

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _takes(self, kind: str, text: str = "") -> bool:
        token = self._peek()
        if token.kind != kind or (text and token.text != text):
            return False
        self._at += 1
        return True

    def _refuse(self, where: Token | int, detail: str) -> NoReturn:
        offset = where if isinstance(where, int) else where.offset
        raise TemplateError(self._text, offset, detail)

    # --- blocks ---

    def _acts(self) -> tuple[Act, ...]:
        """Everything up to an `else` or `end`, or the end of the text."""
        found: list[Act] = []
        while (token := self._peek()).kind != lex.END:
            if token.kind == lex.TEXT:
                self._at += 1
                found.append(steps.writing(token.text))
                continue
            word = self._peek(1)
            if word.kind == lex.WORD and word.text in ("else", "end"):
                break
            self._at += 1
            if word.kind == lex.WORD and word.text in ("if", "with"):
                self._at += 1
                found.append(self._block(word))
            else:
                found.append(self._action())
        return tuple(found)

    def _action(self) -> Act:
        opening = self._peek(-1)
        slot, operand = self._pipeline()
        self._close()
        if slot is not None:
            return steps.setting(slot, operand.compute)
        self._note_labels(operand)
        return steps.printing(operand.compute, opening.offset)

    def _close(self) -> None:
        if not self._takes(lex.CLOSE):
            self._refuse(self._peek(), f"unexpected {self._peek().text!r}")

    def _block(self, word: Token) -> Act:
        """`if` or `with`, with all its `else if` (`else with`), which count as one depth."""
        self._blocks += 1
        if self._blocks > MAX_DEPTH:
            self._refuse(word, f"blocks are nested deeper than {MAX_DEPTH}")
        branches = [self._branch(word)]
        otherwise: tuple[Act, ...] = ()
        while True:
            opening, said = self._next(), self._next()
            if opening.kind == lex.END:
                self._refuse(word, f"{word.text} has no end")
            if said.text == "else" and self._takes(lex.WORD, word.text):
                branches.append(self._branch(word))
                continue
            self._close()
            if said.text == "end":
                break
            otherwise = self._scoped()
            if self._peek().kind != lex.END and self._peek(1).text != "end":
                self._refuse(self._peek(1), "there has been an else without a condition already")
            if self._peek().kind == lex.END:
                self._refuse(word, f"{word.text} has no end")
            self._at += 2
            self._close()
            break
        # Of `else if $x := …` the variable would be the next branch's too; it is not used by any.
        del self._scopes[len(self._scopes) - len(branches) :]
        self._blocks -= 1
        return steps.choosing(tuple(branches), otherwise)

    def _branch(self, word: Token) -> tuple[Act | None, Compute, tuple[Act, ...]]:
        self._scopes.append({})
        slot, operand = self._pipeline()
        self._close()
        set_variable = None if slot is None else steps.setting(slot, operand.compute)
        compute = operand.compute if slot is None else steps.slot(slot)
        if word.text == "if":
            return set_variable, compute, self._scoped()
        dot = self._new_slot()
        self._dots.append(_Dot(dot, operand.is_labels))
        acts = self._scoped()
        self._dots.pop()
        return set_variable, steps.remembering(dot, compute), acts

    def _scoped(self) -> tuple[Act, ...]:
        self._scopes.append({})
        acts = self._acts()
        self._scopes.pop()
        return acts

    # --- pipelines ---

    def _pipeline(self) -> tuple[int | None, _Operand]:
        """A pipeline, and the variable that it sets, if it does."""
        first, then = self._peek(), self._peek(1)
        if first.kind != lex.VARIABLE or then.kind not in (":=", "="):
            return None, self._piped()
        self._at += 2
        name = first.text
        if "." in name or name == "$":
            self._refuse(first, f"{name} cannot be set")
        if then.kind == "=":
            slot = self._slot_of(first, name)
            operand = self._piped()
        else:
            operand = self._piped()
            slot = self._new_slot()
            self._scopes[-1][name] = slot
        self._note_labels(operand)
        return slot, operand

    def _piped(self) -> _Operand:
        operand = self._command(None)
        while self._takes("|"):
            operand = self._command(operand)
        return operand

    def _command(self, piped: _Operand | None) -> _Operand:
        """A call, or one operand. `piped` comes from the left and is the call's last argument."""
        token = self._peek()
        if token.kind == lex.WORD and token.text not in ("true", "false"):
            self._at += 1
            self._check_name(token)
            arguments = self._arguments()
            return self._call(token, arguments if piped is None else [*arguments, piped])
        if piped is not None:
            self._refuse(token, "after | there must be a function")
        operand = self._operand()
        if self._arguments():
            self._refuse(token, f"{token.text} is not a function and takes no arguments")
        return operand

    def _arguments(self) -> list[_Operand]:
        found: list[_Operand] = []
        while (token := self._peek()).kind not in (lex.CLOSE, "|", ")"):
            if not token.is_apart:
                self._refuse(token, f"unexpected {token.text!r}; put a blank before it")
            found.append(self._operand())
        return found

    def _operand(self) -> _Operand:
        token = self._next()
        match token.kind:
            case lex.WORD if token.text in ("true", "false"):
                return _constant(token.text == "true", token.offset)
            case lex.WORD:
                # As an argument, a function stands for its result without any.
                self._check_name(token)
                return self._call(token, [])
            case lex.STRING:
                text = lex.unquoted(token.text)
                if text is None:
                    self._refuse(token, f"{token.text} is no text: unknown escape, or not Unicode")
                return _constant(text, token.offset)
            case lex.NUMBER:
                number = lex.integer(token.text)
                if number is None:
                    self._refuse(token, f"{token.text} is no whole number of 64 bits")
                return _constant(number, token.offset)
            case lex.FIELD | lex.VARIABLE:
                return self._seen(token)
            case "(":
                return self._in_parentheses(token)
            case lex.CLOSE | ")" | "|":
                self._refuse(token, "a value is missing")
        self._refuse(token, f"unexpected {token.text!r}")

    def _in_parentheses(self, opening: Token) -> _Operand:
        self._parentheses += 1
        if self._parentheses > MAX_DEPTH:
            self._refuse(opening, f"parentheses are nested deeper than {MAX_DEPTH}")
        operand = self._piped()
        if not self._takes(")"):
            self._refuse(self._peek(), f"unexpected {self._peek().text!r} in parentheses")
        if self._peek().kind == lex.FIELD and not self._peek().is_apart:
            self._refuse(self._peek(), "there are no fields behind parentheses")
        self._parentheses -= 1
        return operand

    # --- names ---

    def _seen(self, token: Token) -> _Operand:
        """A field, a dot or a variable."""
        first, *keys = token.text.split(".")
        dot = self._dots[-1] if self._dots else None
        if token.kind == lex.VARIABLE and first != "$":
            if keys:
                self._refuse(token, f"{first} has no fields; {_KNOWN}")
            return _Operand(steps.slot(self._slot_of(token, first)), token.offset)
        if token.kind == lex.FIELD and dot is not None:
            keys = [key for key in keys if key]
            if keys and keys[0] == "metadata":
                self._refuse(token, f"inside with, . is its value: write ${token.text}")
            if not keys:
                return _Operand(steps.slot(dot.slot), token.offset, is_labels=dot.is_labels)
            if dot.is_labels and len(keys) == 1:
                return self._label(keys[0], token.offset)
            self._refuse(token, f"{token.text} is not there: write it from $, as $.metadata.name")
        match keys:
            case ["metadata", "name"]:
                self._name = True
                return _Operand(steps.name, token.offset)
            case ["metadata", "labels"]:
                return _Operand(steps.all_labels, token.offset, is_labels=True)
            case ["metadata", "labels", key]:
                return self._label(key, token.offset)
        self._refuse(token, f"{token.text} cannot be used in a template; {_KNOWN}")

    def _label(self, key: str, offset: int) -> _Operand:
        self._labels.add(key)
        return _Operand(steps.labelled(key, offset), offset)

    def _note_labels(self, operand: _Operand) -> None:
        self._every_label |= operand.is_labels

    def _slot_of(self, token: Token, name: str) -> int:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        self._refuse(token, f"the variable {name} is not set")

    def _new_slot(self) -> int:
        self._slots += 1
        return self._slots - 1

    # --- calls ---

    def _check_name(self, word: Token) -> None:
        name = word.text
        if name in _REFUSED:
            self._refuse(word, f"{name} cannot be used in a template")
        if name in _BLOCKS:
            self._refuse(word, f"{name} is out of place")
        if name not in funcs.FUNCTIONS and name not in ("and", "or"):
            self._refuse(word, f"there is no function {name}")

    def _call(self, word: Token, arguments: list[_Operand]) -> _Operand:
        name = word.text
        if name in ("and", "or"):
            if not arguments:
                self._refuse(word, f"{name} takes one argument or more")
            for argument in arguments:
                self._note_labels(argument)
            computes = tuple(argument.compute for argument in arguments)
            return _Operand(steps.deciding(computes, stops_at=name == "or"), word.offset)
        function = funcs.FUNCTIONS[name]
        self._check_number(word, function, len(arguments))
        for argument in self._with_labels_noted(name, arguments):
            self._note_labels(argument)
        computes = tuple(argument.compute for argument in arguments)
        return _Operand(steps.calling(function, computes, word.offset), word.offset)

    def _check_number(self, word: Token, function: funcs.Function, number: int) -> None:
        least, most = function.least, function.most
        if number < least or (most is not None and number > most):
            wanted = f"{least}" if most == least else f"{least} or more"
            if most is not None and most > least:
                wanted = f"{least} to {most}"
            noun = "argument" if wanted == "1" else "arguments"
            self._refuse(word, f"{word.text} takes {wanted} {noun}, not {number}")

    def _with_labels_noted(self, name: str, arguments: list[_Operand]) -> Sequence[_Operand]:
        """The arguments of which all is used. Of labels that are asked for one key, that one is."""
        if name in ("index", "getOrDefault") and arguments[0].is_labels:
            key = arguments[1].constant
            if key is not None:
                self._labels.add(key)
                return arguments[1:]
        return arguments


def _constant(value: Value, offset: int) -> _Operand:
    text = value if isinstance(value, str) else None
    return _Operand(lambda _: value, offset, constant=text)
