"""JSON as Go's encoder writes it, to the byte: keys sorted, `<`, `>` and `&` escaped, `1.0` as `1`.

It matters in one place more than for looks: what `kubectl apply` remembers of a manifest is such a
text in an annotation, and two tools that write it differently would see a change where there is
none.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
# Between these Go writes a number without an exponent.
_PLAIN_MIN, _PLAIN_MAX = 1e-6, 1e21


def compact(value: Any) -> str:
    return _encoded(value, None)


def indented(value: Any) -> str:
    """Four spaces, as `-o json` prints."""
    return _encoded(value, 4)


def _encoded(value: Any, indent: int | None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        _numbers(value), indent=indent, separators=separators, sort_keys=True, ensure_ascii=False
    )
    # Outside of strings JSON has none of these characters.
    return text.translate(_ESCAPES)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _PLAIN_MAX:
        return int(value)
    return value


def number(value: float) -> str:
    """A number as `%v` and JSON write it."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < _PLAIN_MAX):
        return str(int(value))
    if _PLAIN_MIN <= abs(value) < _PLAIN_MAX:
        return format(Decimal(repr(value)), "f")
    return repr(value)
