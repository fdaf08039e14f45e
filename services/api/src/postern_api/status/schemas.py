"""Status at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.alarms.schemas import AlarmCounts
from postern_api.engines.schemas import EngineView
from postern_api.fields import Body, examples


class CertificateView(Body):
    """A certificate of a gate's, as it is in use."""

    file: str
    names: list[str] = Field(description="Hosts that it names.")
    not_after: datetime | None = Field(description="When it expires; null: it is not in use, or could not be read.")
    days_left: int | None = Field(description="Until then; below zero: it has expired.")
    problem: str = Field(description="What is wrong with it, or with the files as they are now; empty when nothing is.")


class UnboundView(Body):
    """Where a gate is to listen and does not; it tries again every few seconds."""

    address: str
    problem: str = Field(description="Why, in the system's words.", examples=["Address already in use", "Permission denied"])


class ReplicaView(Body):
    """One running instance, as it last reported."""

    service: str
    instance: str
    ready: bool
    fresh: bool = Field(description="It has reported within the last 20 seconds.")
    revision: int = Field(description="Of the policy that it runs; 0: none yet.")
    policy_error: str = Field(description="Why it refused the newest revision; empty when it did not.")
    started_at: datetime
    at: datetime
    pid: int
    in_flight: int
    detail: str
    listens: list[str] = Field(default_factory=list, description="Of a gate: where it listens.")
    unbound: list[UnboundView] = Field(default=[], description="Of a gate: where it is to listen and cannot.")
    certificates: list[CertificateView] = Field(default=[], description="Of a gate that has TLS; the default one first.")
    engines: list[EngineView] = Field(default=[], description="Of a screener: the engines that are on.")


class StreamView(Body):
    """How full a stream is."""

    name: str
    messages: int
    bytes: int
    max_bytes: int = Field(description="-1: no limit of its own.")
    fill: float = Field(description="Share of max_bytes, 0 to 1; an alarm from 0.7 on.")


class PolicyStatus(Body):
    """Where the newest revision is."""

    newest: int
    published: int = Field(description="The newest one known to be on the bus; 0: none.")
    problem: str = Field(description="Why the newest is not on the bus; empty when it is.")


class StatusView(Body):
    """The whole stack at a glance."""

    model_config = examples(
        {
            "summary": "revision 42: live on 1 of 1 replicas",
            "revision": 42,
            "live_on": 1,
            "policy": {"newest": 42, "published": 42, "problem": ""},
            "replicas": [
                {
                    "service": "screener",
                    "instance": "screener-1",
                    "ready": True,
                    "fresh": True,
                    "revision": 42,
                    "policy_error": "",
                    "started_at": "2026-03-01T09:30:00Z",
                    "at": "2026-03-01T09:30:00Z",
                    "pid": 7,
                    "in_flight": 0,
                    "detail": "",
                    "certificates": [],
                }
            ],
            "alarms": {"critical": 0, "warning": 0},
            "broker_connected": True,
            "streams": [{"name": "INTAKE", "messages": 0, "bytes": 0, "max_bytes": 4294967296, "fill": 0}],
        }
    )

    summary: str = Field(examples=["revision 42: live on 5 of 5 replicas"])
    revision: int
    live_on: int
    policy: PolicyStatus
    replicas: list[ReplicaView]
    alarms: AlarmCounts
    broker_connected: bool
    streams: list[StreamView] | None = Field(description="null: the broker does not answer.")
