"""Held mail: what an administrator sees of it, and what becomes of it on the bus."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from fixtures.api import MESSAGE, RunningApi, a_held_message, an_end, an_envelope, eventually, hold
from postern_api.quarantine import handover, indexing
from postern_core.bus import BodyStore, Consumer, Delivered, DispositionLog
from postern_core.bus.topology import DISPOSITIONS, OUTBOUND
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Gate, Recipient, frame, unframe
from postern_core.errors import TransientError
from postern_core.ids import new_queue_id
from postern_core.job import Job


async def jobs(api: RunningApi, queue_id: str) -> dict[str, tuple[Job, bytes]]:
    """What lies in OUTBOUND for this message, by subject."""
    delivery = await api.broker.connect("delivery")  # only delivery may read mail on its way out
    store, found, stop = BodyStore(delivery, "delivery", 1024), {}, asyncio.Event()
    wanted = set(await api.bus.subjects(OUTBOUND, f"outbound.*.{queue_id}"))
    assert wanted

    async def take(delivered: Delivered) -> None:
        job, inline = unframe(delivered.data, Job)
        found[delivered.subject] = (job, bytes(await store.load(job.envelope, inline)))
        await delivered.ack()
        if set(found) >= wanted:
            stop.set()

    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        for route in {subject.split(".")[1] for subject in wanted}:
            tasks.create_task(Consumer(delivery, OUTBOUND, f"delivery-{route}", take, concurrency=4).run(stop, 1))
    await delivery.close()
    return found


async def ends(api: RunningApi, envelope: Envelope) -> list[tuple[str, int, str]]:
    """The newest disposition of each recipient on the bus: kind, generation, successor."""
    found = []
    for recipient in envelope.recipients:
        stored = await api.bus.last(DISPOSITIONS, f"disposition.{envelope.id}.{recipient.n}")
        assert stored is not None
        end = msgspec.json.decode(stored.data, type=Disposition)
        found.append((end.kind.value, end.generation, end.successor_id))
    return found


async def held(api: RunningApi, *recipients: str, body: bytes = MESSAGE) -> Envelope:
    """A message in quarantine, with its `held` dispositions, as the screener leaves it."""
    screener = await api.broker.connect("screener")
    envelope = an_envelope(*recipients)
    stowed, inline = await BodyStore(screener, "screener", 512 * 1024).stow(envelope, envelope.id, body)
    await hold(screener, stowed, bytes(inline))
    await DispositionLog(screener).write([an_end(stowed, DispositionKind.HELD, n) for n in range(len(stowed.recipients))])
    await screener.close()
    return stowed


async def quarantined(api: RunningApi) -> list[str]:
    return list(await api.bus.subjects("QUARANTINE", "quarantine.*"))


async def test_held_mail_is_listed_and_read(api: RunningApi) -> None:
    one, two = await held(api, "a@relay.example"), await held(api, "b@relay.example")
    page = await api.get("/quarantine")
    assert [row["queue_id"] for row in page["rows"]] == sorted((one.id, two.id), reverse=True)
    assert (page["total"], page["next"]) == (2, "")
    row = (await api.get("/quarantine", recipient="a@"))["rows"][0]
    assert (row["subject"], row["rule_name"], row["reason"], row["client"]) == ("held", "a rule", "rule", "192.0.2.7")
    first = await api.get("/quarantine", limit=1)
    assert [row["queue_id"] for row in (await api.get("/quarantine", after=first["next"]))["rows"]] == [min(one.id, two.id)]
    detail = await api.get(f"/quarantine/{one.id}")
    assert detail["verdict"]["findings"][0]["rule_name"] == "a rule"
    assert detail["envelope"]["reverse_path"] == "x@sender.example"
    assert ["Subject", "held"] in detail["headers"]
    raw = await api.client.get(f"/quarantine/{one.id}/raw")
    assert raw.content == MESSAGE
    assert raw.headers["content-type"] == "message/rfc822"
    (entry,) = (await api.get("/audit", target="quarantine/"))["entries"]
    assert (entry["action"], entry["target"]) == ("quarantine.read", f"quarantine/{one.id}")
    for path in ("", "/raw"):
        assert (await api.client.get(f"/quarantine/{'0' * 26}{path}")).status_code == 404
        assert (await api.client.get(f"/quarantine/x{path}")).json()["error"] == "invalid_queue_id"


@pytest.mark.parametrize("large", [False, True])
async def test_a_release_sends_a_message_by_its_routes_under_the_next_generation(api: RunningApi, large: bool) -> None:
    (await api.client.post("/routes", json={"name": "other", "smart_hosts": [{"host": "h"}]})).raise_for_status()
    (await api.client.post("/domains", json={"pattern": "*.other.example", "route": "other"})).raise_for_status()
    body = MESSAGE + (os.urandom(700_000) if large else b"")
    envelope = await held(api, "a@relay.example", "b@sub.other.example", "c@relay.example", body=body)
    released = (await api.client.post(f"/quarantine/{envelope.id}/release")).raise_for_status().json()
    assert released["jobs"] == [f"{envelope.id}-main-1", f"{envelope.id}-other-1"]
    assert await quarantined(api) == []
    assert await ends(api, envelope) == [("released", 1, "")] * 3
    found = await jobs(api, envelope.id)
    main, main_body = found[f"outbound.main.{envelope.id}"]
    other, other_body = found[f"outbound.other.{envelope.id}"]
    assert [recipient.n for recipient in main.recipients] == [0, 2]
    assert [recipient.n for recipient in other.recipients] == [1]
    assert main_body == other_body == body
    assert main.generation == other.generation == 1
    assert main.maybe_duplicate
    if large:
        assert main.envelope.body != other.envelope.body  # each job owns its body
        assert await api.bus.subjects("BODIES", f"body.screener.{envelope.id}.*") == {}
    assert (await api.get("/quarantine"))["rows"] == []
    # repeated, it does no harm
    again = (await api.client.post(f"/quarantine/{envelope.id}/release")).raise_for_status().json()
    assert again["jobs"] == []
    assert (await api.client.delete(f"/quarantine/{envelope.id}")).json()["error"] == "already_decided"


async def test_a_forward_is_a_message_of_our_own_that_the_dispositions_name(api: RunningApi) -> None:
    envelope = await held(api, "a@relay.example", "b@relay.example")
    answer = (
        (await api.client.post(f"/quarantine/{envelope.id}/forward", json={"to": "boss@Relay.example"})).raise_for_status().json()
    )
    successor = answer["successor_id"]
    assert await quarantined(api) == []
    assert await ends(api, envelope) == [("forwarded", 1, successor)] * 2
    ((job, body),) = (await jobs(api, successor)).values()
    assert body == b"X-Postern-Original-Recipients: a@relay.example, b@relay.example\r\n" + MESSAGE
    assert (job.envelope.gate, job.envelope.reverse_path, job.generation) == (Gate.INTERNAL, "", 0)
    assert [recipient.address for recipient in job.recipients] == ["boss@relay.example"]
    assert job.envelope.size_bytes == len(body)
    repeated = await api.client.post(f"/quarantine/{envelope.id}/forward", json={"to": "boss@relay.example"})
    assert (repeated.status_code, repeated.json()["successor_id"]) == (200, "")
    elsewhere = await api.client.post(f"/quarantine/{envelope.id}/forward", json={"to": "other@relay.example"})
    assert elsewhere.json()["error"] == "already_decided"
    assert (await api.client.post(f"/quarantine/{envelope.id}/forward", json={"to": "nobody"})).status_code == 400

    async def recorded() -> Any:
        return (await api.get("/ledger"))["gates"].get("internal")

    assert (await eventually(recorded))["in_flight"] == 1


async def test_a_deletion_ends_the_message_and_its_body(api: RunningApi) -> None:
    envelope = await held(api, body=MESSAGE + os.urandom(600_000))
    assert await api.bus.subjects("BODIES", f"body.screener.{envelope.id}.*")
    assert (await api.client.delete(f"/quarantine/{envelope.id}")).status_code == 204
    assert await ends(api, envelope) == [("deleted", 1, "")]
    assert (await quarantined(api), await api.bus.subjects("BODIES", "body.>")) == ([], {})
    assert (await api.client.delete(f"/quarantine/{envelope.id}")).status_code == 204
    assert (await api.client.post(f"/quarantine/{envelope.id}/release")).json()["error"] == "already_decided"

    async def recorded() -> bool:
        total = (await api.get("/ledger"))["total"]
        return bool((total["deleted"], total["held"], total["in_flight"]) == (1, 0, 0))

    await eventually(recorded)


@pytest.mark.parametrize("cut", ["after the job", "after the dispositions"])
async def test_a_release_that_was_cut_short_is_repeated_without_a_second_copy(api: RunningApi, cut: str) -> None:
    envelope = await held(api)
    job = Job(route="main", envelope=envelope, recipients=envelope.recipients, generation=1, maybe_duplicate=True)
    await api.bus.publish(OUTBOUND, f"outbound.main.{envelope.id}", frame(job, MESSAGE), f"{job.id}:outbound")
    if cut == "after the dispositions":
        await DispositionLog(api.bus).write([an_end(envelope, DispositionKind.RELEASED, generation=1)])
    # meanwhile nothing else can be decided about it
    assert (await api.client.delete(f"/quarantine/{envelope.id}")).json()["error"] == "already_decided"
    (await api.client.post(f"/quarantine/{envelope.id}/release")).raise_for_status()
    assert await quarantined(api) == []
    assert await api.bus.subjects(OUTBOUND, f"outbound.*.{envelope.id}") == {f"outbound.main.{envelope.id}": 1}
    assert await ends(api, envelope) == [("released", 1, "")]


async def test_a_release_is_written_before_its_jobs_and_never_behind_their_end(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    # delivery looks at the newest disposition when a job comes again: a `released` behind the `delivered` cost a second copy
    envelope = await held(api)
    publish, streams = api.bus.publish, []

    async def noted(stream: str, *rest: Any, **more: Any) -> Any:
        streams.append(stream)
        return await publish(stream, *rest, **more)

    monkeypatch.setattr(api.bus, "publish", noted)
    (await api.client.post(f"/quarantine/{envelope.id}/release")).raise_for_status()
    assert [stream for stream in streams if stream in (DISPOSITIONS, OUTBOUND)] == [DISPOSITIONS, OUTBOUND]

    cut_short = await held(api)
    delivery = await api.broker.connect("delivery")
    await DispositionLog(delivery).write([an_end(cut_short, DispositionKind.DELIVERED, generation=1)])
    (await api.client.post(f"/quarantine/{cut_short.id}/release")).raise_for_status()
    assert await ends(api, cut_short) == [("delivered", 1, "")]
    await delivery.close()


@pytest.mark.parametrize("act", ["release", "forward", "delete"])
async def test_nothing_is_decided_before_it_is_written_down_that_the_message_is_held(api: RunningApi, act: str) -> None:
    """The model's finding: `held`, written behind `delivered`, hides it, and a job that comes again is sent a second time."""
    screener, envelope = await api.broker.connect("screener"), an_envelope("a@relay.example", "b@relay.example")
    await hold(screener, envelope)
    for n in range(2):
        answer = await decide(api, act, envelope)
        assert (answer.status_code, answer.json()["error"]) == (409, "being_held")
        await DispositionLog(screener).write([an_end(envelope, DispositionKind.HELD, n)])
    assert (await decide(api, act, envelope)).is_success
    await screener.close()


