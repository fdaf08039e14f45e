"""What is wrong when ledger, bus and queue are laid beside one another. Pure: sets of ids in, suspicions out.

A suspicion of one look proves nothing, since mail moves between reading one book and the next. The order of reading keeps them few: first the
ledger, then the streams in the order in which mail moves (nothing moves against it, and mail is in the next place before it leaves the
last), then the queue. What is wrong in every look for the length of the grace is a discrepancy (`verification`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from postern_core.bus.topology import BADMAIL, DEFERRED, INTAKE, OUTBOUND, QUARANTINE

STREAMS = (INTAKE, QUARANTINE, OUTBOUND, DEFERRED, BADMAIL)  # as mail moves


class Fault(enum.StrEnum):
    """The closed list of what can be wrong with an id."""

    MISSING = "missing"  # open in the ledger, and nowhere
    UNKNOWN = "unknown"  # on the bus, and not in the ledger
    ENDED_TWICE = "ended-twice"  # more recipients came to an end than there are
    ROW_WITHOUT_MAIL = "row-without-mail"  # in the queue, and not in DEFERRED
    MAIL_WITHOUT_ROW = "mail-without-row"  # in DEFERRED, and not in the queue
    HELD_WITHOUT_MAIL = "held-without-mail"  # held in the ledger, and not in QUARANTINE
    MAIL_NOT_HELD = "mail-not-held"  # in QUARANTINE, and not held in the ledger
    BADMAIL_WITHOUT_MAIL = "badmail-without-mail"  # badmail in the ledger, and not in BADMAIL
    MAIL_NOT_BADMAIL = "mail-not-badmail"  # in BADMAIL, and not badmail in the ledger


@dataclass(slots=True)
class Look:
    """What each book says of one share of the ids. A job id begins with the queue id of its message."""

    open: set[str] = field(default_factory=set)  # queue ids
    ended_twice: dict[str, str] = field(default_factory=dict)  # queue id → how often
    held: set[str] = field(default_factory=set)  # queue ids
    released: set[str] = field(default_factory=set)  # queue ids of what was released and has not come to an end again
    badmail: set[str] = field(default_factory=set)  # job ids
    # queue ids in INTAKE, OUTBOUND and QUARANTINE, job ids in DEFERRED and BADMAIL
    streams: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in STREAMS})
    rows: set[str] = field(default_factory=set)  # job ids
    unknown: set[str] = field(default_factory=set)  # queue ids that are on the bus, and not in the ledger

    def on_the_bus(self) -> set[str]:
        """Queue ids of everything in the streams."""
        return set().union(*(map(queue_id_of, ids) for ids in self.streams.values()))


Suspicion = tuple[Fault, str]  # what is wrong, with which queue id or job id


def queue_id_of(identity: str) -> str:
    """The queue id in a queue id or job id (`<queue-id>-<route>-<generation>`)."""
    return identity.partition("-")[0]


def suspicions(look: Look) -> dict[Suspicion, str]:
    """Everything that does not match, with one sentence for an administrator."""
    streams = look.streams
    messages = {name: set(map(queue_id_of, ids)) for name, ids in streams.items()}
    deferred, badmail = messages[DEFERRED], messages[BADMAIL]
    in_queue = deferred | set(map(queue_id_of, look.rows))
    found: dict[Suspicion, str] = {(Fault.ENDED_TWICE, one): detail for one, detail in look.ended_twice.items()}

    for one in look.open - streams[INTAKE] - streams[OUTBOUND] - streams[QUARANTINE] - in_queue:
        where = "only its badmail is on the bus" if one in badmail else "it is neither on the bus nor in the retry queue"
        found[Fault.MISSING, one] = f"the ledger has it in flight, but {where}: this mail is lost"
    for one in look.unknown:
        where = " and ".join(name for name in STREAMS if one in messages[name])
        found[Fault.UNKNOWN, one] = f"it is in {where}, but the ledger does not know it: its acceptance was never recorded"
    for one in look.rows - streams[DEFERRED]:
        found[Fault.ROW_WITHOUT_MAIL, one] = "the retry queue has a row for it, but its mail is not in DEFERRED"
    for one in streams[DEFERRED] - look.rows:
        found[Fault.MAIL_WITHOUT_ROW, one] = (
            "its mail is in DEFERRED, but the retry queue has no row for it: nobody tries it again"
        )
    for one in look.held - streams[QUARANTINE]:
        found[Fault.HELD_WITHOUT_MAIL, one] = "the ledger has it as held, but it is not in QUARANTINE"
    # a release that was cut short, and mail that the screener is about to let go of, are in both places
    for one in streams[QUARANTINE] - look.held - look.released - streams[INTAKE] - look.unknown:
        found[Fault.MAIL_NOT_HELD, one] = (
            "it is in QUARANTINE, but the ledger does not have it as held: what was done to it was cut short, do it once more"
        )
    for one in look.badmail - streams[BADMAIL]:
        found[Fault.BADMAIL_WITHOUT_MAIL, one] = "the ledger has it as badmail, but it is not in BADMAIL"
    for one in streams[BADMAIL] - look.badmail:
        queue_id = queue_id_of(one)
        if queue_id not in streams[OUTBOUND] and queue_id not in deferred and queue_id not in look.unknown:
            found[Fault.MAIL_NOT_BADMAIL, one] = (
                "it is in BADMAIL, but the ledger does not have it as badmail: if its deletion was cut short, delete it once more"
            )
    return found
