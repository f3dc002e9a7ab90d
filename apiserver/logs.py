"""Logs of a process: one line an event on standard error, key=value.

Tracebacks are plain. The renderer's pretty ones print local variables, and ours hold keys,
certificates and what people put into their specs.
"""

from __future__ import annotations

import logging
import sys

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError


def configure(level: int = logging.INFO) -> None:
    """Once, where a process starts."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiohttp.server").addFilter(_told_shortly)


def _told_shortly(record: logging.LogRecord) -> bool:
    """False for what was no HTTP: anybody can send that, so it is one line, and nothing of what was
    sent, which may have been a token."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | RequestPayloadError):
        return True
    structlog.get_logger().info("malformed request", why=type(error).__name__)
    return False
