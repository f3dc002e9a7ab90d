"""YAML, for a process that carries no parser of it.

The parser takes 1.5 MB of memory and stays once it is imported; it is needed for moments: a hook
runs, a Compose file or a manifest is met for the first time, a file of further certificates has
changed. So it is asked in a process of its own (`child`). Who has it already, as that process, the
verbs of the command line and the tests, asks itself.

What comes back is what JSON can say, so that both ways give the same. Aliases are written out, up
to a limit. Who cannot be asked is no verdict about the text: that is `Retry`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

from agent import child, errors

Json = dict[str, Any]

# Of all that is in a text, with aliases written out.
VALUES_MAX = 100_000
ONE, ALL, NAMES, WRITE = "one", "all", "names", "write"


class NotYaml(ValueError):
    """`line` counts from one; 0 = not known."""

    def __init__(self, words: str, line: int = 0) -> None:
        super().__init__(words)
        self.line = line


def read(text: bytes) -> Any:
    """The one document in it. Raises NotYaml, Retry."""
    return _asked({"do": ONE, "text": base64.b64encode(text).decode()})


def read_all(text: bytes) -> list[Any]:
    """All documents that are not empty. Raises NotYaml, Retry."""
    found: list[Any] = _asked({"do": ALL, "text": base64.b64encode(text).decode()})
    return found


def with_names_behind(text: bytes, prefix: str) -> bytes:
    """The documents, with `prefix` before each `metadata.name`, and else as they were. Raises
    NotYaml, Retry."""
    question = {"do": NAMES, "text": base64.b64encode(text).decode(), "prefix": prefix}
    return str(_asked(question)).encode()


def written(document: Json) -> bytes:
    """Raises Retry."""
    return str(_asked({"do": WRITE, "document": document})).encode()


def _asked(question: Json) -> Any:
    if "yaml" in sys.modules:
        found = answer(question)
    else:
        try:
            found = child.ask(question, __name__, needs="python3-yaml")
        except errors.Fatal as error:
            detail = f"YAML cannot be read: {error.detail}"
            raise errors.Retry(errors.INTERNAL, detail, component=errors.LIFECYCLE) from error
    if "why" in found:
        raise NotYaml(found["why"], found["line"])
    return found["found"]


# With the parser. ---------------------------------------------------------------------------------


def answer(question: Json) -> Json:
    import yaml

    # libyaml reads a megabyte in the time that the Python one reads a page.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if question["do"] == WRITE:
            return {"found": yaml.safe_dump(question["document"], sort_keys=True)}
        text = base64.b64decode(question["text"])
        if question["do"] == ONE:
            document = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
            return {"found": plain(document, iter(range(VALUES_MAX)))}
        documents = [d for d in yaml.load_all(text, Loader=loader) if d is not None]
        if question["do"] == ALL:
            return {"found": plain(documents, iter(range(VALUES_MAX)))}
        assert question["do"] == NAMES
        for document in documents:
            _put_behind(document, question["prefix"])
        return {"found": yaml.safe_dump_all(documents, sort_keys=False)}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        return {"why": str(error), "line": mark.line + 1 if mark is not None else 0}


def _put_behind(document: Any, prefix: str) -> None:
    if not isinstance(document, dict):
        raise ValueError("not a mapping")
    metadata = document.setdefault("metadata", {})
    if isinstance(metadata, dict) and metadata.get("name"):
        metadata["name"] = f"{prefix}{metadata['name']}"


def plain(value: Any, room: Iterator[int]) -> Any:
    """As JSON can say it. Raises ValueError where `room` runs out, RecursionError."""
    if next(room, None) is None:
        raise ValueError(f"holds more than {VALUES_MAX} values")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): plain(one, room) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one, room) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    # Times and the like, which nobody means here.
    return str(value)


def main() -> int:
    """A question on stdin, its answer on stdout, as `child.ask` has it."""
    json.dump(answer(json.load(sys.stdin.buffer)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
