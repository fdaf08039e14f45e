"""Changed mail, copies and notices against a real broker: what goes on, what is stored where, and what a redelivery makes of it."""

from __future__ import annotations

import asyncio
import email
import email.policy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS
from postern_core.batch import batch_token, frame_batch
from postern_core.bus import BodyStore
from postern_core.bus.provision import provision
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.changes import AddDisclaimer, AddHeader, Change, CopyTo, Notify, StripAttachments, TagSubject
from postern_core.disposition import DispositionKind
from postern_core.envelope import Gate, frame
from postern_core.errors import TransientError
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    RecipientCondition,
    RelayDomain,
    Rule,
    RuleMode,
    ScreeningPolicy,
)
from postern_core.verdict import Action, HoldReason
from postern_screener.actions import Actions
from postern_screener.judged import Judged
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

PLAIN = b"From: x@sender.example\r\nSubject: lottery\r\n\r\nHello.\r\n"
PROGRAM = (
    b"From: x@rejected.example\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nthe lottery\r\n--b\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--b--\r\n"
)
LARGE = b"x" * 998 + b"\r\n"


def a_rule(*changes: Change, action: Action = Action.CONTINUE, word: str = "lottery", rule_id: str = "r1") -> Rule:
    forward_to = "boss@relay.example" if action is Action.FORWARD else ""
    condition = KeywordCondition(phrases=(word,))
    return Rule(id=rule_id, name="the rule", condition=condition, action=action, forward_to=forward_to, changes=changes)


STRIP = Rule(
    id="r2",
    name="no programs",
    condition=AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)),
    action=Action.CONTINUE,
    changes=(StripAttachments(), TagSubject(text="[stripped]"), AddDisclaimer(text="beware")),
)


async def again(mailbag: Any, envelope: Any, body: bytes) -> None:
    """Hand the same message in once more, as after a crash in front of the ack."""
    inline = body if envelope.body is None else b""
    await mailbag.gate.publish(INTAKE, intake_subject(Gate.ANON, envelope.id), frame(envelope, inline), f"{envelope.id}:again")
    await mailbag.screened()


