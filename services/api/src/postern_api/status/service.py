"""Puts together what the board, the broker and the publisher know."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from postern_api.alarms.board import AlarmBoard
from postern_api.alarms.kinds import Severity
from postern_api.alarms.schemas import AlarmCounts
from postern_api.engines.schemas import engine_views
from postern_api.metrics.exposition import Backlog, StreamSize
from postern_api.policy.editing import Editor
from postern_api.policy.publishing import Publisher
from postern_api.status.board import StatusBoard, is_fresh
from postern_api.status.schemas import CertificateView, PolicyStatus, ReplicaView, StatusView, StreamView, UnboundView
from postern_core.broker.names import SCREENER_CONSUMER
from postern_core.bus import Bus
from postern_core.bus.topology import (
    ARCHIVE,
    BADMAIL,
    BODIES,
    DEFERRED,
    DISPOSITIONS,
    EVENTS,
    INTAKE,
    OUTBOUND,
    QUARANTINE,
)
from postern_core.control import TROUBLED, CertificateStatus, ServiceStatus
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

STREAMS: Final = (INTAKE, OUTBOUND, DEFERRED, QUARANTINE, BADMAIL, BODIES, DISPOSITIONS, EVENTS, ARCHIVE)


class StatusService:
    def __init__(self, bus: Bus, board: StatusBoard, editor: Editor, publisher: Publisher, alarms: AlarmBoard) -> None:
        self._bus = bus
        self._board = board
        self._editor = editor
        self._publisher = publisher
        self._alarms = alarms

    async def status(self) -> StatusView:
        """The view of this moment."""
        newest = (await self._editor.current()).number
        replicas = [_replica(report) for report in self.reports()]
        live_on = sum(replica.fresh and replica.revision == newest for replica in replicas)
        return StatusView(
            summary=f"revision {newest}: live on {live_on} of {len(replicas)} replicas",
            revision=newest,
            live_on=live_on,
            policy=PolicyStatus(newest=newest, published=self._publisher.live, problem=self._publisher.problem),
            replicas=replicas,
            alarms=AlarmCounts(critical=self._alarms.count(Severity.CRITICAL), warning=self._alarms.count(Severity.WARNING)),
            broker_connected=self._bus.connected,
            streams=await self._streams(),
        )

    def listening(self, service: str) -> dict[str, list[str]]:
        """Where each replica of a service that is heard of listens, by instance."""
        reports = self._board.reports(datetime.now(UTC))
        return {report.instance: list(report.listens) for report in reports if report.service == service and is_fresh(report)}

    def unbound(self, service: str) -> dict[str, list[UnboundView]]:
        """Where each replica of a service that is heard of is to listen and cannot, by instance."""
        reports = [report for report in self.reports() if report.service == service and is_fresh(report)]
        return {report.instance: _unbound(report) for report in reports if report.unbound}

    def reports(self) -> list[ServiceStatus]:
        """What each replica reported last."""
        return self._board.reports(datetime.now(UTC))

    def engine_troubles(self) -> tuple[str, ...]:
        """Engines that fail, a sentence for each screener; without addresses, since /readyz asks nobody for a token."""
        return tuple(
            f"{engine.engine} does not answer {report.service}/{report.instance}"
            for report in self.reports()
            if is_fresh(report)
            for engine in report.engines
            if engine.state in TROUBLED
        )

    async def sizes(self) -> list[StreamSize] | None:
        """Of all streams; None when the broker does not answer."""
        streams = await self._streams()
        return (
            None
            if streams is None
            else [
                StreamSize(name=each.name, messages=each.messages, bytes=each.bytes, max_bytes=each.max_bytes) for each in streams
            ]
        )

    async def backlogs(self) -> list[Backlog]:
        """What waits for the screener, and for delivery by route; empty when the broker does not answer."""
        if not self._bus.connected:
            return []
        try:
            routes = [(OUTBOUND, name) for name in sorted(await self._bus.consumer_names(OUTBOUND))]
            found = await asyncio.gather(
                *(self._backlog(stream, name) for stream, name in [(INTAKE, SCREENER_CONSUMER), *routes])
            )
        except TransientError as error:
            log.warning("status.backlogs_unknown", reason=error.reason)
            return []
        return [each for each in found if each is not None]

    async def _backlog(self, stream: str, consumer: str) -> Backlog | None:
        info = await self._bus.api(f"CONSUMER.INFO.{stream}.{consumer}", {}, tolerate_error=True)
        if "error" in info:  # gone meanwhile
            return None
        return Backlog(stream, consumer, int(info["num_pending"]), int(info["num_ack_pending"]))

    async def _streams(self) -> list[StreamView] | None:
        if not self._bus.connected:
            return None
        try:
            return list(await asyncio.gather(*(self._stream(name) for name in STREAMS)))
        except TransientError as error:
            log.warning("status.streams_unknown", reason=error.reason)
            return None

    async def _stream(self, name: str) -> StreamView:
        info = await self._bus.api(f"STREAM.INFO.{name}", {})
        limit, size = int(info["config"].get("max_bytes", -1)), int(info["state"]["bytes"])
        return StreamView(
            name=name,
            messages=int(info["state"]["messages"]),
            bytes=size,
            max_bytes=limit,
            fill=round(size / limit, 4) if limit > 0 else 0.0,
        )


def _replica(report: ServiceStatus) -> ReplicaView:
    return ReplicaView(
        service=report.service,
        instance=report.instance,
        ready=report.ready,
        fresh=is_fresh(report),
        revision=report.revision,
        policy_error=report.policy_error,
        started_at=report.started_at,
        at=report.at,
        pid=report.pid,
        in_flight=report.in_flight,
        detail=report.detail,
        listens=list(report.listens),
        unbound=_unbound(report),
        certificates=[_certificate(each, report.at) for each in report.certificates],
        engines=engine_views(report),
    )


def _unbound(report: ServiceStatus) -> list[UnboundView]:
    return [UnboundView(address=each.address, problem=each.problem) for each in report.unbound]


def _certificate(certificate: CertificateStatus, at: datetime) -> CertificateView:
    ends = certificate.not_after
    return CertificateView(
        file=certificate.file,
        names=list(certificate.names),
        not_after=ends,
        days_left=(ends - at) // timedelta(days=1) if ends is not None else None,
        problem=certificate.problem,
    )
