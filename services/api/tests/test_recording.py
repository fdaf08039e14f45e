"""What the other services tell, as the API shows it: trace, ledger, queue, status, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, an_end, an_envelope, eventually, hold
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus import DispositionLog, EventSink, StatusReporter
from postern_core.bus.topology import DISPOSITIONS
from postern_core.control import (
    BadmailPage,
    BadmailRow,
    ControlError,
    DeliveryVerb,
    QueueAction,
    QueueChanged,
    QueuePage,
    QueueQuery,
    QueueRow,
    QueueState,
)
from postern_core.disposition import DispositionKind
from postern_core.envelope import frame
from postern_core.events import EventKind
from postern_core.notices import Notice, NoticeBatch, NoticeKind


async def test_a_message_is_traced_to_its_end(api: RunningApi) -> None:
    gate, delivery = await api.broker.connect("ingress-anon"), await api.broker.connect("delivery")
    envelope = an_envelope("a@relay.example", "b@relay.example")
    assert (await api.client.get(f"/messages/{envelope.id}")).status_code == 404
    stop = asyncio.Event()
    sink = EventSink(gate, "ingress-anon")
    sink.tell(
        envelope.id,
        EventKind.ACCEPTED,
        gate="anon",
        reverse_path="x@sender.example",
        recipients=2,
        size_bytes=5,
        client="192.0.2.7",
    )
    await gate.publish("INTAKE", f"intake.anon.{envelope.id}", frame(envelope, b"hello"), f"{envelope.id}:intake")
    stop.set()
    await sink.run(stop)

    async def trace() -> Any:
        answer = await api.client.get(f"/messages/{envelope.id}")
        return answer.json() if answer.status_code == 200 and answer.json()["events"] else None

    found = await eventually(trace)
    assert found["places"] == [{"stream": "INTAKE", "subject": f"intake.anon.{envelope.id}"}]
    assert found["message"]["open"]
    ledger = await api.get("/ledger", older_than_s=0.001)
    assert (ledger["total"]["accepted"], ledger["total"]["in_flight"]) == (2, 2)
    assert ledger["open_too_long"]["ids"] == [envelope.id]
    assert ledger["streams"]["INTAKE"] == 1

    await delivery.publish("DEFERRED", f"deferred.{envelope.id}-main-0", b"x", f"{envelope.id}-main-0:deferred")
    await DispositionLog(delivery).write(
        [
            an_end(envelope, DispositionKind.DELIVERED, 0, route="main", next_hop="h:25", reply="250 ok"),
            an_end(envelope, DispositionKind.BOUNCED, 1, route="main", successor_id="s"),
        ]
    )

    async def settled() -> Any:
        found = await api.get(f"/messages/{envelope.id}")
        return found if len(found["dispositions"]) == 2 else None

    found = await eventually(settled)
    assert {end["recipient"]: end["kind"] for end in found["dispositions"]} == {
        "a@relay.example": "delivered",
        "b@relay.example": "bounced",
    }
    assert {end["recipients_total"] for end in found["dispositions"]} == {2}
    assert {"stream": "DEFERRED", "subject": f"deferred.{envelope.id}-main-0"} in found["places"]
    assert not found["message"]["open"]
    assert len(found["history"]) == 2
    total = (await api.get("/ledger"))["total"]
    assert (total["accepted"], total["delivered"], total["bounced"], total["in_flight"]) == (2, 1, 1, 0)
    rows = (await api.get("/messages", recipient="b@relay", disposition="bounced"))["rows"]
    assert [(row["id"], row["reverse_path"], row["client"]) for row in rows] == [(envelope.id, "x@sender.example", "192.0.2.7")]
    await gate.close()
    await delivery.close()


async def recorded(api: RunningApi) -> bool:
    info = await api.bus.consumer_info(DISPOSITIONS, RECORDER_CONSUMER)
    return bool(info["num_pending"] + info["num_ack_pending"] == 0)


async def test_nothing_is_lost_while_the_database_refuses(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = await api.broker.connect("delivery")
    record, refused = api.api.context.trace.record, asyncio.Event()

    async def away(*_: object) -> None:
        refused.set()
        raise OperationalError("INSERT", {}, OSError("the database is away"))

    monkeypatch.setattr(api.api.context.trace, "record", away)
    envelopes = [an_envelope() for _ in range(20)]
    await DispositionLog(delivery).write([an_end(envelope, DispositionKind.DELIVERED) for envelope in envelopes])
    await refused.wait()
    assert not await recorded(api)
    monkeypatch.setattr(api.api.context.trace, "record", record)
    await eventually(lambda: recorded(api), 30)
    assert (await api.get("/ledger"))["total"]["delivered"] == 20
    await delivery.close()


async def test_what_cannot_be_read_holds_up_nothing(api: RunningApi) -> None:
    delivery = await api.broker.connect("delivery")
    envelope = an_envelope()
    await delivery.publish(DISPOSITIONS, f"disposition.{envelope.id}.0", b"rubbish", "rubbish")
    await DispositionLog(delivery).write([an_end(envelope, DispositionKind.DELIVERED, detail="a NUL: \0")])
    await eventually(lambda: recorded(api))
    assert (await api.get("/ledger"))["total"]["delivered"] == 1
    await delivery.close()


@pytest.mark.parametrize("newer_by", [(b'"version":1', b'"version":2'), (b'"delivered"', b'"teleported"')])
@pytest.mark.parametrize("together", [False, True])
async def test_the_record_of_a_newer_program_waits_for_an_api_that_can_read_it(
    api: RunningApi, newer_by: tuple[bytes, bytes], together: bool
) -> None:
    """Was: it was let go, and the ledger never heard of that end; and again, when only what was in a batch was newer, or a value of a closed list."""
    delivery = await api.broker.connect("delivery")
    envelope, newer = an_envelope(), an_envelope()
    record = msgspec.json.encode(an_end(newer, DispositionKind.DELIVERED)).replace(*newer_by)
    last = "0"
    if together:
        record, last = b'{"version":1,"dispositions":[%b]}' % record, "1-0123456789abcdef"
    await delivery.publish(DISPOSITIONS, f"disposition.{newer.id}.{last}", record, "newer")
    await DispositionLog(delivery).write([an_end(envelope, DispositionKind.DELIVERED)])

    async def only_the_newer_waits() -> bool:
        recorder = await api.bus.consumer_info(DISPOSITIONS, "recorder")
        return bool((recorder["num_ack_pending"], recorder["num_pending"]) == (1, 0))

    await eventually(only_the_newer_waits)
    assert (await api.get("/ledger"))["total"]["delivered"] == 1
    await delivery.close()


async def test_what_can_never_be_stored_is_let_go(api: RunningApi) -> None:
    delivery = await api.broker.connect("delivery")
    good, bad = an_envelope(), an_envelope()
    impossible = an_end(bad, DispositionKind.DELIVERED, generation=2**62)  # it fits the bus, and no column
    await DispositionLog(delivery).write([impossible, an_end(good, DispositionKind.DELIVERED)])
    await eventually(lambda: recorded(api))
    assert (await api.get("/ledger"))["total"]["delivered"] == 1
    assert (await api.get("/messages"))["rows"][0]["id"] == good.id
    await delivery.close()


async def test_notices_are_no_trace_and_none_of_them_is_unreadable(api: RunningApi) -> None:
    """Was: every message of EVENTS was taken for trace events, and notices were let go as unreadable."""
    gate = await api.broker.connect("ingress-anon")
    claimed = Notice(
        kind=NoticeKind.COMMAND_UNKNOWN, about="192.0.2.7", at=datetime.now(UTC), service="ingress-auth", instance="one"
    )
    with capture_logs() as logs:
        payload = msgspec.json.encode(NoticeBatch(notices=(claimed,)))
        await gate.publish("EVENTS", "event.ingress-anon.notice", payload, "notices")

        async def counted() -> Any:
            return (await api.get("/alerts/command-unknown"))["subjects"]

        [subject] = await eventually(counted)
    assert not [entry for entry in logs if entry["event"].startswith("trace.")]
    # whoever holds a gate's password tells under its name only
    assert (subject["about"], subject["service"]) == ("192.0.2.7", "ingress-anon/one")
    await gate.close()


async def test_an_api_that_was_away_catches_up(start_api: ApiStarter) -> None:
    first = await start_api(BOOTSTRAP)
    first.stop.set()
    await first.api.close()
    delivery = await first.broker.connect("delivery")
    screener = await first.broker.connect("screener")
    envelopes = [an_envelope() for _ in range(50)]
    await DispositionLog(delivery).write([an_end(envelope, DispositionKind.DELIVERED) for envelope in envelopes[1:]])
    await hold(screener, envelopes[0])
    second = await start_api(BOOTSTRAP)
    await eventually(lambda: recorded(second))
    assert (await second.get("/ledger"))["total"]["delivered"] == 49
    assert (await second.get("/quarantine"))["total"] == 1
    await delivery.close()
    await screener.close()


ROW = QueueRow(
    job_id="01j9zq3v5k7wexamp1e0000000-main-0",
    queue_id="01j9zq3v5k7wexamp1e0000000",
    route="main",
    state=QueueState.WAITING,
    reverse_path="x@sender.example",
    recipients=("a@relay.example",),
    attempts=3,
    accepted_at=datetime.now(UTC),
    next_attempt_at=datetime.now(UTC),
    expires_at=datetime.now(UTC),
)
DEAD = BadmailRow(
    job_id="01j9zq3v5k7wexamp1e0000000-main-1",
    queue_id="01j9zq3v5k7wexamp1e0000000",
    reverse_path="",
    recipients=("a@relay.example",),
    reason="no way",
    at=datetime.now(UTC),
)


class Delivery:
    """Answers as delivery does, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    async def answer(self, msg: Msg) -> None:
        verb = DeliveryVerb(msg.subject.rpartition(".")[2])
        kind = QueueQuery if verb in (DeliveryVerb.QUEUE_LIST, DeliveryVerb.BADMAIL_LIST) else QueueAction
        request = msgspec.json.decode(msg.data, type=kind)
        self.asked.append((verb.value, request))
        answers: dict[DeliveryVerb, msgspec.Struct] = {
            DeliveryVerb.QUEUE_LIST: QueuePage(rows=(ROW,), total=1),
            DeliveryVerb.QUEUE_GET: QueuePage(rows=(ROW,), total=1),
            DeliveryVerb.QUEUE_HOLD: ControlError(message="not now"),
            DeliveryVerb.BADMAIL_LIST: BadmailPage(rows=(DEAD,), total=1),
            DeliveryVerb.BADMAIL_DELETE: QueueChanged(changed=int(getattr(request, "job_id", "") == DEAD.job_id)),
        }
        await msg.respond(msgspec.json.encode(answers.get(verb, QueueChanged(changed=2))))


