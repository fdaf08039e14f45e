"""The alarms that are up. A condition becomes one when enough looks in a row have found it, and goes when a look that could have does not.

Kept in memory: an api that starts anew has them again after the same number of looks. Each replica of the api has its own board, and they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from postern_api.alarms.kinds import Condition, Key, Kind, Severity

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# what one look may see while all is well: a leader is elected, a consumer just made; two counts of a busy stream are not of one moment
LOOKS: Final[Mapping[Kind, int]] = {
    Kind.BROKER_SILENT: 2,
    Kind.BROKER_NOT_STORING: 2,
    Kind.STREAM_UNREADABLE: 2,
    Kind.STREAM_FILLING: 1,
    Kind.STORE_FILLING: 1,
    Kind.STREAM_DAMAGED: 1,
    Kind.STRANDED_MESSAGES: 4,
    Kind.MAIL_STANDING: 2,
    Kind.CONSUMER_MISSING: 2,
    Kind.CONSUMER_UNEXPECTED: 2,
    Kind.REPLICA_BEHIND: 2,
    Kind.REPLICAS_DIFFER: 2,
    Kind.LEDGER_DISCREPANCIES: 1,
    Kind.ENGINE_DOWN: 2,
    Kind.POLICY_STALE: 4,  # a large policy takes a while to compile, and replicas are replaced one after another
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition that lasts. `since` is when it was first seen."""

    kind: Kind
    about: str
    since: datetime
    condition: Condition


class AlarmBoard:
    """`alarms` are those that are up, the critical ones first."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[int, datetime]] = {}  # in how many looks in a row, and since when
        self._up: dict[Key, Alarm] = {}

    @property
    def alarms(self) -> list[Alarm]:
        return sorted(self._up.values(), key=lambda alarm: (alarm.condition.severity is not Severity.CRITICAL, alarm.since))

    @property
    def severities(self) -> dict[Key, Severity]:
        return {key: alarm.condition.severity for key, alarm in self._up.items()}

    def is_seen(self, key: Key) -> bool:
        """Whether the last look that could tell found it, be it an alarm yet or not."""
        return key in self._seen

    def count(self, severity: Severity) -> int:
        return sum(alarm.condition.severity is severity for alarm in self._up.values())

    def take(self, found: Mapping[Key, Condition], covered: Callable[[Key], bool], now: datetime) -> None:
        """What one look found, and for which conditions it could tell."""
        for key in [key for key in self._seen if key not in found and covered(key)]:
            del self._seen[key]
            if alarm := self._up.pop(key, None):
                log.info("alarm.cleared", kind=alarm.kind, about=alarm.about, since=alarm.since.isoformat())
        for key, condition in found.items():
            looks, since = self._seen.get(key, (0, now))
            self._seen[key] = (looks + 1, since)
            if looks + 1 < LOOKS[key[0]]:
                continue
            before = self._up.get(key)
            self._up[key] = alarm = Alarm(*key, since, condition)
            if before is None:
                _tell("alarm.raised", alarm)
            elif before.condition.severity is not condition.severity:
                _tell("alarm.changed", alarm)


def _tell(event: str, alarm: Alarm) -> None:
    condition = alarm.condition
    write = log.error if condition.severity is Severity.CRITICAL else log.warning
    write(event, kind=alarm.kind, about=alarm.about, severity=condition.severity, summary=condition.summary, **condition.figures)
