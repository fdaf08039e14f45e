"""What a service answers to a request over the bus (postern_core.control, postern_core.sessions)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from postern_core.control import ControlError

A = TypeVar("A", bound=msgspec.Struct)


class _Refusal(msgspec.Struct):
    """The fields of `ControlError`, absent in every other answer."""

    error: str = ""
    message: str = ""


def decode_answer(data: bytes, kind: type[A]) -> A | ControlError:
    """The `kind` in `data`, or the refusal that it is. msgspec.DecodeError when it is neither."""
    refusal = msgspec.json.decode(data, type=_Refusal)
    return ControlError(message=refusal.message) if refusal.error else msgspec.json.decode(data, type=kind)
