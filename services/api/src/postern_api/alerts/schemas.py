"""Alerts at the HTTP edge."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue

from postern_api.alerts.catalogue import CATALOGUE, AlertKind, Source
from postern_api.alerts.mail import title_of
from postern_api.alerts.objects import UNTIL_RESET, AlertAction, AlertChannels, AlertPolicy, Thresholds
from postern_api.alerts.repository import Channel, DeliveryState, RaiseRow
from postern_api.alerts.service import Alert
from postern_api.alerts.thresholds import Subject
from postern_api.alerts.webhook import checked_webhook
from postern_api.fields import Body, Flag, Line, Whole, examples
from postern_api.listeners.parts import GateName
from postern_api.policy.addresses import checked_address

_MOST: int = 1_000_000
_SUBJECT: dict[str, JsonValue] = {
    "about": "192.0.2.7",
    "count": 1,
    "service": "ingress-anon/gate-1",
    "fields": {"verb": "MAIL", "length": 4711},
}


class AlertStanding(enum.StrEnum):
    """How it stands with a kind."""

    OPEN = "open"  # raised, and nobody has acknowledged it
    ACKNOWLEDGED = "acknowledged"
    COUNTING = "counting"  # events came, too few to be raised
    QUIET = "quiet"  # nothing since the reset


class ThresholdsBody(Body):
    """When events of a kind are raised: all three thresholds must hold at once."""

    model_config = examples({"events_before_raise": 10, "events_per_second": 0, "minutes_before_reraise": 60})

    events_before_raise: Whole = Field(default=1, ge=1, le=_MOST, description="Events since the last raise, or the reset.")
    events_per_second: Whole = Field(default=0, ge=0, le=_MOST, description="Events within one second; 0: any number.")
    minutes_before_reraise: Whole = Field(
        default=0,
        ge=UNTIL_RESET,
        le=525_600,
        description="n > 0: not within n minutes of the last; 0: at once; -1: not until it is reset.",
    )
    enabled: Flag = Field(default=True, description="false: events are counted, and never raised.")
    notify: Flag = Field(default=True, description="false: raises stand in the list, and nobody is told.")

    def to_object(self) -> Thresholds:
        return Thresholds(**self.model_dump())

    @classmethod
    def of(cls, thresholds: Thresholds) -> ThresholdsBody:
        return cls(**{name: getattr(thresholds, name) for name in cls.model_fields})


class ChannelsBody(Body):
    """Whom alerts are told, and how often at most."""

    model_config = examples(
        {"mail_to": ["postmaster@example.com"], "webhooks": ["https://alerts.example.com/postern"], "most_per_hour": 20}
    )

    mail_to: Annotated[list[Line], Field(max_length=10)] = Field(default=[], description="Addresses that get a message.")
    webhooks: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=10)] = Field(
        default=[],
        description="https URLs (http on loopback only) to which JSON is posted. Whoever may read the policy may read them.",
    )
    most_per_hour: Whole = Field(default=20, ge=1, le=1000, description="To each of them; the others are withheld.")

    def to_object(self) -> AlertChannels:
        """InvalidError for what is no address or no webhook."""
        return AlertChannels(
            mail_to=tuple(dict.fromkeys(checked_address(address) for address in self.mail_to)),
            webhooks=tuple(dict.fromkeys(checked_webhook(url) for url in self.webhooks)),
            most_per_hour=self.most_per_hour,
        )

    @classmethod
    def of(cls, channels: AlertChannels) -> ChannelsBody:
        return cls(mail_to=list(channels.mail_to), webhooks=list(channels.webhooks), most_per_hour=channels.most_per_hour)


class ActionBody(Body):
    """What an alert of a kind does beside telling; nothing by default, and never a program."""

    model_config = examples({"pause": ["anon"], "resume_at_reset": True}, {})

    pause: list[GateName] = Field(
        default_factory=list,
        description="Gates that each raise pauses, if they are open: new connections get 421, sessions go on.",
    )
    resume_at_reset: Flag = Field(
        default=False,
        description="true: when the alert is reset, gates that it paused are opened. false: an administrator opens them.",
    )

    def to_object(self) -> AlertAction:
        return AlertAction(pause=tuple(sorted({gate.value for gate in self.pause})), resume_at_reset=self.resume_at_reset)

    @classmethod
    def of(cls, action: AlertAction) -> ActionBody:
        return cls(pause=[GateName(gate) for gate in action.pause], resume_at_reset=action.resume_at_reset)


class AlertsBody(Body):
    """All of it, as the bootstrap file may have it."""

    model_config = examples(
        {"channels": {"mail_to": ["postmaster@example.com"]}, "thresholds": {"tls-failed": {"enabled": False}}}
    )

    channels: ChannelsBody = ChannelsBody()
    thresholds: dict[AlertKind, ThresholdsBody] = Field(default={})
    actions: dict[AlertKind, ActionBody] = Field(default={})

    def to_object(self) -> AlertPolicy:
        """InvalidError as the channels'."""
        return AlertPolicy(
            thresholds={kind.value: body.to_object() for kind, body in sorted(self.thresholds.items())},
            channels=self.channels.to_object(),
            actions={kind.value: body.to_object() for kind, body in sorted(self.actions.items())},
        )


