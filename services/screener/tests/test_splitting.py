"""Rules that differ between recipients: the message is split, each share has an id of its own, and nobody gets two ends however it is cut short."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from postern_core.bus import BodyStore, DispositionLog
from postern_core.bus.connection import Bus
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Gate
from postern_core.errors import TransientError
from postern_core.policy import AllOf, KeywordCondition, Not, RecipientCondition, Rule, ScreeningPolicy
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener import earlier_runs
from postern_screener.actions import Actions
from postern_screener.earlier_runs import beside
from postern_screener.judged import Judged, shares
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

Screens = Callable[..., Any]
BODY = b"From: x@sender.example\r\nSubject: hello\r\n\r\nthe lottery\r\n"
RECIPIENTS = ("a@relay.example", "b@held.relay.example", "c@gone.relay.example", "d@sent.relay.example", "e@relay.example")


def a_rule(pattern: str, action: Action) -> Rule:
    condition = AllOf(of=(RecipientCondition(patterns=(pattern,)), KeywordCondition(phrases=("lottery",))))
    forward_to = "boss@relay.example" if action is Action.FORWARD else ""
    return Rule(id=str(action), name=str(action), condition=condition, action=action, forward_to=forward_to)


RULES = (
    a_rule("held.relay.example", Action.HOLD),
    a_rule("gone.relay.example", Action.DELETE),
    a_rule("sent.relay.example", Action.FORWARD),
)


def outcomes(envelope: Envelope, *rules: Rule, body: bytes = BODY) -> list[tuple[tuple[int, ...], Decision]]:
    screened = screen(envelope, body, compile_policy(ScreeningPolicy(revision=1, rules=rules)))
    return [(each.recipients, each.verdict.decision) for each in screened.outcomes]


def test_recipients_for_whom_the_same_is_to_be_done_stay_together(an_envelope: Callable[..., Envelope]) -> None:
    envelope = an_envelope(*RECIPIENTS)
    assert outcomes(envelope, *RULES) == [
        ((0, 4), Decision.PASS),
        ((1,), Decision.HOLD),
        ((2,), Decision.DELETE),
        ((3,), Decision.FORWARD),
    ]
    # a rule that holds for all, or for none, or whose recipients differ in what does not matter, splits nothing
    everybody = (a_rule("*.relay.example", Action.HOLD), a_rule("relay.example", Action.HOLD))
    assert outcomes(envelope, *everybody) == []
    # another rule is another reason
    other = msgspec.structs.replace(everybody[1], id="other")
    assert outcomes(envelope, everybody[0], other) == [((0, 4), Decision.HOLD), ((1, 2, 3), Decision.HOLD)]
    assert outcomes(envelope, a_rule("elsewhere.example", Action.HOLD)) == []
    assert outcomes(envelope, a_rule("held.relay.example", Action.ALLOW)) == []
    assert outcomes(an_envelope("b@held.relay.example", "f@held.relay.example"), *RULES) == []
    either = Rule(
        id="x",
        name="x",
        condition=RecipientCondition(patterns=("a@*", "b@*", "c@*", "d@*", "e@*")),
        action=Action.HOLD,
    )
    assert outcomes(envelope, either) == []
    but = replace_condition(either, Not(of=RecipientCondition(patterns=("a@*",))))
    assert outcomes(envelope, but) == [((0,), Decision.PASS), ((1, 2, 3, 4), Decision.HOLD)]


def replace_condition(rule: Rule, condition: Any) -> Rule:
    return msgspec.structs.replace(rule, condition=condition)


def test_a_verdict_names_the_recipient_for_whom_it_is(an_envelope: Callable[..., Envelope]) -> None:
    screened = screen(an_envelope(*RECIPIENTS), BODY, compile_policy(ScreeningPolicy(revision=1, rules=RULES)))
    found = [(finding.part, finding.excerpt) for finding in screened.outcomes[1].verdict.findings]
    assert found == [("envelope", "b@held.relay.example"), ("1", "lottery")]


@pytest.mark.parametrize("inline_limit", [1 << 19, 100], ids=["inline", "stored"])
async def test_each_share_goes_its_own_way_under_its_own_id(mailbag: Any, screener: Any, inline_limit: int) -> None:
    await mailbag.put_policy(*RULES)
    body = BODY + b"x" * 600_000 if inline_limit == 100 else BODY
    envelope = await mailbag.send(body, *RECIPIENTS, inline_limit=inline_limit)
    await mailbag.screened()
    await check_ends(mailbag, envelope, body)
    if inline_limit == 100:
        assert f"ingress-anon.{envelope.id}" not in await mailbag.bodies()


async def check_ends(mailbag: Any, envelope: Envelope, body: bytes) -> None:
    """Each recipient has exactly one way, and the dispositions lead to it."""
    whole = {end.n: end for end in await mailbag.dispositions(envelope.id)}
    assert {end.kind for end in whole.values()} == {DispositionKind.SPLIT}
    assert sorted(whole) == [0, 1, 2, 3, 4]
    assert whole[0].successor_id == whole[4].successor_id
    assert len({end.successor_id for end in whole.values()}) == 4
    ((job, sent),) = await mailbag.jobs(whole[0].successor_id)
    assert sent == body
    assert ([r.n for r in job.recipients], job.envelope.gate, job.is_dsn) == ([0, 4], Gate.INTERNAL, False)
    assert job.envelope.recipients == job.recipients  # nobody else is in it, whoever makes something of it
    ((held, kept),) = await mailbag.held()
    assert kept == body
    assert (held.envelope.id, [r.n for r in held.envelope.recipients]) == (whole[1].successor_id, [1])
    assert (held.verdict.hold_reason, held.subject) == (HoldReason.RULE, "hello")
    ends = {n: await mailbag.dispositions(whole[n].successor_id) for n in (0, 1, 2, 3)}
    assert ends[0] == []
    assert [(end.n, end.kind, end.recipients_total) for n in (1, 2, 3) for end in ends[n]] == [
        (1, DispositionKind.HELD, 1),
        (2, DispositionKind.DELETED, 1),
        (3, DispositionKind.FORWARDED, 1),
    ]
    ((_, forwarded),) = await mailbag.jobs(ends[3][0].successor_id)
    assert forwarded.startswith(b"X-Postern-Original-Recipients: d@sent.relay.example\r\n")
    assert len(await mailbag.jobs()) == 2


class Failing:
    """A bus whose k-th publish fails, before it is stored or behind it."""

    def __init__(self, bus: Bus, k: int, *, stored: bool) -> None:
        self._bus, self.left, self._stored = bus, k, stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, *arguments: Any, **keywords: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            if self._stored:
                await self._bus.publish(*arguments, **keywords)
            raise TransientError(451, "4.3.0", "try again later", reason="injected")
        return await self._bus.publish(*arguments, **keywords)


@pytest.fixture
async def bus(mailbag: Any) -> AsyncIterator[Bus]:
    connected = await mailbag.broker.connect("screener")
    yield connected
    await connected.close()


async def run(bus: Any, envelope: Envelope, rules: tuple[Rule, ...], *, redelivered: bool) -> bool:
    """As the worker does it; returns whether it came to its end."""
    actions = Actions(bus, BodyStore(bus, "screener", 100))
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=rules))
    known = await actions.known(envelope, "")
    judged = Judged(envelope, BODY, screen(envelope, BODY, ruleset))
    found = beside(judged, known, has_ended=len(known) == len(envelope.recipients))
    try:
        if found is not None:
            await actions.carry_out([found], ruleset, redelivered=redelivered)
    except TransientError:
        return False
    return True


@pytest.mark.parametrize("stored", [False, True], ids=["before it is stored", "behind it"])
@pytest.mark.parametrize("k", range(1, 15))
async def test_cut_short_anywhere_it_is_finished_and_nothing_is_done_twice(
    mailbag: Any, bus: Bus, an_envelope: Callable[..., Envelope], k: int, stored: bool
) -> None:
    envelope = an_envelope(*RECIPIENTS)
    failing = Failing(bus, k, stored=stored)
    finished = await run(failing, envelope, RULES, redelivered=False)
    assert finished == (failing.left > 0)
    assert await run(bus, envelope, RULES, redelivered=True)
    await check_ends(mailbag, envelope, BODY)


async def test_rules_that_change_before_it_is_finished_leave_those_alone_who_were_split_off(
    mailbag: Any, bus: Bus, an_envelope: Callable[..., Envelope]
) -> None:
    envelope = an_envelope(*RECIPIENTS)
    # the shares in their order: {a, e} pass, then b is held; what is about c fails
    for k in range(1, 20):
        await run(Failing(bus, k, stored=False), envelope, RULES, redelivered=False)
        if len(await mailbag.dispositions(envelope.id)) >= 3:
            break
    split_off = {end.n for end in await mailbag.dispositions(envelope.id)}
    assert split_off == {0, 1, 4}
    assert await run(bus, envelope, (), redelivered=True)
    await run(bus, envelope, (), redelivered=True)
    ends = {end.n: end for end in await mailbag.dispositions(envelope.id)}
    assert {end.kind for end in ends.values()} == {DispositionKind.SPLIT}
    assert ends[2].successor_id == ends[3].successor_id
    passed = sorted([r.n for r in job.recipients] for job, _ in await mailbag.jobs())
    assert passed == [[0, 4], [2, 3]]


async def test_hundreds_of_recipients_on_either_side(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(*RULES)
    both = [f"u{n}@relay.example" if n % 2 else f"u{n}@held.relay.example" for n in range(600)]
    envelope = await mailbag.send(BODY, *both)
    await mailbag.screened(60)
    assert len(await mailbag.dispositions(envelope.id)) == 600
    ((job, _),) = await mailbag.jobs()
    ((held, _),) = await mailbag.held()
    assert (len(job.recipients), len(held.envelope.recipients)) == (300, 300)


def an_end(envelope: Envelope, n: int, kind: DispositionKind) -> Disposition:
    return Disposition(
        id=envelope.id,
        n=n,
        recipients_total=len(envelope.recipients),
        kind=kind,
        gate=envelope.gate,
        accepted_at=envelope.accepted_at,
        at=envelope.accepted_at,
        recipient=RECIPIENTS[n],
    )


async def test_who_was_split_off_is_in_no_other_share_when_others_belong_together(
    mailbag: Any, bus: Bus, an_envelope: Callable[..., Envelope]
) -> None:
    """He went with the new share once more: a second copy, although it was written down that he goes on elsewhere."""
    envelope = an_envelope("a@relay.example", "b@held.relay.example", "c@gone.relay.example")
    first = (a_rule("held.relay.example", Action.HOLD), a_rule("gone.relay.example", Action.DELETE))
    for k in range(1, 20):
        await run(Failing(bus, k, stored=False), envelope, first, redelivered=False)
        if await mailbag.dispositions(envelope.id):
            break
    assert await run(bus, envelope, first[1:], redelivered=True)
    assert sorted([r.n for r in job.recipients] for job, _ in await mailbag.jobs()) == [[0], [1]]


async def test_a_share_of_which_one_has_his_mail_is_not_held_by_newer_rules(
    mailbag: Any, bus: Bus, an_envelope: Callable[..., Envelope]
) -> None:
    """It was, as a whole: he had two ends, and a second copy when it was released."""
    envelope = an_envelope("a@gone.relay.example", "b@held.relay.example", "c@held.relay.example")
    # {a} is deleted and split off; then {b, c} pass, that is not written down of b any more, and b is delivered to
    for k in (3, 2):
        assert not await run(Failing(bus, k, stored=False), envelope, RULES[1:2], redelivered=False)
    ((job, _),) = await mailbag.jobs()
    delivery = await mailbag.broker.connect("delivery")
    await DispositionLog(delivery).write([an_end(job.envelope, 1, DispositionKind.DELIVERED)])
    await delivery.close()
    assert await run(bus, envelope, RULES[:2], redelivered=True)
    assert await mailbag.held() == []
    assert {end.kind for end in await mailbag.dispositions(envelope.id)} == {DispositionKind.SPLIT}


def test_what_is_written_down_as_held_for_one_stays_held_with_everybody(an_envelope: Callable[..., Envelope]) -> None:
    """Newer rules let it pass for the others, whose job took the body along."""
    envelope = an_envelope(*RECIPIENTS)
    known = {0: an_end(envelope, 0, DispositionKind.HELD)}
    for rules in ((), RULES):
        judged = Judged(envelope, BODY, screen(envelope, BODY, compile_policy(ScreeningPolicy(revision=1, rules=rules))))
        found = beside(judged, known, has_ended=False)
        assert found is not None
        verdict = found.screened.verdict
        assert (verdict.decision, verdict.hold_reason, found.screened.outcomes) == (Decision.HOLD, HoldReason.RULE, ())


def test_an_end_of_some_does_not_tell_that_the_body_was_handed_on(an_envelope: Callable[..., Envelope]) -> None:
    envelope = an_envelope("a@relay.example", "b@relay.example")

    def was_handed_on(envelope: Envelope, kinds: dict[int, DispositionKind]) -> bool:
        return earlier_runs.was_handed_on(envelope, {n: an_end(envelope, n, kind) for n, kind in kinds.items()})

    assert not was_handed_on(envelope, {})
    assert not was_handed_on(envelope, {0: DispositionKind.SPLIT})
    assert not was_handed_on(envelope, {0: DispositionKind.DELETED})
    assert was_handed_on(envelope, {0: DispositionKind.SPLIT, 1: DispositionKind.SPLIT})
    assert was_handed_on(envelope, {0: DispositionKind.DELIVERED})
    assert was_handed_on(envelope, {0: DispositionKind.HELD})


def test_ids_of_shares_tell_who_is_in_them(an_envelope: Callable[..., Envelope]) -> None:
    envelope = an_envelope(*RECIPIENTS)
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=RULES))
    judged = Judged(envelope, BODY, screen(envelope, BODY, ruleset))
    ids = [share.envelope.id for share in shares(judged)]
    assert ids == [share.envelope.id for share in shares(judged)]
    others = Judged(envelope, BODY, screen(envelope, BODY, compile_policy(ScreeningPolicy(revision=1, rules=RULES[:2]))))
    assert ids[1] in [share.envelope.id for share in shares(others)]
    assert ids[0] not in [share.envelope.id for share in shares(others)]
