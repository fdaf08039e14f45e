"""What a gate needs to know of the examination of a message; what examines it is loaded only where the policy asks for that (evaluation.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from postern_core.authentication import MethodResult
from postern_core.envelope import Client
from postern_core.errors import Reply


@dataclass(frozen=True, slots=True)
class Examined:
    """What comes of it: a `refusal`, or the message with the fields to put in front of it, and why it should be held ("": it should not)."""

    body: bytes
    fields: bytes = b""
    hold: str = ""
    refusal: Reply | None = None
    results: tuple[MethodResult, ...] = ()  # what `fields` say, for the rules of the screener


class Examiner(Protocol):
    """What a gate does with a message between its end and its being stored."""

    async def examine(self, client: Client, reverse_path: str, body: bytes) -> Examined:
        """Never raises but when cancelled; bounded in time."""
        ...
