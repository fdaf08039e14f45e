"""The ledger at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.fields import Body, examples


class Balance(Body):
    """Recipients: accepted = all the others together."""

    accepted: int = 0
    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    deleted: int = 0
    held: int = 0
    forwarded: int = 0
    badmail: int = 0
    in_flight: int = 0


class OpenTooLong(Body):
    """Messages that should have come to an end by now: an alarm."""

    older_than_s: float
    count: int
    ids: list[str] = Field(description="The oldest, at most 100.")


class LedgerView(Body):
    """The books of all mail whose trace is kept."""

    model_config = examples(
        {
            "since": None,
            "total": {"accepted": 3, "delivered": 2, "held": 1},
            "gates": {"anon": {"accepted": 3, "delivered": 2, "held": 1}},
            "open_too_long": {"older_than_s": 176400, "count": 0, "ids": []},
            "streams": {"INTAKE": 0, "OUTBOUND": 0, "DEFERRED": 0},
            "unrecorded": 0,
        }
    )

    since: datetime | None
    total: Balance
    gates: dict[str, Balance] = Field(description="By gate: anon, auth, and internal for what Postern itself wrote.")
    open_too_long: OpenTooLong
    streams: dict[str, int] | None = Field(
        description="Messages in INTAKE, OUTBOUND and DEFERRED now: what is in flight lies there. null: the bus does not answer."
    )
    unrecorded: int | None = Field(description="Dispositions on the bus that the recorder has not read yet.")
