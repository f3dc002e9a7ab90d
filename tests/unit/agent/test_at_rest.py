"""What an agent at rest carries in memory, by the modules that its start imports (ADR 43)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# There are 240 with Python 3.11, 238 with 3.13; one more is 20 to 50 KB. Who needs more says why.
MODULES_MAX = 240
# What has each cost half a megabyte or more, or would, and is needed at moments only: a process of
# its own has it then (`agent.child`), or the function that needs it imports it.
TOO_DEAR = {
    "argparse",
    "ast",
    "asyncio",
    "concurrent",
    "cryptography",
    "ctypes",
    "dataclasses",
    "dis",
    "gzip",
    "http.server",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "multiprocessing",
    "pprint",
    "shutil",
    "socketserver",
    "sqlite3",
    "tarfile",
    "tempfile",
    "tomllib",
    "unittest",
    "urllib.request",
    "uuid",
    "xml",
    "yaml",
    "zipfile",
}


@pytest.fixture(scope="module")
def carried() -> set[str]:
    """Without `site`, for what a developer's environment starts with is none of the agent's."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    code += "import agent.starting, agent.process\nprint(*sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_is_needed_at_moments_only_is_not_there(carried: set[str]) -> None:
    assert not carried & TOO_DEAR


def test_no_package_but_pythons_own_is_there(carried: set[str]) -> None:
    ours = {"agent", "resources", "__main__"}
    assert {name.partition(".")[0] for name in carried} <= sys.stdlib_module_names | ours


def test_no_more_modules_than_it_took_when_it_was_measured(carried: set[str]) -> None:
    assert len(carried) <= MODULES_MAX, sorted(carried)
