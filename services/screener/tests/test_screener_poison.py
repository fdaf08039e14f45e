"""Messages that break their inspection, processes that die: the culprit is held, nothing else is lost or held."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from postern_core.errors import TransientError
from postern_core.policy import KeywordCondition, Rule, ScreeningPolicy, UnscannableAction, UnscannablePolicy
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.ruleset import compile_policy
from postern_screener.sandbox import ConvictedError, Sandbox, default_command

CHILD = (sys.executable, str(Path(__file__).with_name("programs") / "sandbox_child.py"), "512")
RULES = compile_policy(
    ScreeningPolicy(
        revision=3, rules=(Rule(id="r", name="r", condition=KeywordCondition(phrases=("lottery",)), action=Action.DELETE),)
    )
)
HEAD = b"From: x@sender.example\r\nSubject: s\r\n\r\n"


@pytest.fixture
async def sandbox() -> Any:
    stop = asyncio.Event()
    box = Sandbox(CHILD)
    running = asyncio.create_task(box.run(stop))
    yield box
    stop.set()
    await running


@pytest.mark.parametrize(
    ("word", "reason"),
    [("HANG", "not done after 1 s"), ("CRASH", "status -11"), ("EXHAUST", "MemoryError"), ("RAISE", "a fault in a check")],
)
async def test_the_sandbox_convicts_a_message_and_works_on(sandbox: Sandbox, an_envelope: Any, word: str, reason: str) -> None:
    with pytest.raises(ConvictedError, match=reason):
        await sandbox.inspect(an_envelope(), HEAD + word.encode(), RULES, 1, 5)
    screened = await sandbox.inspect(an_envelope(), HEAD + b"the lottery", RULES, 5, 5)
    assert screened.verdict.decision is Decision.DELETE
    assert screened.verdict.revision == 3


async def test_a_loop_that_is_busy_elsewhere_convicts_nobody(sandbox: Sandbox, an_envelope: Any) -> None:
    await sandbox.inspect(an_envelope(), HEAD, RULES, 5, 5)
    inspecting = asyncio.create_task(sandbox.inspect(an_envelope(), HEAD + b"the lottery", RULES, 0.2, 5))
    await asyncio.sleep(0.01)
    time.sleep(0.5)  # noqa: ASYNC251  (blocks the loop on purpose: the answer comes meanwhile, and so does the end of the time)
    assert (await inspecting).verdict.decision is Decision.DELETE


async def test_the_sandbox_takes_large_messages_and_new_policies(sandbox: Sandbox, an_envelope: Any) -> None:
    body = HEAD + (b"x" * 998 + b"\r\n") * 20_000 + b" lottery"
    assert (await sandbox.inspect(an_envelope(), body, RULES, 10, 5)).verdict.decision is Decision.DELETE
    newer = compile_policy(ScreeningPolicy(revision=4))
    assert (await sandbox.inspect(an_envelope(), body, newer, 10, 5)).verdict.decision is Decision.PASS


async def test_suspects_queue_and_are_not_convicted_for_others(sandbox: Sandbox, an_envelope: Any) -> None:
    hang = asyncio.create_task(sandbox.inspect(an_envelope(), HEAD + b"HANG", RULES, 1, 5))
    await asyncio.sleep(0)
    with pytest.raises(TransientError, match="busy"):
        await sandbox.inspect(an_envelope(), HEAD, RULES, 1, 0.05)
    assert (await sandbox.inspect(an_envelope(), HEAD, RULES, 5, 30)).verdict.decision is Decision.PASS
    with pytest.raises(ConvictedError):
        await hang


async def test_a_sandbox_that_does_not_start_convicts_nobody(an_envelope: Any) -> None:
    for command in (("/no/such/program",), (sys.executable, "-c", "pass")):
        with pytest.raises(TransientError, match="did not start"):
            await Sandbox(command).inspect(an_envelope(), HEAD, RULES, 1, 1)


async def test_a_cancelled_inspection_leaves_no_child_in_the_middle_of_something(sandbox: Sandbox, an_envelope: Any) -> None:
    await sandbox.inspect(an_envelope(), HEAD, RULES, 5, 5)
    hang = asyncio.create_task(sandbox.inspect(an_envelope(), HEAD + b"HANG", RULES, 60, 5))
    await asyncio.sleep(0.1)
    hang.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hang
    assert (await sandbox.inspect(an_envelope(), HEAD, RULES, 5, 5)).verdict.decision is Decision.PASS


async def test_an_idle_sandbox_ends(an_envelope: Any) -> None:
    stop = asyncio.Event()
    box = Sandbox(default_command(512), idle_s=0.2)
    await box.inspect(an_envelope(), HEAD, RULES, 5, 5)
    running = asyncio.create_task(box.run(stop))
    async with asyncio.timeout(10):
        while box._child is not None:
            await asyncio.sleep(0.02)
    stop.set()
    await running


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_watchdog_ends_a_process_that_hangs_in_native_code() -> None:
    done = run_python(
        """
        import re
        from postern_screener.watchdog import Watchdog
        with Watchdog(least_s=0).guard(0.2):
            re.fullmatch(r"(a+)+", "a" * 64 + "b")
        """
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "fullmatch" in done.stderr


def test_the_watchdog_ends_a_process_one_of_whose_threads_hangs_while_others_work() -> None:
    done = run_python(
        """
        import threading, time
        from postern_screener.watchdog import Watchdog
        dog = Watchdog(least_s=0)
        def hang():
            with dog.guard(0.5):
                time.sleep(3600)
        threading.Thread(target=hang).start()
        while True:
            with dog.guard(0.5):
                time.sleep(0.01)
        """
    )
    assert done.returncode == 1
    assert "hang" in done.stderr


def test_the_watchdog_lets_work_pass_that_ends_in_time() -> None:
    done = run_python(
        """
        import asyncio, time
        from postern_screener.watchdog import Watchdog
        async def main():
            dog, stop = Watchdog(), asyncio.Event()
            task = asyncio.create_task(dog.run(stop))
            for _ in range(30):
                with dog.guard(0.3):
                    time.sleep(0.01)
            assert dog.armed
            await asyncio.sleep(3.1)
            assert not dog.armed
            stop.set()
            await task
            print("alive")
        asyncio.run(main())
        """
    )
    assert done.stdout == "alive\n", done.stderr


@pytest.mark.parametrize("word", ["HANG", "CRASH", "EXHAUST", "RAISE"])
async def test_poison_is_held_and_everything_else_passes(mailbag: Any, supervised: Any, word: str) -> None:
    await mailbag.put_policy(max_deliveries=3, screening_timeout_s=0.5)
    sent = [await mailbag.send(HEAD + b"innocent %d" % n, "a@relay.example") for n in range(10)]
    poison = await mailbag.send(HEAD + word.encode(), "a@relay.example", "b@relay.example")
    sent += [await mailbag.send(HEAD + b"innocent too %d" % n, "a@relay.example") for n in range(10)]
    await supervised("worker.py", workers=1, memory_limit_mib=1024)
    await mailbag.screened(60)
    ((held, body),) = await mailbag.held()
    assert held.envelope.id == poison.id
    assert body == HEAD + word.encode()
    assert held.verdict.hold_reason is HoldReason.POISON
    assert {(d.id, d.n, d.kind.value) for d in await mailbag.dispositions()} == {(poison.id, 0, "held"), (poison.id, 1, "held")}
    assert {job.queue_id for job, _ in await mailbag.jobs()} == {envelope.id for envelope in sent}


async def test_poison_is_deleted_where_the_policy_says_so(mailbag: Any, supervised: Any) -> None:
    await mailbag.put_policy(
        max_deliveries=2, screening_timeout_s=0.5, unscannable=UnscannablePolicy(poison=UnscannableAction.DELETE)
    )
    poison = await mailbag.send(HEAD + b"CRASH", "a@relay.example")
    innocent = await mailbag.send(HEAD + b"innocent", "a@relay.example")
    await supervised("worker.py", workers=1, memory_limit_mib=1024)
    await mailbag.screened(60)
    assert await mailbag.held() == []
    (deleted,) = await mailbag.dispositions()
    assert (deleted.id, deleted.kind.value) == (poison.id, "deleted")
    assert "screening failed" in deleted.detail
    assert {job.queue_id for job, _ in await mailbag.jobs()} == {innocent.id}


async def test_workers_share_the_work_and_none_of_it_is_lost_when_one_is_killed(mailbag: Any, supervised: Any) -> None:
    rule = Rule(id="r", name="r", condition=KeywordCondition(phrases=("lottery",)), action=Action.HOLD)
    await mailbag.put_policy(rule)
    supervisor = await supervised(workers=2, concurrency=4, instance="pair")
    for instance in ("pair-0", "pair-1"):
        async with asyncio.timeout(30):
            while await mailbag.reader.last("KV_STATUS", f"$KV.STATUS.screener.{instance}") is None:
                await asyncio.sleep(0.05)
    first = set(supervisor.pids)
    assert len(first) == 2
    sent = []
    for n in range(300):
        body = HEAD + (b"lottery" if n % 10 == 0 else b"hello") + b" %d" % n
        sent.append(await mailbag.send(body, "a@relay.example"))
        if n == 150:
            os.kill(min(first), signal.SIGKILL)
    await mailbag.screened(60)
    assert {held.envelope.id for held, _ in await mailbag.held()} == {envelope.id for envelope in sent[::10]}
    jobs = [job.queue_id for job, _ in await mailbag.jobs()]
    assert sorted(jobs) == sorted(envelope.id for n, envelope in enumerate(sent) if n % 10)
    async with asyncio.timeout(20):
        while len(supervisor.pids) < 2 or set(supervisor.pids) == first:
            await asyncio.sleep(0.05)


async def test_a_wrong_setting_ends_the_supervisor(mailbag: Any, supervised: Any) -> None:
    supervisor = await supervised(workers=2, drain_s=9)
    supervisor._command = (sys.executable, "-c", "raise SystemExit(78)")
    async with asyncio.timeout(20):
        while supervisor.exit_code != 78:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_process_group_convicts_nobody(sandbox: Sandbox, an_envelope: Any, number: int) -> None:
    await sandbox.inspect(an_envelope(), HEAD, RULES, 5, 5)
    assert sandbox._child is not None
    os.kill(sandbox._child.pid, number)
    assert (await sandbox.inspect(an_envelope(), HEAD + b"the lottery", RULES, 5, 5)).verdict.decision is Decision.DELETE


def test_an_inspection_that_runs_on_in_a_thread_does_not_hold_up_the_end() -> None:
    done = run_python(
        """
        import asyncio, time
        from postern_screener.watchdog import Watchdog
        def hang(dog):
            with dog.guard(3600):
                time.sleep(3600)
        async def main():
            dog, stop = Watchdog(), asyncio.Event()
            running = asyncio.create_task(dog.run(stop))
            asyncio.get_running_loop().run_in_executor(None, hang, dog)
            while not dog.armed:
                await asyncio.sleep(0.01)
            stop.set()
            await running
        asyncio.run(main())
        """
    )
    assert done.returncode == 1
    assert "hang" in done.stderr


def test_an_inspection_that_ends_while_the_process_does_is_let_finish() -> None:
    done = run_python(
        """
        import asyncio, time
        from postern_screener.watchdog import Watchdog
        def work(dog, going):
            with dog.guard(10):
                while going:
                    time.sleep(0.01)
        async def main():
            dog, stop, going = Watchdog(), asyncio.Event(), [True]
            running = asyncio.create_task(dog.run(stop))
            working = asyncio.get_running_loop().run_in_executor(None, work, dog, going)
            while not dog.armed:
                await asyncio.sleep(0.01)
            stop.set()
            await running
            going.clear()
            await working
            assert not dog.armed
            print("alive")
        asyncio.run(main())
        """
    )
    assert done.stdout == "alive\n", done.stderr
