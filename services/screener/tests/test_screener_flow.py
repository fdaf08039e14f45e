"""The screener against a real broker: each rule family with each action, bodies by reference, redelivery, live policy."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from postern_core.bus import BodyStore, DispositionLog
from postern_core.bus.topology import INTAKE, body_subject, intake_subject
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Gate, frame
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    Rule,
    SenderCondition,
    UnscannableAction,
    UnscannablePolicy,
)
from postern_core.verdict import Action, HoldReason
from postern_screener.actions import forwarded_id

CLEAN = b"From: x@sender.example\r\nSubject: clean\r\n\r\nHello.\r\n"
CAUGHT = (
    b"From: x@rejected.example\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nthe lottery\r\n--b\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--b--\r\n"
)
CONDITIONS: dict[str, Any] = {
    "sender": SenderCondition(patterns=("rejected.example",)),
    "attachment": AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)),
    "keyword": KeywordCondition(phrases=("lottery",)),
}


ENDING = (Action.DELETE, Action.HOLD, Action.FORWARD)


def a_rule(family: str, action: Action) -> Rule:
    forward_to = "boss@Relay.example" if action is Action.FORWARD else ""
    return Rule(id="r1", name="the rule", condition=CONDITIONS[family], action=action, forward_to=forward_to)


@pytest.mark.parametrize("body", [CLEAN + b"x" * 200, CLEAN + (b"x" * 70 + b"\r\n") * 8000], ids=["inline", "stored"])
async def test_clean_mail_becomes_a_job_for_each_route(mailbag: Any, screener: Any, body: bytes) -> None:
    await mailbag.put_policy()
    recipients = ("a@relay.example", "b@x.branch.example", "c@relay.example", "d@elsewhere.example")
    envelope = await mailbag.send(body, *recipients)
    await mailbag.screened()
    jobs = await mailbag.jobs()
    assert {job.route: [recipient.n for recipient in job.recipients] for job, _ in jobs} == {
        "inside": [0, 2],
        "branch": [1],
        "default": [3],
    }
    assert {found for _, found in jobs} == {body}
    assert not any(job.is_dsn for job, _ in jobs)
    assert await mailbag.dispositions() == []
    if envelope.body is not None:
        # the first route has the body as the gate stored it, each other one a copy of its own
        assert await mailbag.bodies() == {
            f"ingress-anon.{envelope.id}",
            f"screener.{envelope.id}-branch-0",
            f"screener.{envelope.id}-default-0",
        }
        assert len({job.envelope.body.name for job, _ in jobs}) == 3


@pytest.mark.parametrize("family", CONDITIONS)
async def test_each_family_with_each_action(mailbag: Any, screener: Any, family: str) -> None:
    for revision, action in enumerate(ENDING, start=1):
        await mailbag.put_policy(a_rule(family, action), revision=revision)
        await until_revision(mailbag, revision)
        envelope = await mailbag.send(CAUGHT, "a@relay.example", "b@relay.example")
        clean = await mailbag.send(CLEAN, "a@relay.example")
        await mailbag.screened()
        assert len(await mailbag.jobs(clean.id)) == 1
        assert await mailbag.jobs(envelope.id) == []
        found = await mailbag.dispositions(envelope.id)
        # written side by side, so in either order
        assert sorted((d.n, d.recipient, d.recipients_total, d.generation) for d in found) == [
            (0, "a@relay.example", 2, 0),
            (1, "b@relay.example", 2, 0),
        ]
        assert {d.detail for d in found} == {"rule the rule"}
        held = await mailbag.held(envelope.id)
        if action is Action.DELETE:
            assert {d.kind for d in found} == {DispositionKind.DELETED}
            assert held == []
        elif action is Action.HOLD:
            assert {d.kind for d in found} == {DispositionKind.HELD}
            ((entry, body),) = held
            assert body == CAUGHT
            assert entry.envelope == envelope
            assert entry.subject == "grüße"
            assert entry.verdict.revision == revision
            assert entry.verdict.hold_reason is HoldReason.RULE
            assert entry.verdict.findings[0].rule_id == "r1"
        else:
            assert {d.kind for d in found} == {DispositionKind.FORWARDED}
            successor = forwarded_id(envelope, "boss@Relay.example")
            assert {d.successor_id for d in found} == {successor}
            ((job, body),) = await mailbag.jobs(successor)
            assert job.route == "inside"
            assert [recipient.address for recipient in job.recipients] == ["boss@relay.example"]
            assert job.envelope.gate is Gate.INTERNAL
            assert job.envelope.size_bytes == len(body)
            assert body == (
                b"X-Postern-Original-Recipients: a@relay.example,\r\n b@relay.example\r\nX-Postern-Forwarded-By: r1\r\n" + CAUGHT
            )


async def until_revision(mailbag: Any, revision: int) -> None:
    async with asyncio.timeout(10):
        while True:
            status = await mailbag.reader.last("KV_STATUS", "$KV.STATUS.screener.test")
            if status is not None and msgspec.json.decode(status.data).get("revision") == revision:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("action", ENDING)
async def test_a_stored_body_goes_where_the_message_goes(mailbag: Any, screener: Any, action: Action) -> None:
    await mailbag.put_policy(a_rule("keyword", action))
    envelope = await mailbag.send(CAUGHT + b"x" * 600_000, "a@relay.example")
    assert envelope.body is not None
    await mailbag.screened()
    left = await mailbag.bodies()
    if action is Action.DELETE:
        assert left == set()
    elif action is Action.HOLD:
        assert left == {f"ingress-anon.{envelope.id}"}
        ((_, body),) = await mailbag.held()
        assert len(body) == len(CAUGHT) + 600_000
    else:
        ((job, body),) = await mailbag.jobs()
        assert left == {f"screener.{job.id}"}
        assert body.endswith(CAUGHT + b"x" * 600_000)


@pytest.mark.parametrize("misfortune", ["a chunk is gone", "a bit flipped"])
async def test_a_lost_body_is_held_with_that_reason_and_an_alarm(mailbag: Any, screener: Any, misfortune: str) -> None:
    envelope = await mailbag.send(os.urandom(2_000_000), "a@relay.example")
    subject = body_subject(envelope.body.name, 1)
    lost = await mailbag.reader.last("BODIES", subject)
    await mailbag.reader.delete("BODIES", lost.sequence)
    if misfortune == "a bit flipped":
        gate = await mailbag.broker.connect("ingress-anon")
        await gate.publish("BODIES", subject, bytes([lost.data[0] ^ 1]) + lost.data[1:], "another")
        await gate.close()
    with capture_logs() as told:
        await mailbag.put_policy()
        await mailbag.screened()
    [alarm] = [line for line in told if line.get("alarm")]
    assert (alarm["event"], alarm["log_level"], alarm["id"]) == ("message.body_missing", "error", envelope.id)
    assert ("digest differs" in alarm["reason"]) == (misfortune == "a bit flipped")
    stored = await mailbag.reader.last("QUARANTINE", f"quarantine.{envelope.id}")
    assert b'"hold_reason":"body-missing"' in stored.data
    assert [d.kind for d in await mailbag.dispositions()] == [DispositionKind.HELD]
    assert await mailbag.jobs() == []


@pytest.mark.parametrize("action", [*ENDING, Action.ALLOW, None])
async def test_a_message_that_was_handled_before_makes_nothing_new(mailbag: Any, screener: Any, action: Action | None) -> None:
    """As after a crash between the outputs and the ack, when the next owner is already done with the stored body."""
    rules = [a_rule("keyword", action)] if action else []
    await mailbag.put_policy(*rules)
    envelope = await mailbag.send(CAUGHT, "a@relay.example", inline_limit=100)
    await mailbag.screened()
    before = [await mailbag.jobs(), await mailbag.held(), await mailbag.dispositions()]
    again = frame(envelope)
    if action is None:
        # delivery is done: a disposition, and the body is gone
        delivery = await mailbag.broker.connect("delivery")
        done = Disposition(
            id=envelope.id,
            n=0,
            recipients_total=1,
            kind=DispositionKind.DELIVERED,
            gate=envelope.gate,
            accepted_at=envelope.accepted_at,
            at=envelope.accepted_at,
            recipient="a@relay.example",
        )
        await DispositionLog(delivery).write([done])
        await BodyStore(delivery, "delivery", 0).delete(envelope)
        await delivery.close()
        before[0], before[2] = [], [done]
    await mailbag.gate.publish(INTAKE, intake_subject(Gate.ANON, envelope.id), again, f"{envelope.id}:again")
    await mailbag.screened()
    assert await mailbag.held() == before[1]
    assert await mailbag.dispositions() == before[2]
    if action is not None:
        assert await mailbag.jobs() == before[0]


async def test_a_message_that_does_not_parse_is_held(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy()
    body = b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nhalf\r\n"
    await mailbag.send(body, "a@relay.example")
    await mailbag.screened()
    ((held, kept),) = await mailbag.held()
    assert kept == body
    assert held.verdict.hold_reason is HoldReason.INCOMPLETE


@pytest.mark.parametrize("inline_limit", [1 << 19, 300, 100], ids=["inline", "stored for its field", "stored"])
async def test_what_passes_unscanned_says_so_in_front(mailbag: Any, screener: Any, inline_limit: int) -> None:
    await mailbag.put_policy(unscannable=UnscannablePolicy(incomplete=UnscannableAction.PASS))
    body = b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\n" + b"half\r\n" * 20
    sent = await mailbag.send(body, "a@relay.example", "b@x.branch.example", inline_limit=inline_limit)
    await mailbag.screened()
    jobs = await mailbag.jobs(sent.id)
    assert {job.route for job, _ in jobs} == {"inside", "branch"}
    for job, passed in jobs:
        field, _, rest = passed.partition(b"\r\n")
        assert field.startswith(b"X-Postern-Unscannable: incomplete; part 1: message/partial")
        assert rest == body
        assert job.envelope.size_bytes == len(passed)
        assert job.envelope.body is None or job.envelope.body.size_bytes == len(passed)
    again = frame(sent, b"" if sent.body else body)
    await mailbag.gate.publish(INTAKE, intake_subject(Gate.ANON, sent.id), again, f"{sent.id}:again")
    await mailbag.screened()
    assert await mailbag.jobs(sent.id) == jobs
    assert await mailbag.held() == []


async def test_one_that_passes_unscanned_leaves_the_others_of_its_batch_as_they_are(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(unscannable=UnscannablePolicy(incomplete=UnscannableAction.PASS, malformed=UnscannableAction.DELETE))
    partial = b"Content-Type: message/partial; id=1\r\n\r\nhalf\r\n"
    twice = b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx\r\n"
    sent = await mailbag.send_batch(
        (CLEAN, "a@relay.example"), (partial, "b@relay.example"), (twice, "c@relay.example"), (CLEAN, "d@relay.example")
    )
    await mailbag.screened()
    passed = {job.queue_id: body for job, body in await mailbag.jobs()}
    assert set(passed) == {sent[0].id, sent[1].id, sent[3].id}
    assert passed[sent[0].id] == passed[sent[3].id] == CLEAN
    assert passed[sent[1].id].startswith(b"X-Postern-Unscannable: incomplete; ")
    (deleted,) = await mailbag.dispositions()
    assert (deleted.id, deleted.kind, deleted.detail) == (sent[2].id, DispositionKind.DELETED, "part 1: 2 content-type fields")


async def test_nothing_is_pulled_before_there_is_a_policy(mailbag: Any, screener: Any) -> None:
    await mailbag.send(CLEAN, "a@relay.example")
    async with asyncio.timeout(10):
        while (status := await mailbag.reader.last("KV_STATUS", "$KV.STATUS.screener.test")) is None:
            await asyncio.sleep(0.02)
    assert msgspec.json.decode(status.data)["ready"] is False
    info = await mailbag.reader.consumer_info(INTAKE, "screener")
    assert info["num_pending"] == 1
    await mailbag.put_policy()
    await mailbag.screened()
    assert len(await mailbag.jobs()) == 1


async def test_a_policy_that_does_not_compile_leaves_the_last_good_one_in_force(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(a_rule("keyword", Action.HOLD), revision=1)
    await until_revision(mailbag, 1)
    broken = Rule(id="x", name="broken", condition=KeywordCondition(phrases=("",)), action=Action.DELETE)
    await mailbag.put_policy(broken, revision=2)
    async with asyncio.timeout(20):
        while not msgspec.json.decode((await mailbag.reader.last("KV_STATUS", "$KV.STATUS.screener.test")).data).get(
            "policy_error"
        ):
            await asyncio.sleep(0.05)
    await mailbag.send(CAUGHT, "a@relay.example")
    await mailbag.screened()
    assert len(await mailbag.held()) == 1


async def test_every_verdict_is_told_as_an_event(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(a_rule("keyword", Action.HOLD))
    envelope = await mailbag.send(CAUGHT, "a@relay.example")
    async with asyncio.timeout(10):
        while not (await mailbag.reader.stream_state("EVENTS"))["messages"]:
            await asyncio.sleep(0.02)
    stored = await mailbag.reader.jetstream.get_last_msg("EVENTS", "event.screener.trace")
    (event,) = msgspec.json.decode(stored.data)["events"]
    assert (event["id"], event["kind"]) == (envelope.id, "screened")
    fields = event["fields"]
    assert fields.pop("ms") >= 0
    assert fields == {
        "decision": "hold",
        "revision": 1,
        "rule_id": "r1",
        "rule_name": "the rule",
        "part": "1",
        "offset": 4,
        "hold_reason": "rule",
        "detail": "rule the rule",
    }


async def test_a_full_outbound_keeps_the_message_in_intake(mailbag: Any, screener: Any) -> None:
    config = (await mailbag.reader.jetstream.stream_info("OUTBOUND")).config
    await mailbag.reader.jetstream.update_stream(config.evolve(max_bytes=64))
    await mailbag.put_policy()
    await mailbag.send(CLEAN, "a@relay.example")
    async with asyncio.timeout(10):
        while (await mailbag.reader.consumer_info(INTAKE, "screener"))["delivered"]["consumer_seq"] == 0:
            await asyncio.sleep(0.02)
    await until_revision(mailbag, 1)
    assert (await mailbag.reader.stream_state(INTAKE))["messages"] == 1
    await mailbag.reader.jetstream.update_stream(config)
    await mailbag.screened()
    ((job, body),) = await mailbag.jobs()
    assert body == CLEAN
    assert job.maybe_duplicate


async def test_stopping_finishes_what_is_in_flight(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy()
    sent = [await mailbag.send(CLEAN, "a@relay.example") for _ in range(50)]
    screener.stop.set()
    async with asyncio.timeout(10):
        await screener.serving
    info = await mailbag.reader.consumer_info(INTAKE, "screener")
    done = len(await mailbag.jobs())
    assert done + info["num_pending"] + info["num_ack_pending"] == len(sent)


@pytest.mark.parametrize(("size_kib", "at_once"), [(600, 4), (2100, 2)])
async def test_of_large_bodies_few_are_in_memory_but_not_so_few_that_most_wait(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch, size_kib: int, at_once: int
) -> None:
    """Was: two at once of all over 512 KiB, so that the third of a handful waited for what the broker had to say to the first two."""
    loading: set[str] = set()
    most = 0
    load = BodyStore.load

    async def slow(bodies: BodyStore, envelope: Any, inline: memoryview) -> bytes | memoryview:
        nonlocal most
        loading.add(envelope.id)
        most = max(most, len(loading))
        await asyncio.sleep(0.5)
        loading.discard(envelope.id)
        return await load(bodies, envelope, inline)

    for _ in range(4):
        await mailbag.send(CLEAN + b"x" * 998 + b"\r\n" * (size_kib * 512), "a@relay.example")
    monkeypatch.setattr(BodyStore, "load", slow)
    await mailbag.put_policy()
    await mailbag.screened()
    assert most == at_once


@pytest.mark.parametrize("action", ENDING)
async def test_thousands_of_recipients_end_once_each(mailbag: Any, screener: Any, action: Action) -> None:
    await mailbag.put_policy(a_rule("keyword", action))
    envelope = await mailbag.send(CAUGHT, *[f"user-{n}@relay.example" for n in range(2000)])
    await mailbag.screened(60)
    found = await mailbag.dispositions(envelope.id)
    kind = {Action.DELETE: DispositionKind.DELETED, Action.HOLD: DispositionKind.HELD, Action.FORWARD: DispositionKind.FORWARDED}
    assert sorted((d.n, d.kind) for d in found) == [(n, kind[action]) for n in range(2000)]


async def test_what_waited_when_the_connection_began_is_marked_and_nothing_later(mailbag: Any, screener: Any) -> None:
    """The broker may have forgotten that it had given it out."""
    sent = [await mailbag.send(CLEAN, "a@relay.example") for _ in range(2)]
    await mailbag.put_policy()  # nothing is pulled before
    await mailbag.screened()
    sent.append(await mailbag.send(CLEAN, "a@relay.example"))
    await mailbag.screened()
    marked = {job.queue_id: job.maybe_duplicate for job, _ in await mailbag.jobs()}
    assert marked == {sent[0].id: True, sent[1].id: True, sent[2].id: False}


@pytest.mark.parametrize("remembered", [True, False], ids=["given out again", "the broker forgot that it was given out"])
async def test_a_message_that_ended_is_not_judged_again_by_newer_rules(mailbag: Any, screener: Any, remembered: bool) -> None:
    envelope = await mailbag.send(CAUGHT, "a@relay.example")
    # a worker deleted it and died before its ack
    if remembered:
        inbox = screener.bus.client.new_inbox()
        died = await screener.bus.client.subscribe(inbox)
        await screener.bus.client.publish("$JS.API.CONSUMER.MSG.NEXT.INTAKE.screener", b"1", reply=inbox)
        await died.next_msg(timeout=5)
    deleted = Disposition(
        id=envelope.id,
        n=0,
        recipients_total=1,
        kind=DispositionKind.DELETED,
        gate=envelope.gate,
        accepted_at=envelope.accepted_at,
        at=envelope.accepted_at,
        recipient="a@relay.example",
    )
    await DispositionLog(screener.bus).write([deleted])
    await mailbag.put_policy(a_rule("keyword", Action.HOLD))
    await mailbag.screened()
    assert await mailbag.held() == []
    assert await mailbag.dispositions() == [deleted]
