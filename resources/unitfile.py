"""The text of a systemd unit, read into sections and written again.

Both the service (which checks what people write) and the agent (which gives each application's
units names of their own) read units by this one function, so they cannot disagree about a line.
Standard library only: the agent has nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Sections = dict[str, list[tuple[str, str]]]


def parse(text: str) -> Sections:
    """Keys of each section in order. Raises ValueError with the line that is none."""
    sections: Sections = {}
    current: list[tuple[str, str]] | None = None
    pending = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        # A comment inside a continued line is skipped, and the line goes on after it.
        if line.startswith(("#", ";")) or not (line or pending):
            continue
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        line, pending = (pending + line).strip(), ""
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], [])
            continue
        key, equals, value = line.partition("=")
        if current is None or not equals or not key.strip():
            raise ValueError(f"line {number} is neither [Section] nor Key=value")
        current.append((key.strip(), value.strip()))
    if pending:
        raise ValueError("the last line is continued, but nothing follows")
    return sections


def written(sections: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The text of `sections`; `parse` gives them back. Sections without keys are kept."""
    parts = []
    for name, keys in sections.items():
        parts.append("".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in keys)]))
    return "\n".join(parts)
