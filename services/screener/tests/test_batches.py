"""Messages that came in one batch: each its own verdict, handed on together, and a batch that comes again makes no copy and loses nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from postern_core.batch import MOST_MEMBERS, batch_token, frame_batch
from postern_core.bus import Delivered, DispositionLog
from postern_core.bus.topology import INTAKE, OUTBOUND, intake_subject
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Gate, Recipient
from postern_core.errors import TransientError
from postern_core.policy import KeywordCondition, Rule
from postern_core.verdict import Action, HoldReason
from postern_screener.sandbox import ConvictedError
from postern_screener.worker import Worker

CLEAN = b"From: x@sender.example\r\nSubject: clean\r\n\r\nHello.\r\n"


def about(word: str) -> bytes:
    return CLEAN + word.encode() + b"\r\n"


def a_rule(word: str, action: Action) -> Rule:
    forward_to = "boss@relay.example" if action is Action.FORWARD else ""
    return Rule(id=word, name=word, condition=KeywordCondition(phrases=(word,)), action=action, forward_to=forward_to)


RULES = (a_rule("lottery", Action.DELETE), a_rule("secret", Action.HOLD), a_rule("urgent", Action.FORWARD))


def names(batch: list[tuple[Any, memoryview]]) -> list[str]:
    return [job.queue_id for job, _ in batch]


async def test_each_member_has_its_own_verdict_and_what_passes_stays_together(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(*RULES)
    words = ["", "lottery", "secret", "urgent", "nothing"]
    sent = await mailbag.send_batch(*((about(word), "a@relay.example") for word in words))
    await mailbag.screened()
    together, (forwarded,) = sorted(await mailbag.batches(), key=len, reverse=True)
    assert names(together) == [sent[0].id, sent[4].id]
    assert [bytes(body) for _, body in together] == [about(""), about("nothing")]
    assert {job.batch for job, _ in together} == {sent[0].id}
    assert not forwarded[0].batch
    assert {end.id: end.kind for end in await mailbag.dispositions()} == {
        sent[1].id: DispositionKind.DELETED,
        sent[2].id: DispositionKind.HELD,
        sent[3].id: DispositionKind.FORWARDED,
    }
    assert [held.envelope.id for held, _ in await mailbag.held()] == [sent[2].id]


async def test_members_of_different_routes_go_different_ways(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy()
    sent = await mailbag.send_batch(
        (CLEAN, "a@relay.example"), (CLEAN, "b@x.branch.example"), (CLEAN, "c@relay.example"), (CLEAN, "d@elsewhere.example")
    )
    await mailbag.screened()
    by_route = {batch[0][0].route: names(batch) for batch in await mailbag.batches()}
    assert by_route == {"inside": [sent[0].id, sent[2].id], "branch": [sent[1].id], "default": [sent[3].id]}


class Death:
    """A worker that dies before its acknowledgement: the entry comes again after its ack-wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaths = 0
        real = Delivered.ack

        async def ack(delivered: Delivered) -> None:
            if delivered.tries == 1:
                self.deaths += 1
                await delivered.retry(0.001)
            else:
                await real(delivered)

        monkeypatch.setattr(Delivered, "ack", ack)