async def told(mailbag: Any, number: int) -> list[Any]:
    """The first `number` events of the screener, as soon as they are there."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while len(found) < number:
            await asyncio.sleep(0.02)
            last = (await mailbag.reader.stream_state("EVENTS"))["messages"]
            stored = [await mailbag.reader.jetstream.get_msg("EVENTS", n) for n in range(1, last + 1)]
            batches = [each.data for each in stored if each.subject == "event.screener.trace"]
            found = [event for batch in batches for event in msgspec.json.decode(batch)["events"]]
    return found


@pytest.mark.parametrize("size", ["small", "large", "grown"])
async def test_changed_mail_goes_on_with_bytes_of_its_own_on_each_route(mailbag: Any, screener: Any, size: str) -> None:
    await mailbag.put_policy(STRIP)
    # grown: as received it is inline, as changed it is not
    padding = {"small": b"", "large": LARGE * 700, "grown": b"x" * (512 * 1024 - len(PROGRAM) - 20)}[size]
    mail = PROGRAM.replace(b"the lottery", b"the lottery\r\n" + padding)
    envelope = await mailbag.send(mail, "a@relay.example", "b@x.branch.example")
    assert (envelope.body is not None) == (size == "large")
    await mailbag.screened()
    jobs = await mailbag.jobs(envelope.id)
    assert sorted(job.route for job, _ in jobs) == ["branch", "inside"]
    bodies = {body for _, body in jobs}
    assert len(bodies) == 1
    (changed,) = bodies
    assert b"SHA-256" in changed
    assert b"beware" in changed
    assert b"[stripped]" in changed
    assert {job.envelope.size_bytes for job, _ in jobs} == {len(changed)}
    stored = {job.envelope.body.name for job, _ in jobs if job.envelope.body is not None}
    assert len(stored) == (0 if size == "small" else 2)
    # the body that it came with is left to delivery's janitor
    assert await mailbag.bodies() == stored | ({envelope.body.name} if envelope.body is not None else set())
    await again(mailbag, envelope, mail)
    assert await mailbag.jobs(envelope.id) == jobs


async def test_members_of_a_batch_are_changed_each_for_itself_and_a_batch_again_is_a_copy(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(a_rule(AddHeader(name="X-Note", value="seen")), STRIP)
    clean = PLAIN.replace(b"lottery", b"clean")
    sent = await mailbag.send_batch((PLAIN, "a@relay.example"), (clean, "b@relay.example"), (PROGRAM, "c@relay.example"))
    await mailbag.screened()
    [together] = await mailbag.batches()
    assert [job.queue_id for job, _ in together] == [each.id for each in sent]
    bodies = [bytes(body) for _, body in together]
    assert bodies[0] == b"X-Note: seen\r\n" + PLAIN
    assert bodies[1] == clean
    assert b"SHA-256" in bodies[2]
    assert [job.envelope.size_bytes for job, _ in together] == list(map(len, bodies))
    framed = [(msgspec.json.encode(each), body) for each, body in zip(sent, (PLAIN, clean, PROGRAM), strict=True)]
    token = batch_token(each.id for each in sent)
    await mailbag.gate.publish(INTAKE, intake_subject(Gate.ANON, token), frame_batch(framed), "again")
    await mailbag.screened()
    assert len(await mailbag.batches()) == 1


async def test_mail_that_fills_the_store_of_bodies_makes_room_by_itself(mailbag: Any, screener: Any) -> None:
    """Was: a changed copy, or one for a second route, needs a place in BODIES beside the original: with nothing but such mail in it, nothing moved."""
    await provision(mailbag.reader, replace(TEST_LIMITS, screening_ack_wait=timedelta(seconds=2), bodies_bytes=3 * 1024 * 1024))
    changed, divided = PLAIN + LARGE * 1300, PLAIN.replace(b"lottery", b"another") + LARGE * 1300
    first = await mailbag.send(changed, "a@relay.example")
    second = await mailbag.send(divided, "a@relay.example", "b@x.branch.example")
    assert first.body is not None
    assert second.body is not None
    with pytest.raises(TransientError, match=r"452 4\.3\.1"):
        await mailbag.send(changed, "a@relay.example")
    await mailbag.put_policy(a_rule(TagSubject(text="[tagged]"), CopyTo(address="audit@relay.example")))
    await mailbag.screened()
    jobs = [(job.recipients[0].address, job.envelope.body, body) for job, body in await mailbag.jobs()]
    tagged = changed.replace(b"Subject: lottery", b"Subject: [tagged] lottery")
    assert ("a@relay.example", None, tagged) in jobs
    assert [
        body.endswith(changed) for address, reference, body in jobs if address == "audit@relay.example" and not reference
    ] == [True]
    # of the divided one each job has a body of its own, and one of them the stored one
    parts = {address: reference for address, reference, body in jobs if body == divided}
    assert parts in ({"a@relay.example": a, "b@x.branch.example": b} for a, b in ((second.body, None), (None, second.body)))


@pytest.mark.parametrize("action", [Action.CONTINUE, Action.ALLOW, Action.DELETE, Action.HOLD, Action.FORWARD])
@pytest.mark.parametrize("is_large", [False, True], ids=["inline", "stored"])
async def test_copies_and_notices_go_beside_every_outcome_exactly_once(
    mailbag: Any, screener: Any, action: Action, is_large: bool
) -> None:
    await mailbag.put_policy(
        a_rule(CopyTo(address="Audit@X.Branch.Example"), Notify(address="admin@relay.example"), action=action),
        hostname="mx.relay.example",
    )
    mail = PROGRAM + LARGE * 700 * is_large
    envelope = await mailbag.send(mail, "a@relay.example", "b@relay.example")
    await mailbag.screened()
    beside = {job.envelope.recipients[0].address: (job, body) for job, body in await mailbag.jobs() if job.is_dsn}
    forwarded = beside.pop("boss@relay.example", None)
    assert (forwarded is not None) == (action is Action.FORWARD)
    assert set(beside) == {"Audit@x.branch.example", "admin@relay.example"}
    copy, copied = beside["Audit@x.branch.example"]
    assert copied == (
        b"X-Postern-Original-Recipients: a@relay.example,\r\n b@relay.example\r\nX-Postern-Copied-By: r1\r\n" + mail
    )
    assert (copy.route, copy.envelope.gate, copy.envelope.reverse_path) == ("branch", Gate.INTERNAL, "x@sender.example")
    assert copy.envelope.size_bytes == len(copied)
    notice, content = beside["admin@relay.example"]
    assert (notice.envelope.reverse_path, notice.envelope.size_bytes) == ("", len(content))
    read = email.message_from_bytes(content, policy=email.policy.default)
    assert read["Auto-Submitted"] == "auto-generated"
    assert envelope.id in read.get_content()
    assert "a.exe" not in read.get_content()
    assert "grüße" in read.get_content()
    wanted = {Action.DELETE: "deleted", Action.HOLD: "held", Action.FORWARD: "forwarded"}.get(action)
    ends = await mailbag.dispositions(envelope.id)
    assert {end.kind for end in ends} == ({DispositionKind(wanted)} if wanted else set())
    passed = [body for job, body in await mailbag.jobs(envelope.id)]
    assert passed == ([] if wanted else [mail])
    before = await mailbag.jobs()
    if not is_large:
        await again(mailbag, envelope, mail)
        assert await mailbag.jobs() == before


async def test_the_forwarded_copy_is_changed_and_the_held_one_is_not(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(STRIP, a_rule(TagSubject(text="[to the boss]"), action=Action.FORWARD))
    await mailbag.send(PROGRAM, "a@relay.example")
    await mailbag.screened()
    [(job, body)] = await mailbag.jobs()
    assert job.envelope.recipients[0].address == "boss@relay.example"
    assert body.startswith(b"X-Postern-Original-Recipients: a@relay.example\r\nX-Postern-Forwarded-By: r1\r\n")
    assert b"Subject: [to the boss] [stripped] =?utf-8" in body
    assert b"SHA-256" in body


async def test_held_mail_keeps_its_bytes_and_says_what_was_not_changed(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(STRIP, a_rule(action=Action.HOLD))
    await mailbag.send(PROGRAM, "a@relay.example")
    await mailbag.screened()
    [(held, body)] = await mailbag.held()
    assert body == PROGRAM
    assert held.verdict.hold_reason is HoldReason.RULE
    assert {(made.rule_id, made.skipped) for made in held.verdict.changes} == {("r2", True)}


async def test_the_trace_tells_of_changes_copies_and_notices(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(a_rule(TagSubject(text="[x]"), CopyTo(address="audit@relay.example")))
    envelope = await mailbag.send(PLAIN, "a@relay.example")
    await mailbag.screened()
    events = {event["kind"]: event for event in await told(mailbag, 2)}
    assert events["screened"]["fields"]["changes"] == "tag-subject; copy-to audit@relay.example"
    assert events["accepted"]["fields"]["about"] == envelope.id


async def test_recipients_for_whom_other_rules_change_it_get_messages_of_their_own_and_the_copy_is_one(
    mailbag: Any, screener: Any
) -> None:
    tagged = Rule(
        id="r3",
        name="tagged",
        condition=RecipientCondition(patterns=("a@relay.example",)),
        action=Action.CONTINUE,
        changes=(TagSubject(text="[a]"),),
    )
    await mailbag.put_policy(a_rule(CopyTo(address="audit@relay.example")), tagged)
    mail = PLAIN + LARGE * 700
    envelope = await mailbag.send(mail, "a@relay.example", "b@relay.example", "c@relay.example")
    await mailbag.screened()
    found = {tuple(recipient.address for recipient in job.recipients): body for job, body in await mailbag.jobs()}
    assert found.pop(("audit@relay.example",)).endswith(mail)
    assert found == {
        ("a@relay.example",): mail.replace(b"Subject: ", b"Subject: [a] "),
        ("b@relay.example", "c@relay.example"): mail,
    }
    assert {end.kind for end in await mailbag.dispositions(envelope.id)} == {DispositionKind.SPLIT}
    assert await mailbag.bodies() == {job.envelope.body.name for job, _ in await mailbag.jobs()}


async def test_a_monitored_change_splits_nothing(mailbag: Any, screener: Any) -> None:
    tried = Rule(
        id="r3",
        name="tried",
        condition=RecipientCondition(patterns=("a@relay.example",)),
        action=Action.CONTINUE,
        mode=RuleMode.MONITOR,
        changes=(TagSubject(text="[a]"),),
    )
    await mailbag.put_policy(tried)
    envelope = await mailbag.send(PLAIN, "a@relay.example", "b@relay.example")
    await mailbag.screened()
    [(job, body)] = await mailbag.jobs()
    assert (job.queue_id, body) == (envelope.id, PLAIN)


@pytest.mark.parametrize("stored", [False, True], ids=["before it is stored", "behind it"])
@pytest.mark.parametrize("k", range(1, 10))
async def test_cut_short_anywhere_it_is_finished_and_nothing_is_done_twice(
    mailbag: Any, monkeypatch: pytest.MonkeyPatch, k: int, stored: bool
) -> None:
    """Publishes of a copy (body, job), a notice, and on two routes the changed message (body, job each)."""
    mail = PROGRAM + LARGE * 700
    envelope = await mailbag.send(mail, "a@relay.example", "b@x.branch.example")
    rules = (STRIP, a_rule(CopyTo(address="audit@relay.example"), Notify(address="admin@relay.example")))
    domains = (RelayDomain(pattern="relay.example", route="inside"), RelayDomain(pattern="*.branch.example", route="branch"))
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=rules, relay_domains=domains, hostname="mx.relay.example"))
    judged = [Judged(envelope, mail, screen(envelope, mail, ruleset))]
    bus = await mailbag.broker.connect("screener")
    actions = Actions(bus, BodyStore(bus, "screener", 1000))
    publish, left = bus.publish, k

    async def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            if stored:
                await publish(*arguments, **keywords)
            raise TransientError(451, "4.3.0", "try again later", reason="injected")
        return await publish(*arguments, **keywords)

    monkeypatch.setattr(bus, "publish", failing)
    try:
        await actions.carry_out(judged, ruleset, redelivered=False)
    except TransientError:
        assert left == 0
    # the input is still there, and what it refers to
    assert f"ingress-anon.{envelope.id}" in await mailbag.bodies()
    left = 0
    await actions.carry_out(judged, ruleset, redelivered=True)
    found = {job.envelope.recipients[0].address if job.is_dsn else job.route: body for job, body in await mailbag.jobs()}
    assert len(await mailbag.jobs()) == len(found) == 4
    assert found["audit@relay.example"].endswith(mail)
    assert found["inside"] == found["branch"]
    assert b"SHA-256" in found["inside"]
    used = {job.envelope.body.name for job, _ in await mailbag.jobs() if job.envelope.body is not None}
    assert await mailbag.bodies() == used | {f"ingress-anon.{envelope.id}"}
    await bus.close()
