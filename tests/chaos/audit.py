"""The audit after a run: what became of every 250.

Loss: a recipient without a final disposition, or one whose disposition is not true: delivered and not at the smart host, held and not in
quarantine, bounced and not told to the sender. Copies are counted, and between the
first and the second a fault must have been in force that can cause one (docs/reliability.md).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chaos.schedule import Kind
from postern_core.ids import accepted_at

if TYPE_CHECKING:
    from chaos.faults import Struck
    from chaos.load import Accepted, Record
    from chaos.target import Target

# what can make a copy: a death or a pause of delivery or the broker, a cut between the two, and a smart host that took the mail and did not say so
_COPYING = {
    Kind.KILL,
    Kind.KILL_SEVERAL,
    Kind.PAUSE,
    Kind.BROKER_KILL,
    Kind.BROKER_RESTART,
    Kind.BROKER_PAUSE,
    Kind.NETWORK_CUT,
    Kind.SMART_HOST_DOWN,
    Kind.SMART_HOST_HANGS_UP,
    Kind.SMART_HOST_FLAPS,
    Kind.SMART_HOST_NEVER_GREETS,  # it begins, like the other two, by cutting the connections of the one that was well
    Kind.SMART_HOST_SILENT_AT_MAIL,
    Kind.SMART_HOST_SILENT_AT_DOT,
    Kind.ROLLING_RESTART,
}
_MARGIN_S = 2.0  # what was in flight when the fault was over


@dataclass
class Findings:
    """What the audit found; the run is good when `missing`, `wrong` and `unexplained` are empty and the books balance."""

    accepted: int = 0
    recipients: int = 0
    dispositions: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    copies: int = 0
    ghosts: int = 0
    unexplained: list[str] = field(default_factory=list)
    ledger: dict[str, int] = field(default_factory=dict)
    discrepancies: list[str] = field(default_factory=list)  # what `postern ledger verify` finds

    @property
    def good(self) -> bool:
        complaints = self.missing or self.wrong or self.unexplained or self.discrepancies
        return not complaints and self.ledger.get("in_flight", -1) == 0


@dataclass
class Seen:
    """Where mail is, apart from what anybody says of it."""

    arrived: dict[tuple[str, str], list[float]]  # (queue id, recipient) → when it came to the smart host, in seconds
    returned: set[str]  # queue ids that an NDR at the smart host names
    held: set[str]  # queue ids in quarantine
    markers: dict[str, str]  # queue id → which of the clients' mails it is, of all that were seen anywhere


def audit(target: Target, record: Record, struck: list[Struck]) -> Findings:
    """Look up every accepted id, and then, when all has settled, everything at the smart host and in quarantine."""
    findings = Findings(accepted=len(record.accepted))
    ends = target.all_dispositions([accepted.queue_id for accepted in record.accepted])
    findings.ledger = target.wait_balanced()
    verified = target.postern("ledger", "verify", "--grace", "2", check=False)
    if "the books balance" not in verified:
        findings.discrepancies = verified.splitlines()
    seen = _look(target, record)
    for accepted in record.accepted:
        _check(accepted, ends[accepted.queue_id], seen, findings)
    known = {accepted.queue_id for accepted in record.accepted}
    for queue_id, marker in seen.markers.items():
        if queue_id not in known:
            findings.ghosts += 1
            if marker not in record.unanswered:
                findings.unexplained.append(f"{queue_id} ({marker}) was never accepted, and no try of it went unanswered")
    for (queue_id, recipient), times in seen.arrived.items():
        if queue_id not in known:
            continue
        for first, second in itertools.pairwise(sorted(times)):
            findings.copies += 1
            if not any(_explains(each, first, second) for each in struck):
                findings.unexplained.append(f"{queue_id} reached {recipient} at {first:.1f} s and again at {second:.1f} s")
    return findings


def _look(target: Target, record: Record) -> Seen:
    seen = Seen(defaultdict(list), set(), set(), {})
    for arrival in target.arrivals():
        if arrival.reverse_path == "":
            seen.returned.update(arrival.returned)
            continue
        seen.markers[arrival.queue_id] = arrival.reverse_path.partition("@")[0]
        for recipient in arrival.recipients:
            seen.arrived[arrival.queue_id, recipient].append(arrival.at_s - record.started)
    begun = datetime.now(UTC) - timedelta(seconds=record.now_s())  # a stack that ran before holds other mail as well
    after = ""
    while True:
        page = (
            target.api.get("/quarantine", params={"limit": 100} | ({"after": after} if after else {})).raise_for_status().json()
        )
        rows = [row for row in page["rows"] if accepted_at(row["queue_id"]) >= begun]
        seen.held.update(row["queue_id"] for row in rows)
        seen.markers |= {row["queue_id"]: row["reverse_path"].partition("@")[0] for row in rows}
        after = page["next"]
        if not after:
            return seen


def _explains(struck: Struck, first_s: float, second_s: float) -> bool:
    """Whether the fault was in force while a first copy was not written down, and a second one made."""
    if (
        struck.fault.kind not in _COPYING or "database" in struck.fault.targets
    ):  # a cut from there keeps no disposition from the broker
        return False
    return struck.from_s <= second_s and struck.until_s + _MARGIN_S >= first_s


def _check(accepted: Accepted, ends: dict[str, str], seen: Seen, findings: Findings) -> None:
    queue_id = accepted.queue_id
    for recipient in accepted.mail.recipients:
        findings.recipients += 1
        end = ends.get(recipient, "")
        findings.dispositions[end or "none"] += 1
        where = f"{queue_id} {recipient}"
        if not end:
            findings.missing.append(f"{where}: no disposition")
        elif end == "delivered" and not seen.arrived.get((queue_id, recipient)):
            findings.missing.append(f"{where}: delivered, but not at the smart host")
        elif end == "held" and queue_id not in seen.held:
            findings.missing.append(f"{where}: held, but not in quarantine")
        elif end == "bounced" and queue_id not in seen.returned:
            findings.missing.append(f"{where}: bounced, but its sender got no NDR")
        elif end != accepted.mail.fate:
            findings.wrong.append(f"{where}: {end} instead of {accepted.mail.fate}")


def table(findings: Findings, record: Record, struck: list[Struck]) -> str:
    """The result as text."""
    lines = [f"  {each.fault}" for each in struck]
    rows = {
        "messages accepted (250)": findings.accepted,
        "their recipients": findings.recipients,
        **{f"  {kind}": count for kind, count in sorted(findings.dispositions.items())},
        "refused for now (4yz)": record.refused,
        "tries without an answer": sum(record.unanswered.values()),
        "  of those stored all the same (ghosts)": findings.ghosts,
        "second copies at the smart host": findings.copies,
        "copies without a fault that explains them": len(findings.unexplained),
        "recipients lost": len(findings.missing),
        "recipients with another end than their mail's": len(findings.wrong),
        "in flight in the ledger": findings.ledger.get("in_flight", -1),
        "discrepancies between ledger and mail": len(findings.discrepancies),
    }
    lines += ["", *(f"{name:45} {count:8}" for name, count in rows.items())]
    lines += [f"  ! {each}" for each in (findings.missing + findings.wrong + findings.unexplained + findings.discrepancies)[:20]]
    return "\n".join(lines)
