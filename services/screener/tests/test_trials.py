"""Mail is tried over the bus in a child of its own: the same verdict as live mail gets, and what breaks the child is told of."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.broker import Broker
from postern_core.bus import Bus
from postern_core.control import ControlError
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import KeywordCondition, Rule, ScreeningPolicy, encode_section
from postern_core.trial import MOST_TRIAL_OCTETS, TRIALS_ARE_BUSY, TrialAnswer, Tried, frame_trial, unframe_trial
from postern_core.verdict import Action, Decision
from postern_screener.engines.asking import EngineDesk
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen
from postern_screener.trial_child import give_way
from postern_screener.trials import Trials, default_command

CLEAN = b"From: x@sender.example\r\nSubject: alpha\r\n\r\nbeta gamma beta\r\n"
RULES = (
    Rule(id="r1", name="one", condition=KeywordCondition(phrases=("beta",)), action=Action.HOLD),
    Rule(
        id="r2",
        name="two",
        condition=KeywordCondition(phrases=("beta",)),
        unless=KeywordCondition(phrases=("gamma",)),
        action=Action.DELETE,
    ),
    Rule(id="r3", name="three", condition=KeywordCondition(phrases=("alpha",)), action=Action.HOLD),
)
POLICY = ScreeningPolicy(revision=7, rules=RULES)
Ask = Callable[..., Awaitable[TrialAnswer | ControlError]]


def an_envelope(size_bytes: int = 100) -> Envelope:
    return Envelope(
        id=(queue_id := new_queue_id()),
        gate=Gate.ANON,
        reverse_path="x@sender.example",
        recipients=(Recipient(n=0, address="a@relay.example"),),
        size_bytes=size_bytes,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )


class Running:
    def __init__(self, api: Bus, trials: Trials) -> None:
        self.api, self.trials = api, trials

    async def ask(self, *bodies: bytes, policy: ScreeningPolicy = POLICY, places: bool = False, verb: str = "try") -> Any:
        payload = frame_trial(encode_section(policy), [(an_envelope(), body) for body in bodies], places=places)
        return decode(await self.api.request(f"control.screener.{verb}", payload, timeout_s=30))


def decode(data: bytes) -> TrialAnswer | ControlError:
    if b'"error"' in data[:20]:
        return msgspec.json.decode(data, type=ControlError)
    return msgspec.json.decode(data, type=TrialAnswer)


@pytest.fixture(params=["default"])
async def running(broker: Broker, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    api, screener, stop = await broker.connect("api"), await broker.connect("screener"), asyncio.Event()
    broken = (sys.executable, str(Path(__file__).parent / "programs" / "trial_child.py"), "1024")
    trials = Trials(screener, default_command(1024) if request.param == "default" else broken, EngineDesk().ask, each_s=2)
    serving = asyncio.create_task(trials.run(stop))
    while True:
        try:
            await api.request("control.screener.hello", b"", timeout_s=5)
            break
        except TransientError:  # nobody listens yet
            await asyncio.sleep(0.02)
    yield Running(api, trials)
    stop.set()
    async with asyncio.timeout(10):
        await serving
    await api.close()
    await screener.close()


async def test_a_trial_gives_the_verdict_that_live_mail_gets_with_all_places(running: Running) -> None:
    answer = await running.ask(CLEAN, places=True)
    (tried,) = answer.tried
    live = screen(an_envelope(), CLEAN, compile_policy(POLICY))
    assert (tried.verdict, tried.subject, tried.failure) == (live.verdict, live.subject, "")
    assert tried.verdict.decision is Decision.HOLD
    found = {(place.rule_ids, place.part, place.offset, place.length, place.excerpt) for place in tried.places}
    assert (("r1", "r2"), "1", 0, 4, "beta") in found
    assert (("r2",), "1", 5, 5, "gamma") in found
    assert any(rule_ids == ("r3",) and part == "header" for rule_ids, part, *_ in found)
    assert set(tried.steps_ms) == {"screen", "cpu", "parse"}
    assert answer.compile_ms > 0
    # the rules are compiled once, and two policies that take turns both stay
    other = ScreeningPolicy(revision=8)
    assert (await running.ask(CLEAN, policy=other)).tried[0].verdict.decision is Decision.PASS
    for policy in (POLICY, other, POLICY):
        assert (await running.ask(CLEAN, policy=policy)).compile_ms == 0


@pytest.mark.parametrize("running", ["broken"], indirect=True)
@pytest.mark.parametrize(
    ("word", "told"), [(b"HANG", "not done after"), (b"CRASH", "ended with status -11"), (b"EXHAUST", "MemoryError")]
)
async def test_a_message_that_breaks_the_child_is_told_of_and_the_next_is_tried(running: Running, word: bytes, told: str) -> None:
    answer = await running.ask(CLEAN, CLEAN + word, CLEAN)
    first, broken, last = answer.tried
    assert told in broken.failure or "ended with status 1" in broken.failure
    assert broken.verdict is None
    assert first.verdict == last.verdict is not None


async def test_what_cannot_be_tried_is_answered_and_not_met_with_silence(running: Running) -> None:
    assert "knows no such request" in (await running.ask(CLEAN, verb="guess")).message
    refused = await running.ask(CLEAN, policy=ScreeningPolicy(revision=1, max_deliveries=0))
    assert "do not compile" in refused.message
    for damaged in (b"", b"PSTN", frame_trial(b"", [(an_envelope(), CLEAN)])[:-1]):
        answer = decode(await running.api.request("control.screener.try", damaged, timeout_s=10))
        assert isinstance(answer, ControlError)
        assert "cannot be read" in answer.message
    assert (await running.ask(CLEAN)).tried[0].verdict is not None


async def test_a_worker_that_ends_hands_back_what_it_was_asked(broker: Broker) -> None:
    """Silence would keep whoever asked waiting for more than a minute."""
    api, screener, stop = await broker.connect("api"), await broker.connect("screener"), asyncio.Event()
    broken = (sys.executable, str(Path(__file__).parent / "programs" / "trial_child.py"), "1024")
    trials = Trials(screener, broken, EngineDesk().ask, each_s=60)
    serving = asyncio.create_task(trials.run(stop))
    async with asyncio.timeout(60):
        while True:
            try:
                await api.request("control.screener.hello", b"", timeout_s=5)
                break
            except TransientError:
                await asyncio.sleep(0.02)
        asked = asyncio.create_task(Running(api, trials).ask(CLEAN + b"HANG"))
        while not any(task.get_name() == "control.screener.try" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.02)
        stop.set()
        await serving
        answer = await asked
    assert answer.message == TRIALS_ARE_BUSY
    await api.close()
    await screener.close()


async def test_whoever_comes_while_too_many_wait_is_sent_away(running: Running) -> None:
    answers = await asyncio.gather(*(running.ask(*[CLEAN] * 200) for _ in range(8)))
    told = [answer.message for answer in answers if isinstance(answer, ControlError)]
    assert told
    assert all("busy" in message for message in told)
    assert all(len(answer.tried) == 200 for answer in answers if isinstance(answer, TrialAnswer))


def test_a_request_is_what_it_was_when_it_is_read_and_is_bounded() -> None:
    mail = [(an_envelope(), CLEAN), (an_envelope(), b"")]
    head, policy, found = unframe_trial(frame_trial(b"policy", mail, places=True))
    assert (head.places, policy, [(envelope, bytes(body)) for envelope, body in found]) == (True, b"policy", mail)
    with pytest.raises(ValueError, match="bytes"):
        frame_trial(b"p", [(an_envelope(), bytes(MOST_TRIAL_OCTETS))])
    assert msgspec.json.decode(msgspec.json.encode(Tried()), type=Tried) == Tried()


def test_the_child_runs_when_nobody_else_wants_to() -> None:
    child = os.fork()
    if child == 0:
        give_way()
        is_idle = not hasattr(os, "SCHED_IDLE") or os.sched_getscheduler(0) == os.SCHED_IDLE
        os._exit(0 if os.nice(0) == 19 and is_idle else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
