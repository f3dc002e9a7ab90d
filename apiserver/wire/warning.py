"""Warning headers (RFC 7234 §5.5, code 299), as kubectl prints them in yellow.

The limits are those of Kubernetes: 120 characters a warning, 4 KiB together, none twice. A warning
is a help to a person; when it does not fit it is shortened or left out, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterable

EACH_CHARS_MAX = 120
TOTAL_BYTES_MAX = 4096


def headers(texts: Iterable[str]) -> list[str]:
    """The values of the Warning headers for these texts, in order."""
    values: list[str] = []
    total = 0
    for text in dict.fromkeys(texts):
        clean = "".join(c if c.isprintable() else " " for c in text)
        if len(clean) > EACH_CHARS_MAX:
            clean = clean[: EACH_CHARS_MAX - 3] + "..."
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{quoted}"'
        total += len(value.encode())
        if total > TOTAL_BYTES_MAX:
            break
        values.append(value)
    return values