@pytest.fixture
async def delivery(api: RunningApi) -> AsyncIterator[Delivery]:
    bus = await api.broker.connect("delivery")
    answering = Delivery()
    await bus.client.subscribe("control.delivery.*", queue="delivery", cb=answering.answer)
    await bus.client.flush()
    yield answering
    await bus.close()


async def test_the_queue_is_deliverys(api: RunningApi, delivery: Delivery) -> None:
    page = await api.get("/queue", route="main", limit=7)
    assert (page["total"], page["rows"][0]["recipients"], page["rows"][0]["state"]) == (1, ["a@relay.example"], "waiting")
    assert (await api.get(f"/queue/{ROW.queue_id}"))["rows"][0]["job_id"] == ROW.job_id
    assert (await api.client.post("/queue/retry", json={"route": "main"})).json() == {"changed": 2}
    (await api.client.post("/queue/resume", json={"all": True})).raise_for_status()
    (await api.client.post("/queue/delete", json={"queue_id": ROW.queue_id, "with_ndr": True})).raise_for_status()
    refused = await api.client.post("/queue/hold", json={"job_id": ROW.job_id})
    assert (refused.status_code, refused.json()) == (409, {"error": "delivery_refused", "message": "not now", "detail": {}})
    assert (await api.get("/badmail"))["rows"][0]["reason"] == "no way"
    assert (await api.client.delete(f"/badmail/{DEAD.job_id}")).status_code == 204
    assert (await api.client.delete(f"/badmail/{ROW.job_id}")).status_code == 404
    asked = dict(delivery.asked)
    assert asked["queue-list"] == QueueQuery(route="main", limit=7)
    assert asked["queue-get"].queue_id == ROW.queue_id
    assert asked["queue-retry"].route == "main"
    assert (asked["queue-resume"].route, asked["queue-resume"].queue_id, asked["queue-resume"].job_id) == ("", "", "")
    assert asked["queue-delete"].with_ndr
    assert asked["queue-delete"].actor.startswith("admin-token-file")
    outcomes = {(entry["action"], entry["outcome"]) for entry in (await api.get("/audit"))["entries"]}
    assert {("queue.retry", "done"), ("queue.hold", "failed"), ("queue.delete", "done"), ("badmail.delete", "failed")} <= outcomes


