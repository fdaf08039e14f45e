"""Structured logs: one event a line, a noun and a past verb, then fields, `id` (the queue id) first."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

# whatever JSON has no word for is shown as text: a log line must not fail
_encode = msgspec.json.Encoder(enc_hook=str).encode
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(service: str, instance: str, level: str = "info", log_format: str = "json") -> None:
    """Send structlog to standard output, one line an event, and the standard library's warnings and errors with it."""

    def render(_: object, method: str, event: MutableMapping[str, Any]) -> str:
        # one step for what structlog has one each for: a line is written for every message in every service
        line = {"event": event.pop("event"), **event, "service": service, "instance": instance, "level": method}
        return _json(line | {"timestamp": datetime.now(UTC)})

    for_people: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(colors=False),
    ]
    structlog.configure(
        processors=[structlog.processors.format_exc_info, *([render] if log_format == "json" else for_people)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


def _json(line: dict[str, Any]) -> str:
    try:
        return _encode(line).decode()
    except ValueError:  # half of a surrogate pair, an integer that is too large: the slow way writes them
        return json.dumps(line, default=str)


class _Forward(logging.Handler):
    """Carries a library's log record over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.reported", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )
