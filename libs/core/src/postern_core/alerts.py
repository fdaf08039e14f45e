"""What the api tells on the bus of each alert that it raises (stream EVENTS, `event.api.alert`), for whoever reads it there. Told, not promised."""

from __future__ import annotations

from datetime import datetime

import msgspec

from postern_core.contract import Version, written


class AlertRaised(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Payload on EVENTS (JSON, no frame). What clients said is not in it: `about` names what the events are counted by."""

    version: Version = msgspec.field(default_factory=written)
    kind: str
    title: str
    at: datetime
    first_at: datetime  # of the first event since the raise before
    count: int  # events since then
    about: tuple[str, ...] = ()  # addresses, users, files …: the first of them
    pauses: tuple[str, ...] = ()  # gates that it pauses