async def test_a_batch_that_comes_again_is_handed_on_once(mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    death = Death(monkeypatch)
    await mailbag.put_policy(*RULES)
    sent = await mailbag.send_batch(*((about(word), "a@relay.example") for word in ("", "secret", "lottery", "else")))
    await mailbag.screened()
    assert death.deaths == 1
    assert [names(batch) for batch in await mailbag.batches()] == [[sent[0].id, sent[3].id]]
    assert len(await mailbag.held()) == 1
    assert len(await mailbag.dispositions()) == 2


async def until_revision(mailbag: Any, revision: int) -> None:
    async with asyncio.timeout(10):
        while True:
            status = await mailbag.reader.last("KV_STATUS", "$KV.STATUS.screener.test")
            if status is not None and msgspec.json.decode(status.data).get("revision") == revision:
                return
            await asyncio.sleep(0.02)


def delivered(envelope: Envelope) -> Disposition:
    return Disposition(
        id=envelope.id,
        n=0,
        recipients_total=1,
        kind=DispositionKind.DELIVERED,
        gate=envelope.gate,
        accepted_at=envelope.accepted_at,
        at=envelope.accepted_at,
        recipient="a@relay.example",
    )


@pytest.mark.parametrize("ended", [1, 3])
async def test_a_batch_that_comes_again_when_some_have_ended(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    """Those that ended go along once more, since only the same batch is known as a copy; where all have, nothing goes."""
    delivery = await mailbag.broker.connect("delivery")
    real = Delivered.ack

    async def ack(one: Delivered) -> None:
        if one.tries > 1:
            await real(one)
            return
        # meanwhile delivery had it, and wrote down as much as this
        ends = [DispositionLog(delivery).write([delivered(each)], batch=sent[0].id) for each in sent[:ended]]
        await asyncio.gather(*ends)
        await one.retry(0.001)

    monkeypatch.setattr(Delivered, "ack", ack)
    sent: list[Envelope] = []
    sent += await mailbag.send_batch(*((CLEAN, "a@relay.example") for _ in range(3)))
    await mailbag.put_policy()
    await mailbag.screened()
    assert [names(batch) for batch in await mailbag.batches()] == [[each.id for each in sent]]
    await delivery.close()


async def test_another_policy_at_the_second_time_loses_nobody(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker handed on b and died before it wrote down that a is deleted; to the second one, a is clean and b is not."""
    real, dead = Delivered.ack, asyncio.Event()

    async def ack(one: Delivered) -> None:
        if one.tries == 1:
            dead.set()
            await newer.wait()
            await one.retry(0.001)
        else:
            await real(one)

    async def write(*_: object) -> None:
        await asyncio.sleep(0)

    newer = asyncio.Event()
    monkeypatch.setattr(Delivered, "ack", ack)
    await mailbag.put_policy(a_rule("lottery", Action.DELETE))
    with monkeypatch.context() as patch:
        patch.setattr(DispositionLog, "write", write)
        sent = await mailbag.send_batch(
            (about("lottery"), "a@relay.example"), (about("secret"), "b@relay.example"), (CLEAN, "c@relay.example")
        )
        async with asyncio.timeout(10):
            await dead.wait()
    assert [names(batch) for batch in await mailbag.batches()] == [[sent[1].id, sent[2].id]]
    await mailbag.put_policy(a_rule("secret", Action.DELETE), revision=2)
    await until_revision(mailbag, 2)
    newer.set()
    await mailbag.screened()
    again = [batch for batch in await mailbag.batches() if names(batch) == [sent[0].id, sent[2].id]]
    assert len(again) == 1
    assert all(job.maybe_duplicate for job, _ in again[0])


async def test_a_member_that_was_handed_on_gets_no_second_verdict(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its recipients has it and the other waits in the retry queue when the batch comes again, and a newer rule would hold it."""
    delivery = await mailbag.broker.connect("delivery")
    real = Delivered.ack

    async def ack(one: Delivered) -> None:
        if one.tries > 1:
            await real(one)
            return
        two = msgspec.structs.replace(delivered(sent[0]), recipients_total=2)
        await DispositionLog(delivery).write([two], batch=sent[0].id)
        await mailbag.put_policy(a_rule("secret", Action.HOLD), revision=2)
        await until_revision(mailbag, 2)
        await one.retry(0.001)

    monkeypatch.setattr(Delivered, "ack", ack)
    sent: list[Envelope] = []
    sent += await mailbag.send_batch((about("secret"), ("a@relay.example", "b@relay.example")), (CLEAN, "c@relay.example"))
    await mailbag.put_policy()
    await mailbag.screened()
    assert await mailbag.held() == []
    assert [names(batch) for batch in await mailbag.batches()] == [[each.id for each in sent]]
    await delivery.close()


async def test_a_full_outbound_keeps_the_whole_batch(mailbag: Any, screener: Any) -> None:
    config = (await mailbag.reader.jetstream.stream_info(OUTBOUND)).config
    await mailbag.reader.jetstream.update_stream(config.evolve(max_bytes=64))
    await mailbag.put_policy()
    sent = await mailbag.send_batch(*((CLEAN, "a@relay.example") for _ in range(3)))
    async with asyncio.timeout(10):
        while (await mailbag.reader.consumer_info("INTAKE", "screener"))["delivered"]["consumer_seq"] == 0:
            await asyncio.sleep(0.02)
    assert await mailbag.batches() == []
    await mailbag.reader.jetstream.update_stream(config)
    await mailbag.screened()
    assert [names(batch) for batch in await mailbag.batches()] == [[each.id for each in sent]]


async def test_a_batch_that_would_be_too_long_for_the_broker_does_not_stay(mailbag: Any, screener: Any, an_envelope: Any) -> None:
    """A job names its recipients twice: what INTAKE took as one entry may be more than OUTBOUND takes."""
    await mailbag.put_policy()
    to = tuple(Recipient(n=n, address=f"{'x' * 240}{n}@relay.example") for n in range(1000))
    envelopes = [msgspec.structs.replace(an_envelope(), recipients=to) for _ in range(MOST_MEMBERS)]
    payload = frame_batch([(msgspec.json.encode(envelope), CLEAN) for envelope in envelopes])
    subject = intake_subject(Gate.ANON, batch_token(envelope.id for envelope in envelopes))
    await mailbag.gate.publish(INTAKE, subject, payload, "long:intake")
    await mailbag.screened(20)
    assert sorted(job.queue_id for job, _ in await mailbag.jobs()) == sorted(envelope.id for envelope in envelopes)


@pytest.mark.parametrize("word", ["CRASH", "EXHAUST"])
async def test_poison_is_held_and_its_batch_goes_on_without_it(mailbag: Any, supervised: Any, word: str) -> None:
    await mailbag.put_policy(max_deliveries=3, screening_timeout_s=1.0)
    await supervised("worker.py", memory_mib=512)
    sent = await mailbag.send_batch((CLEAN, "a@relay.example"), (about(word), "b@relay.example"), (CLEAN, "c@relay.example"))
    await mailbag.screened(60)
    ((held, _),) = await mailbag.held()
    assert (held.envelope.id, held.verdict.hold_reason) == (sent[1].id, HoldReason.POISON)
    assert [names(batch) for batch in await mailbag.batches()] == [[sent[0].id, sent[2].id]]
    assert [(end.id, end.kind) for end in await mailbag.dispositions()] == [(sent[1].id, DispositionKind.HELD)]


async def test_two_that_are_poison_do_not_bring_their_batch_back_by_turns(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them was convicted once more than the other, since the sandbox was taken in between; whoever is held already convicts nobody."""
    real, tries = Worker._screen, set()

    async def screen(worker: Worker, delivered: Delivered, envelope: Envelope, *more: Any) -> Any:
        tries.add(delivered.tries)
        if envelope.id not in poison:
            return await real(worker, delivered, envelope, *more)
        if delivered.tries == 1 or (delivered.tries == 2 and envelope.id == poison[1]):
            raise TransientError(451, "4.3.0", "later", reason="the sandbox is busy")
        raise ConvictedError("it hangs")

    monkeypatch.setattr(Worker, "_screen", screen)
    monkeypatch.setattr("postern_core.bus.consumer._FAULT_PAUSE_S", 0.01)
    monkeypatch.setattr("postern_screener.worker._CONVICTED_RETRY_S", 0.01)
    poison: list[str] = []
    sent = await mailbag.send_batch(*((CLEAN, "a@relay.example") for _ in range(3)))
    poison += [sent[0].id, sent[2].id]
    await mailbag.put_policy(max_deliveries=3)
    await mailbag.screened(20)
    assert max(tries) == 4
    assert {held.envelope.id for held, _ in await mailbag.held()} == set(poison)
    assert {job.queue_id for job, _ in await mailbag.jobs()} == {sent[1].id}


@pytest.mark.parametrize("kind", [DispositionKind.HELD, DispositionKind.RELEASED])
async def test_a_member_that_was_held_does_not_go_along_under_another_policy(
    mailbag: Any, screener: Any, monkeypatch: pytest.MonkeyPatch, kind: DispositionKind
) -> None:
    """It was held in the run that did not come to its end, and perhaps released since; to the policy of the second run it is clean."""
    api = await mailbag.broker.connect("api")
    real = Worker._screen

    async def screen(worker: Worker, one: Delivered, envelope: Envelope, *more: Any) -> Any:
        if one.tries == 1:
            end = msgspec.structs.replace(delivered(sent[0]), kind=kind, generation=int(kind is DispositionKind.RELEASED))
            await DispositionLog(api).write([end])
            raise TransientError(451, "4.3.0", "later", reason="it died")
        return await real(worker, one, envelope, *more)

    monkeypatch.setattr(Worker, "_screen", screen)
    monkeypatch.setattr("postern_core.bus.consumer._FAULT_PAUSE_S", 0.01)
    sent: list[Envelope] = []
    sent += await mailbag.send_batch(*((CLEAN, "a@relay.example") for _ in range(3)))
    await mailbag.put_policy()
    await mailbag.screened()
    assert [names(batch) for batch in await mailbag.batches()] == [[sent[1].id, sent[2].id]]
    await api.close()
