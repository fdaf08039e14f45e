"""`postern ledger`, on a stack as a newcomer starts it: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.mail import a_message
from fixtures.stack import POSTERN, Stack, environment, eventually
from postern_core.bus import connect
from postern_core.settings import BusSettings


def ledger(stack: Stack, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code of `postern ledger …`, and what it printed."""
    done = subprocess.run(
        [str(POSTERN), "ledger", *before, *arguments, "--state", str(stack.state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def delete_from_the_broker(stack: Stack, stream: str, subject: str) -> None:
    """What an administrator of the broker should never do."""
    addresses = json.loads((stack.state / "addresses.json").read_text())
    settings = BusSettings(
        instance="test",
        nats_url=stack.endpoints["nats"],
        nats_user="provisioner",
        nats_password_file=stack.state / "secrets" / "provisioner.password",
        nats_monitor_url=f"http://{addresses['monitor']}",
    )

    async def delete() -> None:
        bus = await connect(settings, "provisioner")
        stored = await bus.last(stream, subject)
        assert stored is not None
        assert await bus.delete(stream, stored.sequence)
        await bus.close()

    asyncio.run(delete())


@contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    pids = stack.pids(service)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose books a test may spoil."""
    with Stack(tmp_path_factory.mktemp("spoiled") / "var") as running:
        yield running


def test_the_books_balance_and_are_shown_by_hour(stack: Stack) -> None:
    began = datetime.now(UTC)
    delivered = stack.send(a_message(), to=["a@demo.example", "b@demo.example"])
    held = stack.send(a_message(body="make money fast"), to=["a@demo.example"])
    stack.wait_settled([delivered, held])
    code, shown = ledger(stack)
    totals = dict(line.split() for line in shown.splitlines())
    assert (code, totals["accepted"], totals["delivered"], totals["held"], totals["in_flight"]) == (0, "3", "2", "1", "0")
    code, shown = ledger(stack, "hours", "--since", began.isoformat())
    heading, *rows = shown.splitlines()
    assert code == 0
    assert heading.split()[:5] == ["hour", "(UTC)", "gate", "accepted", "delivered"]
    assert [sum(numbers) for numbers in zip(*([int(number) for number in row.split()[3:5]] for row in rows), strict=True)] == [
        3,
        2,
    ]
    assert {row[:13] for row in rows} <= {f"{moment:%Y-%m-%d %H}" for moment in (began, datetime.now(UTC))}
    code, shown = ledger(stack, "hours", "--since", "yesterday")
    assert code == 1
    code, shown = ledger(stack, "verify", "--grace", "5")
    assert code == 0, shown
    assert "the books balance" in shown
    assert "QUARANTINE 1" in shown


def test_the_books_balance_while_mail_flows(stack: Stack) -> None:
    enough = threading.Event()
    sent: list[str] = []

    def send() -> None:
        while not enough.is_set():
            body = "make money fast" if len(sent) % 5 == 0 else "Hello."
            sent.append(stack.send(a_message(body=body), to=["a@demo.example"]))
            if len(sent) % 5 == 2:
                stack.api.delete(f"/quarantine/{sent[-2]}")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        outcomes = [ledger(stack, "verify", "--grace", "10") for _ in range(5)]
    finally:
        enough.set()
        sender.join()
    assert [code for code, _ in outcomes] == [0] * 5, outcomes
    assert len(sent) > 20


def test_a_message_deleted_on_the_broker_by_hand_is_named(fresh: Stack) -> None:
    fresh.set_schedule(3600, expiry_s=86400)
    held = fresh.send(a_message(body="make money fast"), to=["a@demo.example"])
    fresh.wait_settled([held])
    rule = {"name": "forward", "action": "forward", "forward_to": "b@demo.example"}
    condition = {"type": "sender", "patterns": ["forwarded@sender.example"]}
    fresh.api.post("/rules", json=rule | {"condition": condition}).raise_for_status()
    fresh.lead_default_route_to(1)  # nobody listens there
    waiting = fresh.send(a_message(), to=["a@demo.example"])
    forwarded = fresh.send(a_message(), to=["a@demo.example"], sender="forwarded@sender.example")
    assert fresh.wait_settled([forwarded]) == {forwarded: {"a@demo.example": "forwarded"}}
    eventually(lambda: len(fresh.api.get("/queue").json()["rows"]) == 2, "the copy to be queued")
    job_id = eventually(lambda: fresh.api.get(f"/queue/{waiting}").json()["rows"], "the message to be queued")[0]["job_id"]
    code, shown = ledger(fresh, "verify", "--grace", "5")
    assert (code, "the books balance" in shown) == (0, True), shown

    delete_from_the_broker(fresh, "DEFERRED", f"deferred.{job_id}")
    delete_from_the_broker(fresh, "QUARANTINE", f"quarantine.{held}")
    code, shown = ledger(fresh, "verify", "--grace", "2")
    assert code == 1, shown
    complaints = dict(line.split("  ", 1) for line in shown.splitlines() if "  " in line)
    assert complaints == {
        held: "the ledger has it as held, but it is not in QUARANTINE",
        job_id: "the retry queue has a row for it, but its mail is not in DEFERRED",
    }
    assert "the books do not balance: 2 discrepancies" in shown


@pytest.mark.parametrize("service", ["delivery", "nats-server"])
def test_what_cannot_be_asked_is_not_called_balanced(stack: Stack, service: str) -> None:
    with stopped(stack, service):
        code, shown = ledger(stack, "verify", "--grace", "0.1")
    assert code == 2, shown
    assert "the books could not be verified" in shown
    assert "does not answer" in shown or "no delivery service answers" in shown

    def verified() -> bool:
        return ledger(stack, "verify", "--grace", "5")[0] == 0

    assert eventually(verified, "the books to balance again")


def test_what_is_no_stack_cannot_be_verified(stack: Stack) -> None:
    code, shown = ledger(stack, "verify", "--token-file", str(stack.state / "none"))
    assert (code, "could not be verified" in shown) == (2, True)
    nobody = stack.state / "empty-token"
    nobody.write_text("no-token-of-this-stack")
    code, shown = ledger(stack, "verify", "--token-file", str(nobody))
    assert (code, "(401)" in shown) == (2, True)
    # they would not reach the command, and `verify` would look at another stack than was meant
    code, shown = ledger(stack, "verify", before=("--token-file", str(nobody)))
    assert (code, "behind the command" in shown) == (2, True)


def test_alarms_that_cannot_be_asked_for_are_no_all_clear(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(POSTERN), "alarms", "--state", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "the alarms are not known" in done.stderr) == (2, True)
