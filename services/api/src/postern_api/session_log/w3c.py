"""The session log as a W3C extended log file, with the fields that IIS wrote for its SMTP servers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from postern_core.session_log import WHOLE

FIELDS: Final = (
    "date",
    "time",
    "c-ip",
    "cs-username",
    "s-sitename",  # the gate
    "s-computername",  # its replica
    "s-ip",
    "s-port",
    "cs-method",
    "cs-uri-stem",  # always "-", as it was
    "cs-uri-query",  # the argument
    "sc-status",
    "sc-win32-status",  # "-": there is none
    "sc-bytes",
    "cs-bytes",
    "time-taken",  # in milliseconds
    "cs-host",  # what the client called itself
    "x-tls",
    "x-session",
)


def head(at: datetime) -> str:
    """The directives in front of the records."""
    return f"#Software: Postern\n#Version: 1.0\n#Date: {at:%Y-%m-%d %H:%M:%S}\n#Fields: {' '.join(FIELDS)}\n"


def line(row: Mapping[str, Any]) -> str:
    """One record."""
    host, _, port = row["server"].rpartition(":")
    argument = row["argument"]
    if row["verb"] == WHOLE:
        counts = " ".join(f"{name}={row[name]}" for name in ("commands", "errors", "messages", "recipients"))
        argument = f"{counts} end={argument}"
    values = (
        f"{row['at']:%Y-%m-%d}",
        f"{row['at']:%H:%M:%S}",
        row["client"],
        row["user"],
        row["gate"],
        row["instance"],
        host.strip("[]"),
        port,
        row["verb"],
        "",
        argument,
        row["code"] or "",
        "",
        row["sent_bytes"],
        row["received_bytes"],
        row["taken_ms"],
        row["host"],
        row["tls"],
        row["session"],
    )
    return " ".join(_field(str(value)) for value in values) + "\n"


def _field(text: str) -> str:
    """As IIS had it: + for white space, - for nothing. What a client sent can begin no line and no field."""
    if text.isascii() and text.isalnum():
        return text
    return "".join("+" if c.isspace() else c if c.isprintable() else "?" for c in text) or "-"
