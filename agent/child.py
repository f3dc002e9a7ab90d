"""Questions that are answered by a module in a short-lived process of its own: JSON in, JSON out.

So what keys need (`agent.keys`, `agent.tpm`) is in memory only while it is used, and a private key
is never an argument or a file on the way.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent import errors

Json = dict[str, Any]

TIMEOUT_S = 60.0
COMPONENT = "identity"


def ask(question: Json, module: str = "agent.keys") -> Json:
    """Asks `module` in a process of its own. Raises errors.Fatal if that cannot run."""
    environ = {**os.environ, "PYTHONPATH": _path()}
    with contextlib.suppress(KeyError):
        del environ["NOTIFY_SOCKET"]
    try:
        done = subprocess.run(
            _python(module),
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            env=environ,
            check=True,
        )
        answer = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines()
        why = words[-1] if words else f"exit status {error.returncode}"
        raise _failed(why) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise _failed(str(error)) from error
    assert isinstance(answer, dict)
    return answer


def command(module: str) -> tuple[str, ...]:
    """For who runs it by other means."""
    return ("env", "--unset=NOTIFY_SOCKET", f"PYTHONPATH={_path()}", *_python(module))


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", module)


def _path() -> str:
    root = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{known}" if known else root


def _failed(why: str) -> errors.Fatal:
    return errors.Fatal(
        errors.FAILED_PRECONDITION,
        f"keys cannot be handled: {why} (is python3-cryptography installed?)",
        component=COMPONENT,
    )
