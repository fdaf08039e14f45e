"""The ledger at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, JsonValue

from postern_api.fields import Body, examples
from postern_api.ledger.comparison import Fault

_TOO_LONG: dict[str, JsonValue] = {"older_than_s": 176400, "count": 0, "ids": []}


class Balance(Body):
    """Recipients: accepted = all the others together."""

    accepted: int = 0
    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    deleted: int = 0
    held: int = 0
    forwarded: int = 0
    split: int = 0
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
            "open_too_long": _TOO_LONG,
            "streams": {"INTAKE": 0, "OUTBOUND": 0, "DEFERRED": 0},
            "unrecorded": 0,
        }
    )

    since: datetime | None
    total: Balance
    gates: dict[str, Balance] = Field(
        description="By gate: anon, auth, internal for what Postern itself wrote; empty while the gate is not known, because the acceptance got lost."
    )
    open_too_long: OpenTooLong
    streams: dict[str, int] | None = Field(
        description="Messages in INTAKE, OUTBOUND and DEFERRED now: what is in flight lies there. null: the bus does not answer."
    )
    unrecorded: int | None = Field(description="Dispositions on the bus that the recorder has not read yet.")


class HourBalance(Balance):
    """The books of the mail that one gate accepted in one hour, as they stand now."""

    hour: datetime = Field(description="Its beginning, in UTC.")
    gate: str


class LedgerHours(Body):
    """Oldest first. An hour in which a gate accepted nothing has no row."""

    model_config = examples(
        {
            "since": "2026-03-01T09:00:00Z",
            "until": "2026-03-02T09:00:00Z",
            "rows": [{"hour": "2026-03-01T09:00:00Z", "gate": "anon", "accepted": 3, "delivered": 2, "held": 1}],
        }
    )

    since: datetime = Field(description="The beginning of the first hour.")
    until: datetime = Field(description="The end of the last hour.")
    rows: list[HourBalance]


class DiscrepancyView(Body):
    """One id about which the books disagree."""

    queue_id: str
    job_id: str = Field(description="Empty when it concerns the whole message.")
    fault: Fault = Field(description="Stable name of what is wrong, for programs.")
    detail: str = Field(description="One sentence for people.")


class VerificationView(Body):
    """What ledger, streams and retry queue say of one another."""

    model_config = examples(
        {
            "balanced": False,
            "count": 1,
            "discrepancies": [
                {
                    "queue_id": "01j9zq3v5k7wexamp1e0000000",
                    "job_id": "01j9zq3v5k7wexamp1e0000000-main-0",
                    "fault": "row-without-mail",
                    "detail": "the retry queue has a row for it, but its mail is not in DEFERRED",
                }
            ],
            "undecided": 0,
            "looked_at": {"open": 1, "INTAKE": 0, "OUTBOUND": 0, "DEFERRED": 0, "queue_rows": 1},
            "open_too_long": _TOO_LONG,
        }
    )

    balanced: bool = Field(description="No discrepancy, and nothing undecided.")
    count: int = Field(description="Discrepancies in all.")
    discrepancies: list[DiscrepancyView] = Field(description="By id, at most 1000.")
    undecided: int = Field(
        description="Ids that look wrong while the recorder has not read all that was told of them: verify again."
    )
    looked_at: dict[str, int] = Field(description="How many open messages, messages of each stream, queue rows … were compared.")
    open_too_long: OpenTooLong
