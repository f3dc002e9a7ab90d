"""Go's own text/template in a small program of ours, which answers one question after another.

No fake: it is what our templates are measured by. It is built from the standard library alone.

    python -m tests.fakes.gotemplates < templates > tests/unit/resources/data/templates.jsonl

records what it makes of each template (a JSON string a line) on each of `DEVICES`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "conformance" / "gotemplates"
TABLE = Path(__file__).parents[1] / "unit" / "resources" / "data" / "templates.jsonl"

LABELS = {
    "site": "berlin",
    "stage": "prod",
    "version": "v1.2.3",
    "n": "7",
    "a-b": "hyphen",
    "example.com/zone": "z1",
    "empty": "",
}
# Name, labels, and whether a label that is not there is an error. Validation's own comes first; the
# last has what no label can hold, so that what escapes has something to do.
DEVICES: list[tuple[str, dict[str, str], bool]] = [
    ("name", {}, False),
    ("dev1", {}, True),
    ("gate-01.example", LABELS, True),
    ("A", {"site": "Zürich <&> 'x' \"y\"\n\\=", "version": "", "stage": "TEST"}, True),
]


class GoTemplates:
    """Asks the program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, template: str, name: str, labels: dict[str, str], strict: bool) -> str | None:
        """What Go makes of it; None is an error, at parsing or when it ran."""
        asked: dict[str, Any] = {"template": template, "name": name, "labels": labels}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked | {"strict": strict}), file=self._process.stdin, flush=True)
        text: str | None = json.loads(self._process.stdout.readline())["text"]
        return text


def has_go() -> bool:
    return shutil.which("go") is not None


@contextmanager
def running(folder: Path) -> Iterator[GoTemplates]:
    """The program, built into `folder`."""
    program = folder / "gotemplates"
    # Needs no module but Go's own, and so no network.
    offline = os.environ | {"GOFLAGS": "-buildvcs=false -mod=mod", "GOTOOLCHAIN": "local"}
    subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, env=offline, check=True)
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield GoTemplates(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as go:
        for line in sys.stdin:
            template = json.loads(line)
            texts = [go.ask(template, *device) for device in DEVICES]
            print(json.dumps({"template": template, "texts": texts}, ensure_ascii=False))


if __name__ == "__main__":
    main()
