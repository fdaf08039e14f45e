"""Prometheus' text format, version 0.0.4. Pure.

Labels say which replica, and which file or engine, all of which an administrator names: never an address or an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from postern_core.control import TROUBLED, ServiceStatus

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


def exposition(reports: Iterable[ServiceStatus]) -> str:
    """What the replicas reported last."""
    reports = list(reports)
    lines = [
        *_gauge(
            "postern_certificate_expiry_timestamp_seconds",
            "When a certificate of a gate's expires, in seconds since 1970.",
            (
                (_of(report) | {"file": each.file}, each.not_after.timestamp())
                for report in reports
                for each in report.certificates
                if each.not_after is not None
            ),
        ),
        *_gauge(
            "postern_certificate_problem",
            "1 when something is wrong with a certificate of a gate's, or with its files as they are now; GET /api/v1/status says what.",
            (
                (_of(report) | {"file": each.file}, float(bool(each.problem)))
                for report in reports
                for each in report.certificates
            ),
        ),
        *_gauge(
            "postern_engine_up",
            "1 while an engine answers a worker of the screener, 0 while it fails or is left alone for that.",
            (
                (_of(report) | {"engine": each.engine.value}, float(each.state not in TROUBLED))
                for report in reports
                for each in report.engines
            ),
        ),
        *_engine_counter(reports, "asked", "Messages that an engine was asked about, since the worker started."),
        *_engine_counter(reports, "failed", "Those of them that it could not judge."),
        *_engine_counter(reports, "seconds", "Time spent waiting for an engine's answers, all together."),
    ]
    return "".join(f"{line}\n" for line in lines)


def _of(report: ServiceStatus) -> dict[str, str]:
    return {"service": report.service, "instance": report.instance}


def _engine_counter(reports: Iterable[ServiceStatus], what: str, about: str) -> Iterator[str]:
    samples = (
        (_of(report) | {"engine": each.engine.value}, float(getattr(each, what))) for report in reports for each in report.engines
    )
    return _family("counter", f"postern_engine_{what}_total", about, samples)


def _gauge(name: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    return _family("gauge", name, about, samples)


def _family(kind: str, name: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
