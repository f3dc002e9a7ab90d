"""The agent's gauges, put together: who counts what, and the pages that show it if they are wanted.

Counting is always on and costs nothing to speak of. The HTTP server is imported and started only
where the configuration says so; neither can be switched while the agent runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agent import certificates, config, identity, metrics, routes

Json = dict[str, Any]


class Instruments:
    def __init__(
        self,
        settings: config.Settings,
        who: identity.Identity,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._settings = settings
        self._identity = who
        self._status = status
        self.metrics = metrics.Metrics(self._now)

    def watch(self, *clients: routes.Caller) -> None:
        for client in clients:
            client.on_done = self.metrics.requested

    def watch_renewal(self, renewing: certificates.Renewing) -> None:
        renewing.on_attempt = self.metrics.renewed

    def serve(self) -> None:
        """The pages that are wanted, on threads of their own that end with the process."""
        if not (self._settings.metrics_enabled or self._settings.profiling_enabled):
            return
        from agent import loopback

        if self._settings.metrics_enabled:
            page = {"/metrics": (loopback.METRICS_TYPE, lambda options: self.metrics.text())}
            loopback.serve(loopback.METRICS_PORT, page)
        if self._settings.profiling_enabled:
            loopback.serve(loopback.PROFILING_PORT, loopback.profiling_pages())

    def _now(self) -> Iterable[metrics.Sample]:
        certificate = self._identity.certificate
        yield from metrics.of_certificate(certificate.not_after if certificate else None)
        yield from metrics.of_status(self._status())
        yield from of_process()


def of_process(folder: Path = Path("/proc/self")) -> Iterable[metrics.Sample]:
    """As the kernel has it; nothing where it does not say."""
    yield "process_cpu_seconds_total", {}, time.process_time()
    try:
        virtual, resident = (int(word) for word in (folder / "statm").read_text().split()[:2])
        begun = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
        booted = next(
            int(line.split()[1])
            for line in (folder.parent / "stat").read_text().splitlines()
            if line.startswith("btime ")
        )
        files = len(list((folder / "fd").iterdir()))
    except (OSError, ValueError, IndexError, StopIteration):
        return
    page = os.sysconf("SC_PAGE_SIZE")
    yield "process_resident_memory_bytes", {}, resident * page
    yield "process_virtual_memory_bytes", {}, virtual * page
    yield "process_open_fds", {}, files
    yield "process_start_time_seconds", {}, booted + begun / os.sysconf("SC_CLK_TCK")
