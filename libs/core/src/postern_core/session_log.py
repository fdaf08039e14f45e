"""The session log: what a gate tells of its sessions (stream EVENTS, `event.<service>.session`), with the W3C fields of old.

Told, not promised, like every event. No message content and no credentials: of AUTH the mechanism, of what is no command nothing at all.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from postern_core.contract import Version, written
from postern_core.envelope import Gate

WHOLE = "SESSION"  # the verb of a record of a whole session
UNKNOWN = "UNKNOWN"  # the verb of a line that is no command: it may be message text, or a password


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One command with its reply; or, with the verb `WHOLE`, one session. `at` is when it was answered, or over."""

    session: str
    at: datetime
    client: str
    verb: str
    n: int = 0  # of the command in its session, from 1; 0: the whole session
    server: str = ""  # our address and port
    host: str = ""  # what the client called itself
    user: str = ""
    tls: str = ""
    argument: str = ""  # of DATA that was accepted: the queue id; of a session: how it ended
    code: int = 0  # of the last reply; 0: none
    received_bytes: int = 0
    sent_bytes: int = 0
    taken_ms: int = 0
    commands: int = 0  # this and the rest: of a whole session only
    errors: int = 0
    messages: int = 0
    recipients: int = 0


class SessionBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Payload on EVENTS (JSON, no frame). `dropped`: records lost before this batch, because they came faster than they could be told."""

    version: Version = msgspec.field(default_factory=written)
    gate: Gate
    instance: str
    records: tuple[SessionRecord, ...]
    dropped: int = 0
