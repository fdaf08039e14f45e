"""A rolling upgrade over mail in flight: what older and newer versions wrote lies on the bus beside today's mail, and services are restarted over it.

What an older version left out has its default, and fields that nobody knows are ignored. What is of a newer version, or names a gate that we do not
know, stays where it is, is ended by nobody, and goes on as soon as a program that can read it is there.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import Stack, eventually
from postern_core.bus import Bus, connect
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame_encoded
from postern_core.ids import accepted_at, new_queue_id
from postern_core.job import Badmail, Job
from postern_core.settings import BusSettings
from postern_core.verdict import Decision, HeldMessage, HoldReason, Verdict

TO = "a@relay.example"
# what a Python process imports when it starts: with it our programs are ones of the next version, which read ours, too
NEXT_VERSION = """
import typing
import postern_core.contract
postern_core.contract.Version = typing.Literal[1, 2]
"""

Written = Callable[[bytes], bytes]


def older(head: bytes) -> bytes:
    """Before there were versions."""
    return head.replace(b'"version":1,', b"")


def with_more(head: bytes) -> bytes:
    """By a newer program of the same version."""
    return head[:-1] + b',"invented_later":{"version":9}}'


def newer(head: bytes) -> bytes:
    return head.replace(b'"version":1', b'"version":2')


def newer_inside(head: bytes) -> bytes:
    """A head of today around an envelope of the next version."""
    return head.replace(b'"envelope":{"version":1', b'"envelope":{"version":2')


def with_a_newer_gate(head: bytes) -> bytes:
    return head.replace(b'"gate":"anon"', b'"gate":"pigeon"')


def an_envelope() -> Envelope:
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="x@sender.example",
        recipients=(Recipient(n=0, address=TO),),
        size_bytes=100,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )


class Writers:
    """Puts into the streams what services of other versions would; `name` is then found in the message."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._buses: dict[str, Bus] = {}

    async def __aenter__(self) -> Writers:
        address = json.loads((self._relay.state / "addresses.json").read_text(encoding="utf-8"))
        for user in ("ingress-anon", "screener", "delivery"):
            settings = BusSettings(
                instance="other-version",
                nats_url=f"nats://{address['nats']}",
                nats_monitor_url=f"http://{address['monitor']}",
                nats_user=user,
                nats_password_file=self._relay.state / "secrets" / f"{user}.password",
            )
            self._buses[user] = await connect(settings, user)
        return self

    async def __aexit__(self, *_: object) -> None:
        for bus in self._buses.values():
            await bus.close()

    async def _put(self, user: str, stream: str, subject: str, head: msgspec.Struct, written: Written) -> None:
        body = a_message(subject=f"{stream}-{written.__name__}")
        payload = frame_encoded(written(msgspec.json.encode(head)), body)
        await self._buses[user].publish(stream, subject, payload, subject)

    async def intake(self, written: Written) -> str:
        envelope = an_envelope()
        await self._put("ingress-anon", "INTAKE", f"intake.anon.{envelope.id}", envelope, written)
        return envelope.id

    async def job(self, stream: str, written: Written) -> str:
        envelope = an_envelope()
        job = Job(route="default", envelope=envelope, recipients=envelope.recipients)
        user, subject = {
            "OUTBOUND": ("screener", f"outbound.default.{envelope.id}"),
            "DEFERRED": ("delivery", f"deferred.{job.id}"),
            "BADMAIL": ("delivery", f"badmail.{job.id}"),
        }[stream]
        head = Badmail(job=job, recipients=job.recipients, reason="undeliverable") if stream == "BADMAIL" else job
        await self._put(user, stream, subject, head, written)
        return envelope.id

    async def held(self, written: Written) -> str:
        envelope = an_envelope()
        verdict = Verdict(revision=1, decision=Decision.HOLD, hold_reason=HoldReason.RULE)
        held = HeldMessage(envelope=envelope, verdict=verdict)
        await self._put("screener", "QUARANTINE", f"quarantine.{envelope.id}", held, written)
        await self.end(envelope, DispositionKind.HELD, bytes)
        return envelope.id

    async def end(self, envelope: Envelope, kind: DispositionKind, written: Written) -> None:
        end = Disposition(
            id=envelope.id,
            n=0,
            recipients_total=1,
            kind=kind,
            gate=envelope.gate,
            accepted_at=envelope.accepted_at,
            at=datetime.now(UTC),
            recipient=TO,
        )
        subject = f"disposition.{envelope.id}.0"
        await self._buses["screener"].publish("DISPOSITIONS", subject, written(msgspec.json.encode(end)), subject)


