"""Prometheus' text format, version 0.0.4. Pure.

Labels say which replica, file, stream and route, all of which an administrator names, and values of closed lists: never an address or an id. What replicas
count starts at zero with each of their starts, which monitoring takes for a reset of the counter, by replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from postern_api.metrics.catalogue import CONNECTIONS, COUNTERS, RETRY_QUEUE, SCREENING_S, Metric
from postern_core.control import TROUBLED, ServiceStatus
from postern_core.counters import BEYOND, BUCKETS_S, BY_ROUTE, SUM, CounterName, GaugeName

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_GATES: Final = ("ingress-anon", "ingress-auth")

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class StreamSize:
    """A stream of the broker's."""

    name: str
    messages: int
    bytes: int
    max_bytes: int  # -1: no limit of its own


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one consumer, and what it has in hand."""

    stream: str
    consumer: str
    pending: int
    in_hand: int


def exposition(
    reports: Iterable[ServiceStatus], streams: Sequence[StreamSize] | None = None, backlogs: Sequence[Backlog] = ()
) -> str:
    """What the replicas reported last, and what the broker holds: None when it does not answer."""
    reports = list(reports)
    lines = [
        *_of_replicas(reports),
        *_of_certificates(reports),
        *_of_counters(reports),
        *_of_screening(reports),
        *_of_engines(reports),
        *_of_delivery(reports),
        *_family("postern_broker_answers", "1 when the broker answers the api.", "gauge", [({}, float(streams is not None))]),
        *_of_broker(streams or (), backlogs),
    ]
    return "".join(f"{line}\n" for line in lines)


def _of_replicas(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    for name, about, values in (
        ("ready", "1 when the replica says that it is ready.", [float(each.ready) for each in reports]),
        (
            "start_time_seconds",
            "When the replica started, in seconds since 1970.",
            [each.started_at.timestamp() for each in reports],
        ),
        ("report_time_seconds", "When it reported what is said of it here.", [each.at.timestamp() for each in reports]),
        ("policy_revision", "The revision that it runs.", [float(each.revision) for each in reports]),
        ("in_flight", "What it has in hand: sessions, messages, jobs.", [float(each.in_flight) for each in reports]),
    ):
        samples = [(_of(report), value) for report, value in zip(reports, values, strict=True)]
        yield from _family(f"postern_replica_{name}", about, "gauge", samples)
    yield from _family(
        "postern_gate_open_sessions",
        "Sessions that are open now.",
        "gauge",
        [(_of(report), float(report.in_flight)) for report in reports if report.service in _GATES],
    )


def _of_certificates(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    found = [(_of(report) | {"file": each.file}, each) for report in reports for each in report.certificates]
    yield from _family(
        "postern_certificate_expiry_timestamp_seconds",
        "When a certificate of a gate's expires, in seconds since 1970.",
        "gauge",
        [(labels, each.not_after.timestamp()) for labels, each in found if each.not_after is not None],
    )
    yield from _family(
        "postern_certificate_problem",
        "1 when something is wrong with a certificate of a gate's, or with its files as they are now; GET /api/v1/status says what.",
        "gauge",
        [(labels, float(bool(each.problem))) for labels, each in found],
    )


def _of_counters(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    for counter, metric in COUNTERS.items():
        samples = [sample for report in reports for sample in _samples(metric, _of(report), report.counters.get(counter, {}))]
        yield from _family(metric.name, metric.about, "counter", samples)


def _of_screening(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    name = SCREENING_S.name
    yield from _head(name, SCREENING_S.about, "histogram")
    for report in reports:
        counted = report.counters.get(CounterName.SCREENING_S)
        if counted is None:
            continue
        total, of = 0.0, _of(report)
        for bound in (*map(str, BUCKETS_S), BEYOND):
            total += counted.get(bound, 0.0)
            yield _line(f"{name}_bucket", of | {"le": bound}, total)
        yield _line(f"{name}_sum", of, counted.get(SUM, 0.0))
        yield _line(f"{name}_count", of, total)


def _of_engines(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    found = [(_of(report) | {"engine": each.engine.value}, each) for report in reports for each in report.engines]
    yield from _family(
        "postern_engine_up",
        "1 while an engine answers a worker of the screener, 0 while it fails or is left alone for that.",
        "gauge",
        [(labels, float(each.state not in TROUBLED)) for labels, each in found],
    )
    for what, about in (
        ("asked", "Messages that an engine was asked about, since the worker started."),
        ("failed", "Those of them that it could not judge."),
        ("seconds", "Time spent waiting for an engine's answers, all together."),
    ):
        samples = [(labels, float(getattr(each, what))) for labels, each in found]
        yield from _family(f"postern_engine_{what}_total", about, "counter", samples)


def _of_delivery(reports: Sequence[ServiceStatus]) -> Iterator[str]:
    standing = [
        sample
        for report in reports
        for sample in _samples(CONNECTIONS, _of(report), report.gauges.get(GaugeName.CONNECTIONS, {}))
    ]
    yield from _family(CONNECTIONS.name, CONNECTIONS.about, "gauge", standing)
    # all replicas count the same queue: the newest count
    counting = [report for report in reports if GaugeName.RETRY_QUEUE in report.gauges]
    newest = max(counting, key=lambda report: report.at, default=None)
    jobs = _samples(RETRY_QUEUE, {}, newest.gauges[GaugeName.RETRY_QUEUE]) if newest is not None else ()
    yield from _family(RETRY_QUEUE.name, RETRY_QUEUE.about, "gauge", jobs)


def _of_broker(streams: Sequence[StreamSize], backlogs: Sequence[Backlog]) -> Iterator[str]:
    for name, about, sizes in (
        (
            "messages",
            "Entries in a stream; one of INTAKE and OUTBOUND may hold several messages.",
            [float(each.messages) for each in streams],
        ),
        ("bytes", "Octets in a stream.", [float(each.bytes) for each in streams]),
        ("max_bytes", "Octets that a stream may hold; -1: no limit of its own.", [float(each.max_bytes) for each in streams]),
    ):
        samples = [({"stream": stream.name}, size) for stream, size in zip(streams, sizes, strict=True)]
        yield from _family(f"postern_stream_{name}", about, "gauge", samples)
    for name, about, counts in (
        (
            "pending",
            "Entries that wait for a consumer; delivery-ROUTE is that of a route.",
            [float(each.pending) for each in backlogs],
        ),
        ("in_hand", "Entries that a consumer was given and has not finished.", [float(each.in_hand) for each in backlogs]),
    ):
        waiting = [
            ({"stream": each.stream, "consumer": each.consumer}, value) for each, value in zip(backlogs, counts, strict=True)
        ]
        yield from _family(f"postern_consumer_{name}", about, "gauge", waiting)


def _of(report: ServiceStatus) -> dict[str, str]:
    return {"service": report.service, "instance": report.instance}


def _samples(metric: Metric, of: Mapping[str, str], labelled: Mapping[str, float]) -> Iterator[Sample]:
    for label, value in labelled.items():
        parts = label.split(BY_ROUTE, len(metric.labels) - 1) if metric.labels else []
        if len(parts) == len(metric.labels):
            yield dict(of) | dict(zip(metric.labels, parts, strict=True)), value


def _family(name: str, about: str, kind: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield from _head(name, about, kind)
    for labels, value in samples:
        yield _line(name, labels, value)


def _head(name: str, about: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