class SubjectView(Body):
    """What events were about."""

    about: str = Field(description="A client's address, a user, a stream…; by kind.")
    count: int
    service: str
    fields: dict[str, str | int | float | bool] = Field(description="Of the newest. What a client said is what it said.")

    @classmethod
    def of(cls, subject: Subject) -> SubjectView:
        return cls(about=subject.about, count=subject.count, service=subject.service, fields=subject.fields)


_ALERT: dict[str, JsonValue] = {
    "kind": "command-too-long",
    "source": "notice",
    "title": "A command was longer than its verb may be (overflow)",
    "standing": "open",
    "first_at": "2026-03-01T09:12:11Z",
    "last_at": "2026-03-01T09:30:00Z",
    "count": 3,
    "raises": 1,
    "raised_at": "2026-03-01T09:12:11Z",
    "acknowledged_at": None,
    "acknowledged_by": "",
    "pending": 2,
    "subjects": [_SUBJECT],
    "up": [],
    "thresholds": {"minutes_before_reraise": 60},
}


class AlertView(Body):
    """A kind of the catalogue: what was counted since its reset, and how it stands."""

    model_config = examples(_ALERT)

    kind: AlertKind
    source: Source
    title: str
    standing: AlertStanding
    first_at: datetime | None
    last_at: datetime | None
    count: int = Field(description="Events since the reset.")
    raises: int = Field(description="How often it was raised since the reset.")
    raised_at: datetime | None = Field(description="The last time; null: not since the reset.")
    acknowledged_at: datetime | None
    acknowledged_by: str
    pending: int = Field(description="Events since it was last raised.")
    subjects: list[SubjectView] = Field(description="What these were about: the first 20.")
    up: list[str] = Field(description="Of an alarm's kind: what it is up about now (GET /api/v1/alarms says more).")
    thresholds: ThresholdsBody

    @classmethod
    def of(cls, alert: Alert, up: list[str]) -> AlertView:
        state, entry = alert.state, CATALOGUE[alert.kind]
        return cls(
            kind=alert.kind,
            source=entry.source,
            title=entry.title,
            standing=standing(alert),
            first_at=state.first_at,
            last_at=state.last_at,
            count=state.total,
            raises=state.raises,
            raised_at=state.raised_at,
            acknowledged_at=state.acknowledged_at,
            acknowledged_by=state.acknowledged_by,
            pending=state.pending,
            subjects=[SubjectView.of(subject) for subject in state.subjects],
            up=up,
            thresholds=ThresholdsBody.of(alert.thresholds),
        )


def standing(alert: Alert) -> AlertStanding:
    if alert.state.raised_at is not None:
        return AlertStanding.OPEN if alert.state.acknowledged_at is None else AlertStanding.ACKNOWLEDGED
    return AlertStanding.COUNTING if alert.state.total else AlertStanding.QUIET


class AlertsView(Body):
    """The open ones first, then what was last heard of."""

    model_config = examples({"open": 1, "alerts": [_ALERT]})

    open: int = Field(description="How many are open, whatever was asked for.")
    alerts: list[AlertView]


class DeliveryView(Body):
    """Whom a raise was told, or is to be."""

    channel: Channel
    target: str
    state: DeliveryState
    attempts: int
    last_error: str


class RaiseView(Body):
    """One raise."""

    id: int
    kind: str
    title: str
    raised_at: datetime
    first_at: datetime = Field(description="Of the first event since the raise before.")
    count: int = Field(description="Events since then.")
    subjects: list[SubjectView]
    deliveries: list[DeliveryView]

    @classmethod
    def of(cls, row: RaiseRow) -> RaiseView:
        return cls(
            id=row.id,
            kind=row.kind,
            title=title_of(row.kind),
            raised_at=row.raised_at,
            first_at=row.first_at,
            count=row.count,
            subjects=[SubjectView.of(subject) for subject in row.subjects],
            deliveries=[
                DeliveryView(
                    channel=told.channel, target=told.target, state=told.state, attempts=told.attempts, last_error=told.last_error
                )
                for told in row.deliveries
            ],
        )


class RaisesPage(Body):
    """Newest first."""

    model_config = examples(
        {
            "raises": [
                {
                    "id": 7,
                    "kind": "command-too-long",
                    "title": "A command was longer than its verb may be (overflow)",
                    "raised_at": "2026-03-01T09:12:11Z",
                    "first_at": "2026-03-01T09:12:11Z",
                    "count": 1,
                    "subjects": [_SUBJECT],
                    "deliveries": [
                        {
                            "channel": "mail",
                            "target": "postmaster@example.com",
                            "state": "done",
                            "attempts": 1,
                            "last_error": "",
                        }
                    ],
                }
            ]
        }
    )

    raises: list[RaiseView]