@pytest.mark.parametrize("verb", ["retry", "hold", "resume", "delete"])
async def test_an_empty_selection_never_means_everything(api: RunningApi, delivery: Delivery, verb: str) -> None:
    for body in (
        {},
        {"route": ""},
        {"queue_id": ""},
        {"all": False},
        {"route": "main", "all": True},
        {"job_id": "a", "queue_id": "b"},
    ):
        assert (await api.client.post(f"/queue/{verb}", json=body)).status_code == 422, body
    assert delivery.asked == []


async def test_without_delivery_the_queue_says_so(api: RunningApi) -> None:
    for path in ("/queue", f"/queue/{ROW.queue_id}", "/badmail"):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (503, "delivery_unavailable")


async def test_the_status_says_which_revision_each_replica_runs(api: RunningApi) -> None:
    stop = asyncio.Event()
    buses = [await api.broker.connect(service) for service in ("ingress-anon", "screener", "screener")]
    revisions = [1, 1, 0]
    async with asyncio.TaskGroup() as tasks:
        for k, (bus, service) in enumerate(zip(buses, ("ingress-anon", "screener", "screener"), strict=True)):

            def probe(k: int = k) -> dict[str, object]:
                return {"ready": bool(revisions[k]), "revision": revisions[k], "policy_error": "" if revisions[k] else "refused"}

            tasks.create_task(StatusReporter(bus, service, f"host{k}", probe).run(stop))

        async def reported(live_on: int) -> Any:
            status = await api.get("/status")
            return status if (len(status["replicas"]), status["live_on"]) == (4, live_on) else None

        status = await eventually(lambda: reported(3))
        assert status["summary"] == "revision 1: live on 3 of 4 replicas"
        assert [each["policy_error"] for each in status["replicas"] if each["instance"] == "host2"] == ["refused"]
        revisions[2] = 1
        assert (await eventually(lambda: reported(4)))["revision"] == 1
        stop.set()
    fills = {stream["name"]: stream["max_bytes"] for stream in status["streams"]}
    assert fills["INTAKE"] > 0
    for bus in buses:
        await bus.close()