async def decide(api: RunningApi, act: str, envelope: Envelope) -> httpx.Response:
    if act == "delete":
        return await api.client.delete(f"/quarantine/{envelope.id}")
    return await api.client.post(f"/quarantine/{envelope.id}/{act}", json={"to": "c@relay.example"} if act == "forward" else None)


async def test_a_double_click_releases_once(api: RunningApi) -> None:
    envelope = await held(api)
    answers = await asyncio.gather(*(api.client.post(f"/quarantine/{envelope.id}/release") for _ in range(4)))
    assert sorted(len(answer.raise_for_status().json()["jobs"]) for answer in answers) == [0, 0, 0, 1]
    assert await api.bus.subjects(OUTBOUND, f"outbound.*.{envelope.id}") == {f"outbound.main.{envelope.id}": 1}


async def test_while_the_broker_is_away_nothing_is_decided(api: RunningApi) -> None:
    envelope = await held(api)
    api.broker.stop()

    async def away() -> bool:
        return not api.bus.connected

    await eventually(away)
    for method, path in (("POST", "/release"), ("POST", "/forward"), ("DELETE", "")):
        body = {"to": "boss@relay.example"} if path == "/forward" else None
        answer = await api.client.request(method, f"/quarantine/{envelope.id}{path}", json=body)
        assert (answer.status_code, answer.json()["error"]) == (503, "bus_unavailable"), path
    assert {entry["outcome"] for entry in (await api.get("/audit", target="quarantine/"))["entries"]} == {"failed"}
    api.broker.restart()

    async def released() -> bool:
        return (await api.client.post(f"/quarantine/{envelope.id}/release")).status_code == 200

    await eventually(released, 30)
    assert await ends(api, envelope) == [("released", 1, "")]


