"""Acts on mail in the audit log: noted before they begin, and with their outcome after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from postern_api.audit.repository import AuditRepository


@asynccontextmanager
async def audited(
    audit: AuditRepository, actor: str, action: str, target: str, detail: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """The block runs only when the entry is stored. An entry that stays `started` is an act that was cut short."""
    entry = await audit.begin(actor, action, target, detail)
    try:
        yield
    except Exception:
        await audit.end(entry, "failed")
        raise
    await audit.end(entry, "done")
