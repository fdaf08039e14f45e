"""Notices: what a service noticed that is no step of a message (stream EVENTS, `event.<service>.notice`): intrusions, refusals, failures.

Notices are told, not promised, and counted where they are noticed: an attacker who causes a thousand a second makes one with a count.
The api makes alerts of them (its alerts/catalogue.py names each of these kinds, too). The catalogue is closed: a kind that is not in it cannot be told.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Protocol

import msgspec

from postern_core.contract import Version, written


class NoticeKind(enum.StrEnum):
    """The catalogue of what a service tells."""

    COMMAND_TOO_LONG = "command-too-long"  # longer than its verb may be: ISA's "buffer overflow"
    COMMAND_DISABLED = "command-disabled"
    COMMAND_UNKNOWN = "command-unknown"
    CONNECTION_DENIED = "connection-denied"  # by connection control, a list, or what the client said too early
    SENDER_REFUSED = "sender-refused"  # a rejected sender or domain
    RECIPIENT_REFUSED = "recipient-refused"  # a recipient that is on the deny list
    AUTHENTICATION_BURST = "authentication-burst"  # an address or a user failed so often that he is slowed down
    ACCOUNT_SUSPECTED = "account-suspected"  # a user sends more than he may: his password may be stolen
    TLS_FAILED = "tls-failed"  # a handshake, or a certificate that could not be loaded
    CERTIFICATE_EXPIRING = "certificate-expiring"
    OVERLOADED = "overloaded"  # connections or mail turned away for want of room


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened `count` times since `at`. `about` is what it is counted by: a client's address, a user, a file. `fields` tell of the first."""

    kind: NoticeKind
    about: str
    at: datetime
    service: str
    instance: str
    count: int = 1
    fields: dict[str, str | int | float | bool] = {}


class NoticeBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Payload on EVENTS (JSON, no frame)."""

    version: Version = msgspec.field(default_factory=written)
    notices: tuple[Notice, ...]


class TellNotice(Protocol):
    """Tells of something that an administrator may want to know (postern_core.bus.notice_sink)."""

    def __call__(self, kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None: ...
