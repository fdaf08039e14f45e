"""Structured logs: one event a line, a noun and a past verb, then fields, `id` (the queue id) first."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

# whatever JSON has no word for is shown as text: a log line must not fail
_encode = msgspec.json.Encoder(enc_hook=str).encode
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(service: str, instance: str, level: str = "info", log_format: str = "json") -> None:
    """Send structlog to standard output, one line an event, and the standard library's warnings and errors with it."""
    if log_format == "json":
        structlog.configure(
            processors=[],
            wrapper_class=_lines_of(service, instance, _LEVELS[level]),
            logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                structlog.processors.format_exc_info,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.dev.ConsoleRenderer(colors=False),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


def _lines_of(service: str, instance: str, least: int) -> type[structlog.typing.FilteringBoundLogger]:
    """A logger whose lines are put together in one step, where structlog has one each for field and time: every message writes one in every service."""

    class Lines(structlog.make_filtering_bound_logger(least)):  # type: ignore[misc]  # made anew for each level
        def _proxy_to_logger(self, method: str, event: str | None = None, /, **fields: Any) -> None:
            if "exc_info" in fields:
                fields = dict(structlog.processors.format_exc_info(None, method, fields))
            whence = {"service": service, "instance": instance, "level": method, "timestamp": datetime.now(UTC)}
            self._logger.msg(_json({"event": event, **self._context, **fields, **whence}))

    return Lines


def _json(line: dict[str, Any]) -> bytes:
    try:
        return _encode(line)
    except ValueError:  # half of a surrogate pair, an integer that is too large: the slow way writes them
        return json.dumps(line, default=str).encode("ascii")


class _Forward(logging.Handler):
    """Carries a library's log record over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.reported", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )
