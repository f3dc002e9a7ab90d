"""Pages for who is on the device: metrics, and what the agent's threads are doing.

Imported only where the configuration asks for it: an agent at rest should not carry an HTTP server.
It listens on 127.0.0.1 and nowhere else, answers GET, one request at a time, and gives a client
five seconds; a port that is taken is said in the log and costs the pages, never the agent.
"""

from __future__ import annotations

import http.server
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

log = logging.getLogger("agent.loopback")

METRICS_PORT = 15690
PROFILING_PORT = 15689
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
CLIENT_S = 5.0
PROFILE_S = 10.0
PROFILE_S_MAX = 30.0
SAMPLE_S = 0.01

# A page makes its text from the options of its address.
Page = Callable[[Mapping[str, str]], str]


class _Server(http.server.HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is its own affair: no traceback of it in the journal."""


def serve(port: int, pages: Mapping[str, tuple[str, Page]]) -> int:
    """The port that it listens on; 0 = it does not. Port 0 is one that is free."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = CLIENT_S

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            kind, page = pages.get(address.path, ("", None))
            if page is None:
                self.send_error(404)
                return
            options = {name: found[-1] for name, found in parse_qs(address.query).items()}
            body = page(options).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            log.debug(format, *arguments)

    try:
        server = _Server(("127.0.0.1", port), Handler)
    except OSError as error:
        log.warning("pages not served port=%d: %s", port, error)
        return 0
    threading.Thread(target=server.serve_forever, name=f"pages-{port}", daemon=True).start()
    return int(server.server_address[1])


def profiling_pages() -> dict[str, tuple[str, Page]]:
    """In the place of Go's pprof, and in the form that flame graph tools read."""
    top = "/debug/pprof/"
    index = f"{top}threads  stacks of all threads\n{top}profile?seconds=10  samples of them\n"
    return {
        top: (TEXT_TYPE, lambda options: index),
        f"{top}threads": (TEXT_TYPE, lambda options: threads()),
        f"{top}profile": (TEXT_TYPE, profile),
    }


def threads() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


def profile(options: Mapping[str, str]) -> str:
    """Stacks seen, as `outer;inner count`, the most frequent first. Waiting is seen as well."""
    try:
        seconds = float(options.get("seconds", PROFILE_S))
    except ValueError:
        seconds = PROFILE_S
    end = time.monotonic() + min(max(seconds, 0.0), PROFILE_S_MAX)
    seen: Counter[str] = Counter()
    own = threading.get_ident()
    while time.monotonic() < end:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != own:
                calls = [f"{f.f_code.co_name}:{line}" for f, line in traceback.walk_stack(frame)]
                seen[";".join([names.get(ident, str(ident)), *reversed(calls)])] += 1
        time.sleep(SAMPLE_S)
    return "".join(f"{stack} {count}\n" for stack, count in seen.most_common())
