"""What Prometheus reads, as its own parser reads it: traffic of a real gate, what the broker holds, and names with anything in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fixtures.api import RunningApi, eventually
from fixtures.gates import gate_under_test
from postern_api.metrics.catalogue import COUNTERS, SCREENING_S
from postern_api.metrics.exposition import Backlog, StreamSize, exposition
from postern_core.control import CertificateStatus, ServiceStatus
from postern_core.counters import BUCKETS_S, BY_ROUTE, CounterName, Counters
from postern_core.envelope import Gate
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "operate" / "metrics.md"
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """As Prometheus reads it. Each family stands once, and each sample once."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    assert all(family.documentation and family.type != "unknown" for family in families)
    return found


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def report(service: str, instance: str = "one", **fields: Any) -> ServiceStatus:
    return ServiceStatus(service=service, instance=instance, **({"started_at": NOW, "at": NOW, "ready": True} | fields))


def test_every_counter_is_exposed() -> None:
    assert {*COUNTERS, CounterName.SCREENING_S} == {*CounterName}
    assert all(metric.name.endswith("_total") for metric in COUNTERS.values())


@given(names=st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20)))
def test_whatever_a_name_holds_is_read_back(names: tuple[str, str, str]) -> None:
    instance, file, stream = names
    certificate = CertificateStatus(file=file, not_after=NOW)
    shown = exposition(
        [report("ingress-anon", instance, certificates=(certificate,))],
        [StreamSize(stream, 1, 2, -1)],
        [Backlog(stream, instance, 3, 4)],
    )
    samples = read(shown)
    expiry = of("postern_certificate_expiry_timestamp_seconds", service="ingress-anon", instance=instance, file=file)
    assert samples[expiry] == NOW.timestamp()
    assert samples[of("postern_stream_max_bytes", stream=stream)] == -1
    assert samples[of("postern_consumer_pending", stream=stream, consumer=instance)] == 3


@given(took=st.lists(st.floats(min_value=0, max_value=100), max_size=30))
def test_a_histogram_has_each_observation_in_every_bucket_that_is_wide_enough(took: list[float]) -> None:
    counters = Counters()
    for seconds in took:
        counters.observe(CounterName.SCREENING_S, seconds)
    name, labels = SCREENING_S.name, {"service": "screener", "instance": "one"}
    samples = read(exposition([report("screener", counters=counters.told())]))
    if not took:
        assert of(f"{name}_count", **labels) not in samples
        return
    for bound in BUCKETS_S:
        assert samples[of(f"{name}_bucket", **labels, le=str(bound))] == sum(seconds <= bound for seconds in took)
    assert samples[of(f"{name}_bucket", **labels, le="+Inf")] == samples[of(f"{name}_count", **labels)] == len(took)
    assert samples[of(f"{name}_sum", **labels)] == pytest.approx(sum(took))


def test_replicas_stand_side_by_side_and_the_queue_that_they_share_once() -> None:
    early, late = (
        report("delivery", name, at=NOW + timedelta(seconds=after), counters=counters, gauges=gauges)
        for name, after, counters, gauges in (
            ("a", 0, {"settled": {f"delivered{BY_ROUTE}main": 3}}, {"retry-queue": {f"waiting{BY_ROUTE}main": 9}}),
            (
                "b",
                5,
                {"settled": {f"delivered{BY_ROUTE}main": 4}},
                {"retry-queue": {f"waiting{BY_ROUTE}main": 7}, "connections": {"main": 2}},
            ),
        )
    )
    samples = read(exposition([early, late]))
    for instance, count in (("a", 3), ("b", 4)):
        labels = {"service": "delivery", "instance": instance, "disposition": "delivered", "route": "main"}
        assert samples[of("postern_delivery_recipients_total", **labels)] == count
    assert [value for (name, _), value in samples.items() if name == "postern_delivery_queue_jobs"] == [7]
    assert samples[of("postern_delivery_queue_jobs", state="waiting", route="main")] == 7
    assert samples[of("postern_delivery_connections", service="delivery", instance="b", route="main")] == 2
    assert samples[of("postern_broker_answers")] == 0


def test_the_page_names_every_metric_and_no_other() -> None:
    shown = set(re.findall(r"^# TYPE (\w+) ", exposition([]), re.MULTILINE))
    assert set(re.findall(r"\bpostern_[a-z_]+", PAGE.read_text(encoding="utf-8"))) == shown


def test_what_another_version_counts_is_left_out() -> None:
    read(exposition([report("delivery", counters={"new": {"x": 1}, "settled": {"no-route": 1}}, gauges={"newer": {"": 1}})]))


async def test_a_gates_traffic_is_counted_and_what_the_broker_holds_is_shown(api: RunningApi) -> None:
    changes = {"listen": "127.0.0.1:0", "drain_s": 4, "instance": "mx-1"}
    settings = Settings(**api.broker.settings("ingress-anon").model_dump() | changes)
    async with gate_under_test(api.broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        await gate.wait_for(lambda: gate.listener.newest_rules() is not None)
        wire, other = await gate.session(), await gate.session()
        await wire.expect("MAIL FROM:<x@sender.example>", "250")
        await wire.expect("RCPT TO:<a@elsewhere.example>", "550")
        for mailbox in ("a", "b"):
            await wire.expect(f"RCPT TO:<{mailbox}@relay.example>", "250")
        await wire.expect("DATA", "354")
        await wire.send(MESSAGE + b".\r\n")
        assert (await wire.reply()).startswith("250")
        await wire.expect("NONSENSE", "500")
        await other.expect("QUIT", "221")
        labels = {"service": "ingress-anon", "instance": "mx-1"}

        async def scraped() -> Samples | None:
            answer = await api.client.get("/metrics")
            samples = read(answer.text)
            return samples if samples.get(of("postern_gate_open_sessions", **labels)) == 1 else None

        samples = await eventually(scraped)
        assert samples[of("postern_gate_sessions_total", **labels)] == 2
        assert samples[of("postern_gate_accepted_messages_total", **labels)] == 1
        assert samples[of("postern_gate_accepted_recipients_total", **labels)] == 2
        assert samples[of("postern_gate_accepted_message_bytes_total", **labels)] == len(MESSAGE)
        assert samples[of("postern_gate_refusals_total", **labels, code="550")] == 1
        assert samples[of("postern_gate_refusals_total", **labels, code="500")] == 1
        received = samples[of("postern_gate_bytes_total", **labels, direction="received")]
        assert received > len(MESSAGE)
        assert samples[of("postern_gate_bytes_total", **labels, direction="sent")] > 0
        assert samples[of("postern_replica_ready", **labels)] == 1
        assert samples[of("postern_stream_messages", stream="INTAKE")] == 1
        assert samples[of("postern_stream_bytes", stream="INTAKE")] > len(MESSAGE)
        assert samples[of("postern_consumer_pending", stream="INTAKE", consumer="screener")] == 1
        assert samples[of("postern_broker_answers")] == 1
    api.broker.stop()

    async def without() -> bool:
        return read((await api.client.get("/metrics")).text)[of("postern_broker_answers")] == 0

    await eventually(without)
