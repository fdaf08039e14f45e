"""What the broker answers to a publish, and which error it becomes."""

from __future__ import annotations

from typing import Final

import msgspec

from postern_core.errors import TransientError

# JetStream API error codes (nats-server errors.json). No room left in the account, the server, its memory, its disk:
_FULL: Final = frozenset({10002, 10023, 10028, 10047})
IN_PROCESS: Final = 10158  # an earlier try with this id is on its way to the other replicas
_FULL_SIGNS: Final = ("maximum bytes", "insufficient", "no space left", "resource limits exceeded")
_AWAY: Final = "mail system temporarily unavailable, try again later"


class SubjectTakenError(TransientError):
    """The stream keeps one message for each subject, and it has one for this subject already."""


class NoRoomError(TransientError):
    """The stream, or the broker's whole store, is full."""


class PubAck(msgspec.Struct, frozen=True):
    """The broker's word that a message is stored, at `seq` (1 and up); `duplicate` when it already was."""

    stream: str
    seq: int
    duplicate: bool = False


class PubError(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class PubReply(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: PubError | None = None


decode_pub_reply = msgspec.json.Decoder(PubReply).decode


def unavailable(reason: str) -> TransientError:
    """451 4.3.0: nobody knows better than to try again later."""
    return TransientError(451, "4.3.0", _AWAY, reason=reason)


def refusal(stream: str, error: PubError | None) -> TransientError:
    """What a refused publish means."""
    if error is None:
        return unavailable(f"{stream} says duplicate of a message that it does not have")
    text = error.description.lower()
    if "per subject exceeded" in text:
        return SubjectTakenError(451, "4.3.0", _AWAY, reason=f"{stream}: {error.description}")
    if error.err_code in _FULL or any(sign in text for sign in _FULL_SIGNS):
        return NoRoomError(452, "4.3.1", "mail system full, try again later", reason=f"{stream}: {error.description}")
    return unavailable(f"{stream} refused the message: {error.err_code} {error.description}")
