"""Header fields on top of a message."""

from __future__ import annotations

from collections.abc import Iterable

from postern_core.changes import check_field
from postern_core.mail_text import unstructured_field
from postern_screener.changes.edits import Edit, apply


def on_top(fields: Iterable[tuple[str, str]]) -> Edit:
    """The edit that puts fields (name, value) on top, in this order. ValueError for one that cannot stand in a message."""
    lines: list[bytes] = []
    for name, value in fields:
        check_field(name, value)
        lines.append(unstructured_field(name, value))
    return Edit(0, 0, b"".join(lines))


def with_fields(body: bytes | memoryview, fields: Iterable[tuple[str, str]]) -> bytes:
    """`body` with fields (name, value) on top, in this order, in 7-bit and folded; everything else octet for octet. ValueError as above."""
    return apply(body, [on_top(fields)])
