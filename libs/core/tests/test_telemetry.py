"""Log lines: one JSON object each, whatever stands in it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

PROGRAM = """
import structlog, sys
from datetime import datetime, UTC
from pathlib import Path
from postern_core.telemetry import configure_logging

configure_logging("delivery", "vm-1", "info", sys.argv[1])
log = structlog.get_logger()
eval(sys.argv[2])
"""


def _logged(call: str, log_format: str = "json") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, call], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def _line(call: str) -> dict[str, Any]:
    (line,) = _logged(call).splitlines()
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_line_says_what_where_and_when() -> None:
    before = datetime.now(UTC)
    line = _line("log.warning('message.refused', id='01', reply='452 4.3.1')")
    assert list(line) == ["event", "id", "reply", "service", "instance", "level", "timestamp"]
    assert (line["event"], line["service"], line["instance"], line["level"]) == ("message.refused", "delivery", "vm-1", "warning")
    assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "value", ["'\\udc80'", "10**30", "Path('/x')", "b'\\xff'", "{1, 2}", "float('nan')", "'a\\nb'", "ValueError('x')"]
)
def test_no_value_makes_a_line_fail_or_two_of_it(value: str) -> None:
    assert _line(f"log.info('message.accepted', value={value})")["event"] == "message.accepted"


@pytest.mark.parametrize("name", ["method", "method_name", "line", "fields"])
def test_a_field_may_have_any_name(name: str) -> None:
    assert _line(f"log.info('request.served', **{{{name!r}: 'x'}})")[name] == "x"


def test_an_exception_stands_in_its_line() -> None:
    line = _line("log.error('service.failed', exc_info=ValueError('the reason'))")
    assert line["exception"].endswith("ValueError: the reason")


def test_a_line_below_the_level_is_not_written() -> None:
    assert not _logged("log.debug('bus.pull_failed')")


def test_for_people_it_is_text() -> None:
    assert "message.refused" in _logged("log.info('message.refused', id='01')", "console")
