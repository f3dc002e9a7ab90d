"""YAML is read by who has a parser: this process, or one that is asked for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import child, errors, yamltexts

REPOSITORY = Path(__file__).resolve().parents[3]
MANIFEST = b"""kind: Pod
metadata: {name: web, labels: {since: 2026-11-27}}
---
kind: ConfigMap
---
"""


def test_what_comes_back_is_what_json_can_say() -> None:
    text = b"{1: one, day: 2026-11-27, raw: !!binary aGVsbG8=, list: [1, 2.5, true, null]}"
    assert yamltexts.read(text) == {
        "1": "one",
        "day": "2026-11-27",
        "raw": "aGVsbG8=",
        "list": [1, 2.5, True, None],
    }
    assert yamltexts.read(b"") is None
    assert [d["kind"] for d in yamltexts.read_all(MANIFEST)] == ["Pod", "ConfigMap"]


def test_names_are_put_behind_a_prefix_and_all_else_stays() -> None:
    written = yamltexts.with_names_behind(MANIFEST, "app-")
    first, second = yamltexts.read_all(written)
    assert first["metadata"]["name"] == "app-web"
    # A day is a day still, and no text.
    assert b"since: 2026-11-27" in written
    assert second == {"kind": "ConfigMap", "metadata": {}}
    with pytest.raises(yamltexts.NotYaml):
        yamltexts.with_names_behind(b"[1]", "app-")


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (b, b, b",".join([b"*%c" % (b - 1)] * 10)) for b in b"bcdefg"
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(b"a: 1\nb: [}", 2, id="no YAML"),
        pytest.param(b"a: 1\n---\nb: 2", 2, id="two documents"),
        pytest.param(b"[" * 3000 + b"]" * 3000, 0, id="nested too deeply"),
        pytest.param(BOMB, 0, id="more than it seems"),
        pytest.param(b"a: 2026-13-45", 0, id="no day"),
    ],
)
def test_what_cannot_be_read_is_said(text: bytes, line: int) -> None:
    with pytest.raises(yamltexts.NotYaml) as caught:
        yamltexts.read(text)
    assert caught.value.line == line


QUESTIONS: list[dict[str, Any]] = [
    {"do": "one", "text": "YTogWzEsIHR3b10="},
    {"do": "one", "text": "YTogWw=="},
    {"do": "write", "document": {"volumes": {"b": 1, "a": {"name": "x: y"}}}},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=["text", "no YAML", "document"])
def test_a_process_that_is_asked_says_the_same(question: dict[str, Any]) -> None:
    said = child.ask(question, "agent.yamltexts", needs="python3-yaml")
    assert said == yamltexts.answer(question)


def test_who_has_no_parser_asks_and_has_none_afterwards() -> None:
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    code += (
        "from agent import hooks\nprint(hooks.parse(b'- run: date')[0].run, 'yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["date", "False"], done.stderr


def test_who_cannot_be_asked_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "yaml")
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(errors.Retry, match=r"YAML cannot be read: .*is python3-yaml installed"):
        yamltexts.read(b"a: 1")
