"""What the dialogue says to a command, and what happens then. Pure."""

from __future__ import annotations

import enum

import msgspec

from postern_core.errors import Reply
from postern_smtp.checks import Question
from postern_smtp.commands import Auth, Bdat
from postern_smtp.lines import LineTooLong


class Then(enum.Enum):
    """What follows an answer."""

    GO_ON = enum.auto()  # read the next command
    CLOSE = enum.auto()
    READ_DATA = enum.auto()
    READ_CHUNK = (
        enum.auto()
    )  # of which `chunk` tells the size; with a `reply`, it was refused, and is thrown away before that is said
    START_TLS = enum.auto()
    AUTHENTICATE = enum.auto()  # with `auth`
    CHECK = enum.auto()  # ask `question`, and say what `checked` makes of the answer


class Answer(msgspec.Struct, frozen=True):
    """What to write, and what to do then. `reply` is None where there is more than one line (EHLO), or nothing to say yet."""

    reply: Reply | None
    wire: bytes
    then: Then = Then.GO_ON
    auth: Auth | None = None
    chunk: Bdat | None = None
    question: Question | None = None


def say(reply: Reply, then: Then = Then.GO_ON) -> Answer:
    """`reply` as an answer; 421 closes, whoever gives it (RFC 5321 section 4.2.1)."""
    return Answer(reply, reply.line(), Then.CLOSE if reply.code == 421 else then)


def brings_data(line: bytes | LineTooLong) -> bool:
    """Whether message text follows in the mind of a client that does not wait: DATA, and BDAT (RFC 3030)."""
    start = line.start if isinstance(line, LineTooLong) else line
    return start[:4].upper() in (b"DATA", b"BDAT") and not start[4:5].isalnum()


def is_chunk(line: bytes | LineTooLong) -> bool:
    """Whether it is a BDAT."""
    return (line.start if isinstance(line, LineTooLong) else line)[:4].upper() == b"BDAT"
