"""`python -m controllers`: the controllers as a process of their own."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from controllers.runtime import Controllers
from controllers.session import BadKubeconfig, Endpoint, from_kubeconfig
from controllers.settings import ACCESS_S, KNOWN_HOSTS, POLL_S, Settings

# How often the process looks whether its threads still live.
LOOK_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 if it cannot start, or ends without being asked to."""
    given = _given(arguments)
    try:
        endpoint = _endpoint(given)
    except BadKubeconfig as problem:
        print(problem, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="homeport-controllers-") as scratch:
        state: Path = given.state or Path(scratch)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = Settings(
            state, given.poll, given.host_kubeconfig, given.access, given.known_hosts
        )
        return _run(endpoint, settings)


def _run(endpoint: Endpoint, settings: Settings) -> int:
    finish = threading.Event()

    def asked(_number: int, _frame: FrameType | None) -> None:
        finish.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    controllers = Controllers(endpoint, settings)
    controllers.start()
    while controllers.is_alive() and not finish.wait(LOOK_S):
        pass
    return 0 if controllers.stop() and finish.is_set() else 1


def _given(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m controllers", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--kubeconfig", type=Path, help="how to reach the API server, and as whom")
    where.add_argument("--socket", type=Path, help="the API server's socket on this machine")
    parser.add_argument(
        "--state", type=Path, help="directory for mirrors of Git repositories; default a fresh one"
    )
    parser.add_argument(
        "--poll",
        type=_seconds,
        default=POLL_S,
        help="seconds between two questions to a source of configuration (default %(default)g)",
    )
    parser.add_argument(
        "--access",
        type=_seconds,
        default=ACCESS_S,
        help="seconds between two tries whether a repository can be read (default %(default)g)",
    )
    parser.add_argument(
        "--known-hosts",
        type=Path,
        default=KNOWN_HOSTS,
        help="SSH servers of repositories that name no host keys (default %(default)s)",
    )
    parser.add_argument(
        "--host-kubeconfig",
        type=Path,
        help="cluster whose Secrets are read, if not the one that this runs in",
    )
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    found = float(text)
    if not 1 <= found <= 86400:
        raise argparse.ArgumentTypeError("give 1 to 86400 seconds")
    return found


def _endpoint(given: argparse.Namespace) -> Endpoint:
    if given.socket is not None:
        return Endpoint(socket=given.socket)
    return from_kubeconfig(given.kubeconfig)


if __name__ == "__main__":
    sys.exit(main())
