"""Traffic through the whole stack, as Prometheus reads it at the end."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import eventually


def total(relay: Relay, name: str, **labels: str) -> float:
    """Over all replicas."""
    text = relay.api.get("/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def test_each_step_of_a_message_is_counted(relay: Relay) -> None:
    counted = {
        "postern_gate_accepted_messages_total": {"service": "ingress-anon"},
        "postern_screener_messages_total": {"decision": "pass"},
        "postern_screener_screening_seconds_count": {},
        "postern_delivery_recipients_total": {"disposition": "delivered"},
        "postern_delivery_sent_messages_total": {},
        "postern_delivery_deferrals_total": {},
    }
    before = {name: total(relay, name, **labels) for name, labels in counted.items()}
    sent = relay.send(a_message(), to=["a@relay.example", "b@relay.example"])
    assert set(relay.dispositions(sent).values()) == {"delivered"}
    with relay.recipient_deferred("later@relay.example"):
        waiting = relay.send(a_message(), to=["later@relay.example"])
        relay.wait_queued(waiting)
        eventually(lambda: total(relay, "postern_delivery_queue_jobs", state="waiting") >= 1, "the retry queue's length")
        wanted = (2, 2, 2, 2, 1, 1)
        for (name, labels), more in zip(counted.items(), wanted, strict=True):
            eventually(lambda: total(relay, name, **labels) == before[name] + more, name)  # noqa: B023  (called at once)
    assert total(relay, "postern_delivery_connection_attempts_total") >= 1
    assert total(relay, "postern_gate_bytes_total", service="ingress-anon", direction="received") > 0
    assert total(relay, "postern_broker_answers") == 1