async def test_the_listeners_say_where_each_replica_listens(api: RunningApi) -> None:
    stop, bus = asyncio.Event(), await api.broker.connect("ingress-auth")
    addresses = ("[::]:587", "[::]:465 (TLS)")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(StatusReporter(bus, "ingress-auth", "mx-1", lambda: {"ready": True, "listens": addresses}).run(stop))

        async def reported() -> Any:
            anon, auth = await api.get("/listeners")
            return (anon["listens"], auth["listens"]) if auth["listens"] else None

        assert await eventually(reported) == ({}, {"mx-1": list(addresses)})
        replica = next(each for each in (await api.get("/status"))["replicas"] if each["instance"] == "mx-1")
        assert replica["listens"] == list(addresses)
        stop.set()
    await bus.close()


async def test_readiness_names_what_is_away(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = str(api.client.base_url.join("/readyz"))
    assert (await api.client.get(ready)).json() == {
        "ready": True,
        "reasons": [],
        "policy": "revision 1 is published",
        "engines": [],
    }
    api.broker.stop()

    async def away() -> Any:
        answer = await api.client.get(ready)
        return answer if answer.status_code == 503 else None

    assert (await eventually(away)).json()["reasons"] == ["the broker is away"]
    assert (await api.client.get(str(api.client.base_url.join("/livez")))).status_code == 200
    # what needs no broker still answers
    assert (await api.client.get("/domains")).status_code == 200
    status = await api.get("/status")
    assert (status["broker_connected"], status["streams"]) == (False, None)
    assert (await api.get("/messages?limit=1"))["rows"] == []

    async def no_database(_: float) -> None:
        raise OSError("away")

    monkeypatch.setattr(api.api.database, "ping", no_database)
    assert "the database does not answer" in (await api.client.get(ready)).json()["reasons"]
