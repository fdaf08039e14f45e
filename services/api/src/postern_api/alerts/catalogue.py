"""The catalogue: every kind of event that an alert can be about. Closed: what is not in it is not told.

Events are what services tell as notices (`postern_core.notices`), and what this api sees as an alarm (`alarms`): each raise of an alarm is one
event, so that all that an administrator may have to know stands in one list. docs/operate/alerts.md has a row for each kind.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from postern_api.alarms.kinds import Kind as AlarmKind
from postern_api.alerts.objects import Thresholds
from postern_core.notices import NoticeKind


class AlertKind(enum.StrEnum):
    """The values of `NoticeKind`, and those of the alarms' `Kind` with hyphens."""

    COMMAND_TOO_LONG = "command-too-long"
    COMMAND_DISABLED = "command-disabled"
    COMMAND_UNKNOWN = "command-unknown"
    CONNECTION_DENIED = "connection-denied"
    SENDER_REFUSED = "sender-refused"
    RECIPIENT_REFUSED = "recipient-refused"
    AUTHENTICATION_BURST = "authentication-burst"
    ACCOUNT_SUSPECTED = "account-suspected"
    TLS_FAILED = "tls-failed"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    OVERLOADED = "overloaded"
    BROKER_SILENT = "broker-silent"
    BROKER_NOT_STORING = "broker-not-storing"
    STREAM_UNREADABLE = "stream-unreadable"
    STREAM_FILLING = "stream-filling"
    STORE_FILLING = "store-filling"
    STREAM_DAMAGED = "stream-damaged"
    STRANDED_MESSAGES = "stranded-messages"
    MAIL_STANDING = "mail-standing"
    CONSUMER_MISSING = "consumer-missing"
    CONSUMER_UNEXPECTED = "consumer-unexpected"
    REPLICA_BEHIND = "replica-behind"
    REPLICAS_DIFFER = "replicas-differ"
    LEDGER_DISCREPANCIES = "ledger-discrepancies"
    POLICY_STALE = "policy-stale"
    ENGINE_DOWN = "engine-down"


class Source(enum.StrEnum):
    """Where the events of a kind come from."""

    NOTICE = "notice"  # a service tells that something happened
    ALARM = "alarm"  # a condition that lasts was seen


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind. `title` is what a message about it begins with; `defaults` hold until an administrator sets others."""

    source: Source
    title: str
    defaults: Thresholds


_ONCE_AN_HOUR: Final = Thresholds(minutes_before_reraise=60)
_NOISE: Final = Thresholds(events_before_raise=100, minutes_before_reraise=60)  # what the open Internet brings every day
_AT_ONCE: Final = Thresholds()  # an alarm comes when a condition has lasted, and once: it is damped already


def _alarm(title: str) -> Entry:
    return Entry(Source.ALARM, title, _AT_ONCE)


CATALOGUE: Final[Mapping[AlertKind, Entry]] = {
    AlertKind.COMMAND_TOO_LONG: Entry(Source.NOTICE, "A command was longer than its verb may be (overflow)", _ONCE_AN_HOUR),
    AlertKind.COMMAND_DISABLED: Entry(
        Source.NOTICE, "A disabled command was used", Thresholds(events_before_raise=10, minutes_before_reraise=60)
    ),
    AlertKind.COMMAND_UNKNOWN: Entry(Source.NOTICE, "Unknown commands were used", _NOISE),
    AlertKind.CONNECTION_DENIED: Entry(
        Source.NOTICE, "Connections were denied", Thresholds(events_before_raise=1000, minutes_before_reraise=60)
    ),
    AlertKind.SENDER_REFUSED: Entry(Source.NOTICE, "A rejected sender tried to send", _NOISE),
    AlertKind.RECIPIENT_REFUSED: Entry(Source.NOTICE, "A denied recipient was addressed", _NOISE),
    AlertKind.AUTHENTICATION_BURST: Entry(Source.NOTICE, "Authentication failed again and again", _ONCE_AN_HOUR),
    AlertKind.ACCOUNT_SUSPECTED: Entry(
        Source.NOTICE, "An account may be stolen: it sends more than it may", Thresholds(minutes_before_reraise=15)
    ),
    AlertKind.TLS_FAILED: Entry(Source.NOTICE, "TLS failed", _NOISE),
    AlertKind.CERTIFICATE_EXPIRING: Entry(
        Source.NOTICE, "A certificate expires soon, or has expired", Thresholds(minutes_before_reraise=24 * 60)
    ),
    AlertKind.OVERLOADED: Entry(
        Source.NOTICE, "Connections or mail were turned away for want of room", Thresholds(minutes_before_reraise=15)
    ),
    AlertKind.BROKER_SILENT: _alarm("The broker does not answer"),
    AlertKind.BROKER_NOT_STORING: _alarm("The broker answers, and stores nothing"),
    AlertKind.STREAM_UNREADABLE: _alarm("A stream does not answer, or is gone"),
    AlertKind.STREAM_FILLING: _alarm("A backlog is high: a stream fills up"),
    AlertKind.STORE_FILLING: _alarm("The broker's disk space runs out"),
    AlertKind.STREAM_DAMAGED: _alarm("The broker could not read all of a stream: mail is lost"),
    AlertKind.STRANDED_MESSAGES: _alarm("Mail lies where nobody will take it"),
    AlertKind.MAIL_STANDING: _alarm("Mail has not moved on for too long"),
    AlertKind.CONSUMER_MISSING: _alarm("A consumer is missing"),
    AlertKind.CONSUMER_UNEXPECTED: _alarm("There is a consumer that is not Postern's"),
    AlertKind.REPLICA_BEHIND: _alarm("A server of the broker's cluster is away or behind"),
    AlertKind.REPLICAS_DIFFER: _alarm("The servers' copies of a stream differ"),
    AlertKind.LEDGER_DISCREPANCIES: _alarm("Ledger and mail disagree"),
    AlertKind.ENGINE_DOWN: _alarm("An engine does not answer the screener"),
    AlertKind.POLICY_STALE: _alarm("A replica runs an old policy"),
}


def of_notice(kind: NoticeKind) -> AlertKind:
    """The catalogue's name of what a service tells."""
    return AlertKind(kind.value)


def of_alarm(kind: AlarmKind) -> AlertKind:
    """The catalogue's name of an alarm."""
    return AlertKind(kind.value.replace("_", "-"))


ALARMS: Final[Mapping[AlertKind, AlarmKind]] = {of_alarm(kind): kind for kind in AlarmKind}
