"""Questions that are answered by a module in a short-lived process of its own: JSON in, JSON out.

So what keys need (`agent.keys`, `agent.tpm`), and the parser of the configuration
(`agent.configfiles`), are in memory only while they are used, and a private key is never an
argument or a file on the way.
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


def ask(question: Json, module: str = "agent.keys", *, needs: str = "python3-cryptography") -> Json:
    """Asks `module`, which `needs` a package, in a process of its own. Raises errors.Fatal if that
    cannot run."""
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
        raise _failed(why, module, needs) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise _failed(str(error), module, needs) from error
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


def _failed(why: str, module: str, needs: str) -> errors.Fatal:
    return errors.Fatal(
        errors.FAILED_PRECONDITION,
        f"{module} does not answer: {why} (is {needs} installed?)",
        component=COMPONENT,
    )