async def _write_all(relay: Relay) -> tuple[dict[str, list[str]], dict[str, list[str]], str]:
    """Queue ids by stream: of what today's programs can read, and of what they cannot; and one whose end they cannot read."""
    async with Writers(relay) as put:
        readable, unreadable = (older, with_more), (newer, newer_inside)
        jobs = ("OUTBOUND", "DEFERRED")
        good = {stream: [await put.job(stream, written) for written in readable] for stream in jobs}
        good["INTAKE"] = [await put.intake(written) for written in readable]
        good["QUARANTINE"] = [await put.held(written) for written in readable]
        bad = {stream: [await put.job(stream, written) for written in unreadable] for stream in (*jobs, "BADMAIL")}
        bad["INTAKE"] = [await put.intake(written) for written in (newer, with_a_newer_gate)]
        bad["QUARANTINE"] = [await put.held(written) for written in unreadable]
        ended = an_envelope()
        await put.end(ended, DispositionKind.DELETED, with_a_newer_gate)
        return good, bad, ended.id


@pytest.mark.timeout(240)
def test_what_other_versions_wrote_is_read_or_stays_and_goes_on_after_the_upgrade(tmp_path: Path) -> None:
    with Relay(tmp_path / "var") as relay:
        good, bad, ended = asyncio.run(_write_all(relay))
        before = relay.send(a_message(), to=[TO])
        relay.kill("screener", "delivery", "api", number=signal.SIGTERM)
        after = relay.send_when_accepted(a_message(), to=[TO])
        for queue_id in (before, after, *good["INTAKE"], *good["OUTBOUND"], *good["DEFERRED"]):
            assert relay.wait_dispositions(queue_id, "delivered") == {TO: "delivered"}
        eventually(
            lambda: {"message.unreadable", "job.unreadable", "deferred.unreadable", "trace.unreadable"} <= _told(relay),
            "the logs",
        )
        for stream, count in {"INTAKE": 2, "OUTBOUND": 2, "DEFERRED": 2, "QUARANTINE": 4, "BADMAIL": 2}.items():
            assert relay.streams()[stream]["messages"] == count, stream
        for stream, queue_ids in bad.items():
            for queue_id in queue_ids:
                assert _found(relay, queue_id) == ([stream], ["held"] if stream == "QUARANTINE" else [])
        assert relay.api.get(f"/messages/{ended}").status_code == 404  # its end waits to be recorded
        assert _quarantine(relay) == dict.fromkeys(good["QUARANTINE"], "rule") | dict.fromkeys(bad["QUARANTINE"], "unreadable")

        _upgrade(relay, tmp_path)
        for queue_id in (bad["INTAKE"][0], *bad["DEFERRED"]):
            assert relay.wait_dispositions(queue_id, "delivered") == {TO: "delivered"}
        assert _quarantine(relay) == dict.fromkeys(good["QUARANTINE"] + bad["QUARANTINE"], "rule")
        for queue_id in bad["QUARANTINE"]:
            relay.api.post(f"/quarantine/{queue_id}/release").raise_for_status()
            assert relay.wait_dispositions(queue_id, "delivered") == {TO: "delivered"}


def _upgrade(relay: Relay, folder: Path) -> None:
    """All services end, and ones of the next version take their places."""
    (folder / "next" / "sitecustomize.py").parent.mkdir()
    (folder / "next" / "sitecustomize.py").write_text(NEXT_VERSION, encoding="utf-8")
    Stack.stop(relay)  # not the smart host
    relay.set_environment(PYTHONPATH=str(folder / "next"))
    Stack.start(relay)


def _found(relay: Relay, queue_id: str) -> tuple[list[str], list[str]]:
    """The streams in which the message is, and how its recipient ended."""
    told = relay.api.get(f"/messages/{queue_id}").raise_for_status().json()
    return [place["stream"] for place in told["places"]], [end["kind"] for end in told["dispositions"]]


def _quarantine(relay: Relay) -> dict[str, str]:
    """Why each message in quarantine is held."""
    return {row["queue_id"]: row["reason"] for row in relay.api.get("/quarantine").raise_for_status().json()["rows"]}


def _told(relay: Relay) -> set[str]:
    """Every event in the services' logs."""
    lines = [line for log in (relay.state / "logs").glob("*.log") for line in log.read_text(encoding="utf-8").splitlines()]
    return {json.loads(line).get("event", "") for line in lines if line.startswith("{")}
