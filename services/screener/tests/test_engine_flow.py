"""Engines in the way of mail: a real broker, a real clamd, a worker. Defer, hold and pass; nothing lost, nobody convicted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

import postern_screener.worker
from fixtures.clamd import INFECTED, VIRUS, ClamdServer
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.control import EngineState, ServiceStatus
from postern_core.disposition import DispositionKind
from postern_core.envelope import Gate, frame
from postern_core.policy import (
    ClamdEngine,
    Engines,
    KeywordCondition,
    OnFailure,
    Rule,
    ScreeningPolicy,
    VirusCondition,
    YaraCondition,
    YaraEngine,
    YaraFile,
)
from postern_core.verdict import Action, Engine, HoldReason
from postern_screener.engines.answers import Answers, Viruses
from postern_screener.ruleset import compile_policy
from postern_screener.sandbox import Sandbox, default_command

HEAD = b"From: x@sender.example\r\nSubject: s\r\n\r\n"
KEYWORD = Rule(id="k", name="k", condition=KeywordCondition(phrases=("lottery",)), action=Action.DELETE)


@pytest.fixture
def clamd(tmp_path: Path) -> Iterator[ClamdServer]:
    with ClamdServer(tmp_path / "clamd") as server:
        yield server


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postern_screener.worker, "pause_s", lambda _: 0.2)


def with_clamd(server: ClamdServer, on_failure: OnFailure = OnFailure.DEFER, **fields: Any) -> Engines:
    return Engines(clamd=ClamdEngine(enabled=True, address=server.tcp, on_failure=on_failure, timeout_s=5), **fields)


async def until_tried(mailbag: Any, times: int = 2) -> None:
    """Until entries were delivered again that often."""
    async with asyncio.timeout(30):
        while (await mailbag.reader.api(f"CONSUMER.INFO.{INTAKE}.screener", {}))["num_redelivered"] < 1:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3 * times)


async def test_an_infected_message_is_held_and_a_clean_one_passes(mailbag: Any, screener: Any, clamd: ClamdServer) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd))
    infected, clean = await mailbag.send(HEAD + INFECTED), await mailbag.send(HEAD + b"clean")
    await mailbag.screened()
    [(held, _)] = await mailbag.held()
    assert (held.envelope.id, held.verdict.hold_reason) == (infected.id, HoldReason.VIRUS)
    [answer] = held.verdict.answers
    assert (answer.engine, answer.result, answer.detail) == (Engine.CLAMD, "found", f"{VIRUS}.UNOFFICIAL")
    assert answer.ms > 0
    [(job, body)] = await mailbag.jobs()
    assert (job.queue_id, body) == (clean.id, HEAD + b"clean")


async def test_each_message_of_a_batch_is_scanned(mailbag: Any, screener: Any, clamd: ClamdServer) -> None:
    rule = Rule(id="v", name="v", condition=VirusCondition(names=("postern.*",)), action=Action.DELETE)
    await mailbag.put_policy(rule, engines=with_clamd(clamd))
    bodies = [HEAD + (INFECTED if k % 3 == 0 else b"clean") for k in range(9)]
    envelopes = await mailbag.send_batch(*((body, "a@relay.example") for body in bodies))
    await mailbag.screened()
    assert {end.id for end in await mailbag.dispositions()} == {envelopes[k].id for k in (0, 3, 6)}
    assert {job.queue_id for job, _ in await mailbag.jobs()} == {envelopes[k].id for k in (1, 2, 4, 5, 7, 8)}


async def test_with_defer_mail_waits_and_is_judged_when_the_engine_is_back(
    mailbag: Any, screener: Any, clamd: ClamdServer
) -> None:
    """Many tries more than would make poison of it, and it is no suspect even; what needs no engine does not wait."""
    await mailbag.put_policy(KEYWORD, engines=with_clamd(clamd), max_deliveries=2)
    clamd.stop()
    with capture_logs() as logs:
        await _an_outage(mailbag, clamd)
    events = [entry["event"] for entry in logs]
    assert events.count("message.waits_for_engine") > 4
    assert "sandbox.started" not in events


async def _an_outage(mailbag: Any, clamd: ClamdServer) -> None:
    clean = await mailbag.send(HEAD + b"clean")
    [infected, deleted] = await mailbag.send_batch((HEAD + INFECTED, "a@relay.example"), (HEAD + b"lottery", "b@relay.example"))
    await until_tried(mailbag, times=8)
    assert {end.id for end in await mailbag.dispositions()} == {deleted.id}
    assert await mailbag.jobs() == []
    assert (await mailbag.reader.stream_state(INTAKE))["messages"] == 2
    clamd.start()
    await mailbag.screened(60)
    assert [job.queue_id for job, _ in await mailbag.jobs()] == [clean.id]
    [(held, _)] = await mailbag.held()
    assert (held.envelope.id, held.verdict.hold_reason) == (infected.id, HoldReason.VIRUS)
    assert sorted((end.id, end.kind) for end in await mailbag.dispositions()) == sorted(
        [(deleted.id, DispositionKind.DELETED), (infected.id, DispositionKind.HELD)]
    )


async def test_a_message_that_waited_long_enough_is_held(mailbag: Any, screener: Any, clamd: ClamdServer) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd, hold_after_s=3600.0))
    clamd.stop()
    waiting = await mailbag.send(HEAD + b"young")
    old = msgspec.structs.replace(waiting, id="01" + waiting.id[2:-1] + "0", accepted_at=waiting.accepted_at - timedelta(hours=2))
    await mailbag.gate.publish(INTAKE, intake_subject(Gate.ANON, old.id), frame(old, HEAD + b"old"), f"{old.id}:intake")
    async with asyncio.timeout(30):
        while not await mailbag.held():
            await asyncio.sleep(0.05)
    [(held, body)] = await mailbag.held()
    assert (held.verdict.hold_reason, body) == (HoldReason.ENGINE_FAILED, HEAD + b"old")
    assert "cannot connect" in held.verdict.detail
    clamd.start()
    await mailbag.screened(60)
    assert [job.queue_id for job, _ in await mailbag.jobs()] == [waiting.id]


async def test_with_hold_mail_is_held_with_the_reason(mailbag: Any, screener: Any, clamd: ClamdServer) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd, OnFailure.HOLD))
    clamd.stop()
    await mailbag.send(HEAD + b"clean")
    await mailbag.screened()
    [(held, _)] = await mailbag.held()
    assert held.verdict.hold_reason is HoldReason.ENGINE_FAILED
    assert held.verdict.detail.startswith("clamd failed: cannot connect")


@pytest.mark.parametrize("inline_limit", [1 << 19, 100], ids=["inline", "stored"])
async def test_with_pass_mail_goes_on_with_a_field_on_top(
    mailbag: Any, screener: Any, clamd: ClamdServer, inline_limit: int
) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd, OnFailure.PASS))
    clamd.stop()
    body = HEAD + b"clean" * 100
    await mailbag.send(body, "a@relay.example", "b@x.branch.example", inline_limit=inline_limit)
    await mailbag.screened()
    jobs = await mailbag.jobs()
    assert len(jobs) == 2
    for job, sent in jobs:
        assert sent == b"X-Postern-Unscanned: clamd\r\n" + body
        assert job.envelope.size_bytes == len(sent)
    # the body that the gate stored is nobody's any more: delivery's janitor removes it
    stored = {"ingress-anon"} if inline_limit == 100 else set()
    assert {name.partition(".")[0] for name in await mailbag.bodies()} == stored


async def test_what_is_scanned_passes_unchanged_whatever_happens_on_failure(
    mailbag: Any, screener: Any, clamd: ClamdServer
) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd, OnFailure.PASS))
    await mailbag.send(HEAD + b"clean")
    await mailbag.screened()
    assert [body for _, body in await mailbag.jobs()] == [HEAD + b"clean"]


async def test_a_suspect_is_judged_by_engines_too(mailbag: Any, supervised: Any, clamd: ClamdServer) -> None:
    """In the sandbox, with what the engines said handed in: nothing of that is asked there."""
    await mailbag.put_policy(engines=with_clamd(clamd))
    await supervised("worker.py", workers=1)
    crash = await mailbag.send(HEAD + b"CRASH")
    infected = await mailbag.send(HEAD + INFECTED)
    clean = await mailbag.send(HEAD + b"clean")
    await mailbag.screened(90)
    assert {held.envelope.id: held.verdict.hold_reason for held, _ in await mailbag.held()} == {
        crash.id: HoldReason.POISON,
        infected.id: HoldReason.VIRUS,
    }
    assert {job.queue_id for job, _ in await mailbag.jobs()} == {clean.id}


async def test_the_status_tells_how_engines_are(mailbag: Any, screener: Any, clamd: ClamdServer) -> None:
    await mailbag.put_policy(engines=with_clamd(clamd))

    async def reported() -> ServiceStatus:
        [subject] = await mailbag.reader.subjects("KV_STATUS", "$KV.STATUS.screener.*")
        value = (await mailbag.reader.last("KV_STATUS", subject)).data
        return msgspec.json.decode(value, type=ServiceStatus)

    async with asyncio.timeout(40):
        while [engine.state for engine in (await reported()).engines] != [EngineState.OK]:
            await asyncio.sleep(0.1)
        clamd.stop()
        while [engine.state for engine in (await reported()).engines] == [EngineState.OK]:
            await asyncio.sleep(0.1)
    report = await reported()
    assert "cannot connect" in report.engines[0].error
    assert report.detail.startswith("clamd: cannot connect")
    assert report.ready  # mail that no engine is needed for goes on


async def test_the_sandbox_takes_answers_and_runs_yara_within_its_memory(an_envelope: Any) -> None:
    source = 'rule Fox { strings: $a = "quick fox" condition: $a }'
    rules = (
        Rule(id="y", name="y", condition=YaraCondition(rules=("Fox",)), action=Action.DELETE),
        Rule(id="v", name="v", condition=VirusCondition(), action=Action.DELETE),
    )
    used = Engines(
        clamd=ClamdEngine(enabled=True), yara=YaraEngine(enabled=True, files=(YaraFile(name="own", source=source),), timeout_s=2)
    )
    ruleset = compile_policy(ScreeningPolicy(revision=3, rules=rules, engines=used))
    box, stop = Sandbox(default_command(512)), asyncio.Event()
    running = asyncio.create_task(box.run(stop))
    fox = await box.inspect(an_envelope(), HEAD + b"quick fox", ruleset, 5, 5)
    assert (fox.verdict.deciding.rule_id if fox.verdict.deciding else "", fox.asks) == ("y", ())
    assert (await box.inspect(an_envelope(), HEAD, ruleset, 5, 5)).asks == (Engine.CLAMD,)
    infected = Answers(clamd=Viruses(("A",)))
    found = await box.inspect(an_envelope(), HEAD, ruleset, 5, 5, answers=infected)
    assert found.verdict.deciding is not None
    assert found.verdict.deciding.rule_id == "v"
    stop.set()
    await running
