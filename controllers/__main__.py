"""`python -m controllers`: the controllers as a process of their own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from controllers.runtime import Controllers
from controllers.session import BadKubeconfig, Endpoint, from_kubeconfig

# How often the process looks whether its threads still live.
LOOK_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 if it cannot start, or ends without being asked to."""
    try:
        endpoint = _endpoint(arguments)
    except BadKubeconfig as problem:
        print(problem, file=sys.stderr)
        return 1
    finish = threading.Event()

    def asked(_number: int, _frame: FrameType | None) -> None:
        finish.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    controllers = Controllers(endpoint)
    controllers.start()
    while controllers.is_alive() and not finish.wait(LOOK_S):
        pass
    return 0 if controllers.stop() and finish.is_set() else 1


def _endpoint(arguments: list[str] | None) -> Endpoint:
    parser = argparse.ArgumentParser(prog="python -m controllers", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--kubeconfig", type=Path, help="how to reach the API server, and as whom")
    where.add_argument("--socket", type=Path, help="the API server's socket on this machine")
    given = parser.parse_args(arguments)
    if given.socket is not None:
        return Endpoint(socket=given.socket)
    return from_kubeconfig(given.kubeconfig)


if __name__ == "__main__":
    sys.exit(main())