async def test_mail_is_handed_out_as_a_file_that_no_browser_shows(api: RunningApi) -> None:
    page = b"Content-Type: text/html\r\nSubject: a\r\n\r\n<script>alert(1)</script>\r\n"
    envelope = await held(api, body=page)
    raw = await api.client.get(f"/quarantine/{envelope.id}/raw")
    assert raw.content == page
    assert raw.headers["Content-Type"] == "message/rfc822"
    assert raw.headers["Content-Disposition"] == f'attachment; filename="{envelope.id}.eml"'
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert raw.headers["Content-Security-Policy"].startswith("sandbox;")
    assert raw.headers["Cache-Control"] == "no-store"


async def test_nothing_is_let_go_when_the_hand_over_fails(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = await held(api)

    async def full(*_: object, **__: object) -> None:
        raise TransientError(452, "4.3.1", "mail system full, try again later", reason="OUTBOUND is full")

    with monkeypatch.context() as patched:
        patched.setattr(api.bus, "publish", full)
        refused = await api.client.post(f"/quarantine/{envelope.id}/release")
    assert (refused.status_code, refused.json()["error"]) == (503, "bus_full")
    assert await quarantined(api) == [f"quarantine.{envelope.id}"]
    assert await ends(api, envelope) == [("held", 0, "")]
    (entry,) = (await api.get("/audit", target="quarantine/"))["entries"]
    assert (entry["action"], entry["outcome"]) == ("quarantine.release", "failed")
    (await api.client.post(f"/quarantine/{envelope.id}/release")).raise_for_status()
    assert await quarantined(api) == []


async def test_a_message_whose_body_is_gone_is_not_sent_on_empty(api: RunningApi) -> None:
    envelope = await held(api, body=MESSAGE + os.urandom(600_000))
    await api.bus.purge("BODIES", f"body.screener.{envelope.id}.*")
    with capture_logs() as told:
        refused = await api.client.post(f"/quarantine/{envelope.id}/release")
    assert (refused.status_code, refused.json()["error"]) == (409, "body_missing")
    assert [line["id"] for line in told if line["event"] == "message.body_missing" and line["alarm"]] == [envelope.id]
    assert await quarantined(api) == [f"quarantine.{envelope.id}"]
    assert (await api.client.delete(f"/quarantine/{envelope.id}")).status_code == 204


async def test_the_index_follows_what_others_do_to_the_stream(api: RunningApi) -> None:
    envelopes = [await held(api) for _ in range(3)]
    assert (await api.get("/quarantine"))["total"] == 3
    stored = await api.bus.last("QUARANTINE", f"quarantine.{envelopes[0].id}")
    assert stored is not None
    await api.bus.delete("QUARANTINE", stored.sequence)
    assert {row["queue_id"] for row in (await api.get("/quarantine"))["rows"]} == {envelopes[1].id, envelopes[2].id}
    await api.api.context.quarantine.index.remove([envelopes[1].id])
    assert {row["queue_id"] for row in (await api.get("/quarantine"))["rows"]} == {envelopes[1].id, envelopes[2].id}


async def test_an_entry_that_nobody_can_read_is_shown_and_kept(api: RunningApi) -> None:
    screener = await api.broker.connect("screener")
    queue_id = new_queue_id()
    await screener.publish("QUARANTINE", f"quarantine.{queue_id}", b"rubbish", "rubbish")
    (row,) = (await api.get("/quarantine"))["rows"]
    assert (row["queue_id"], row["reason"]) == (queue_id, "unreadable")
    for path in ("release", "forward"):
        refused = await api.client.post(f"/quarantine/{queue_id}/{path}", json={"to": "a@relay.example"})
        assert (refused.status_code, refused.json()["error"]) == (409, "unreadable")
    assert len(await quarantined(api)) == 1
    await screener.close()


async def test_an_entry_that_an_older_api_could_not_read_is_shown_as_it_is_by_one_that_can(api: RunningApi) -> None:
    """Was: after an upgrade it stayed in the list as unreadable, without sender, recipients and rule."""
    envelope = await held(api)
    quarantine = api.api.context.quarantine
    assert (await api.get("/quarantine"))["total"] == 1
    stored = await api.bus.last("QUARANTINE", f"quarantine.{envelope.id}")
    assert stored is not None
    await quarantine.index.put([indexing._unreadable(stored, "it has contract version 1, this program knows 0")])
    assert (await api.get("/quarantine"))["rows"][0]["reason"] == "unreadable"
    await indexing.QuarantineIndexer(api.bus, quarantine.index).refresh()  # as a new process begins
    (row,) = (await api.get("/quarantine"))["rows"]
    assert (row["reason"], row["recipients"]) == ("rule", [recipient.address for recipient in envelope.recipients])


async def test_an_entry_under_a_wrong_name_holds_up_nothing_and_is_sent_nowhere(api: RunningApi) -> None:
    # the indexer failed at a subject that is no queue id, and the api with it, again at each start
    screener = await api.broker.connect("screener")
    subject, inside = new_queue_id(), an_envelope()
    await screener.publish("QUARANTINE", "quarantine.rubbish", b"rubbish", "rubbish")
    await screener.publish("QUARANTINE", f"quarantine.{subject}", frame(a_held_message(inside), MESSAGE), "another's")
    late = msgspec.structs.replace(an_envelope(), accepted_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))))
    for odd, message in (
        (late.id, a_held_message(late)),
        (inside.id, msgspec.structs.replace(a_held_message(inside), generation=2**62)),
    ):
        await screener.publish("QUARANTINE", f"quarantine.{odd}", frame(message, MESSAGE), odd)
    envelope = await held(api)
    reasons = {row["queue_id"]: row["reason"] for row in (await api.get("/quarantine"))["rows"]}
    bad = ("rubbish", subject, late.id, inside.id)
    assert reasons == dict.fromkeys(bad, "unreadable") | {envelope.id: "rule"}
    refused = await api.client.post(f"/quarantine/{subject}/release")
    assert (refused.status_code, refused.json()["error"]) == (409, "unreadable")
    assert await api.bus.subjects(OUTBOUND, "outbound.>") == {}
    await screener.close()


def test_many_original_recipients_are_folded_and_end_no_line() -> None:
    recipients = [Recipient(n=n, address=f"recipient-{n}@relay.example") for n in range(100)]
    recipients[3] = Recipient(n=3, address="a\r\nX-Evil: 1@relay.example")
    field = handover.original_recipients_field(recipients)
    assert field.endswith(b"recipient-99@relay.example\r\n")
    lines = field.split(b"\r\n")
    assert all(line.startswith((b"X-Postern-Original-Recipients:", b" ")) for line in lines[:-1])
    assert max(map(len, lines)) <= 78


def test_a_forward_gets_the_same_id_each_time_and_another_for_another_address() -> None:
    envelope = an_envelope()
    ids = {handover.forwarded_id(envelope.id, envelope.accepted_at, to) for to in ("a@x.example", "a@x.example", "b@x.example")}
    assert len(ids) == 2
    assert a_held_message(envelope).generation == 0
