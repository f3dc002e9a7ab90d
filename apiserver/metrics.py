"""What the service counts about itself, in Prometheus' text: on a port of its own, if asked to.

What the reference counts too is called as there, so that its dashboards work. The port asks nobody
who they are and answers nothing else: names of encryption keys and numbers, no name of an object.
Where it is not asked for nothing is counted.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from apiserver.store import Store

# A second series for each counter, of when it began: nobody has asked for one.
disable_created_metrics()  # type: ignore[no-untyped-call]

PATH = "/metrics"
_ENCRYPTION = "flightctl_encryption"
_STRATEGY = "aes-256-gcm"
# A password takes some microseconds, a file of 8 MiB some milliseconds.
_BUCKETS_S = (0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0)


class Metrics:
    """Of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        to = self.registry
        done = ("operation", "strategy", "key")
        self._active = Gauge(
            f"{_ENCRYPTION}_active_key_info",
            "Always 1; the key that secrets are written with.",
            ("strategy", "key"),
            registry=to,
        )
        self._operations = Counter(
            f"{_ENCRYPTION}_operations_total",
            "Values that were encrypted or decrypted, or could not be.",
            (*done, "status"),
            registry=to,
        )
        self._errors = Counter(
            f"{_ENCRYPTION}_errors_total", "Values that could not be decrypted.", done, registry=to
        )
        self._duration = Histogram(
            f"{_ENCRYPTION}_operation_duration_seconds",
            "Time of encrypting or decrypting one value.",
            ("operation", "strategy"),
            buckets=_BUCKETS_S,
            registry=to,
        )
        self._canaries = Counter(
            f"{_ENCRYPTION}_canary_validations_total",
            "Keys that were shown to be the right ones when the database was opened. With a wrong "
            "one the service does not start, and nobody asks.",
            ("status",),
            registry=to,
        )

    def follow(self, store: Store) -> None:
        """Count what is encrypted in this database from now on."""
        first, canaries = store.observe_keys(self._encrypted)
        if first:
            self._active.labels(_STRATEGY, first).set(1)
        self._canaries.labels("success").inc(canaries)

    def _encrypted(self, operation: str, key: str, took_s: float, is_done: bool) -> None:
        status = "success" if is_done else "error"
        self._operations.labels(operation, _STRATEGY, key, status).inc()
        self._duration.labels(operation, _STRATEGY).observe(took_s)
        if not is_done:
            self._errors.labels(operation, _STRATEGY, key).inc()

    async def show(self, request: web.Request) -> web.Response:
        body = generate_latest(self.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def create_app(metrics: Metrics) -> web.Application:
    """The application of that port."""
    app = web.Application()
    app.router.add_get(PATH, metrics.show)
    return app
