"""Mail on its way out: first tries, the retry queue, and what a restart must not repeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fixtures.smart_host import SmartHost
from postern_core.bus import Delivered
from postern_core.control import DeliveryVerb
from postern_core.credentials import RouteSecret, route_secret_key
from postern_core.disposition import DispositionKind
from postern_core.events import EventKind
from postern_core.policy import RelayDomain, RetrySchedule

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack


async def test_mail_is_delivered_at_the_first_try_without_the_database(stack: Stack) -> None:
    job = await stack.send("a@relay.example", "b@relay.example")
    ends = await stack.ends(job)
    assert {end.kind for end in ends} == {DispositionKind.DELIVERED}
    assert {end.next_hop for end in ends} == {f"127.0.0.1:{stack.smart_host.port}"}
    assert ends[0].reply.startswith("250 2.0.0")
    [message] = stack.smart_host.messages
    assert message.recipients == ("a@relay.example", "b@relay.example")
    assert message.reverse_path == "me@sender.example"
    assert message.data.endswith(b"\r\nhello\r\n")
    assert message.helo_name == "relay.example.net"
    await stack.outbound_is_empty()
    assert (await stack.queue()).total == 0
    assert stack.smart_host.violations == []


async def test_one_recipient_refused_and_one_delivered(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("gone@relay.example")
    job = await stack.send("gone@relay.example", "here@relay.example")
    assert await stack.dispositions(job) == {"gone@relay.example": "bounced", "here@relay.example": "delivered"}
    messages = await stack.smart_host.wait_for(2)
    await stack.outbound_is_empty()
    assert sorted(message.reverse_path for message in messages) == ["", "me@sender.example"]
    ndr = next(message for message in messages if message.reverse_path == "")
    assert ndr.recipients == ("me@sender.example",)
    assert b"Action: failed" in ndr.data
    assert b"Final-Recipient: rfc822; gone@relay.example" in ndr.data
    assert b"here@relay.example" not in ndr.data
    bounced = await stack.end_of(job.queue_id, 0)
    assert bounced is not None
    of_ndr = await stack.end_of(bounced.successor_id, 0)
    assert of_ndr is not None
    assert (of_ndr.kind, of_ndr.recipient) == (DispositionKind.DELIVERED, "me@sender.example")


async def test_a_smart_host_that_is_down_is_tried_again_until_it_is_up(stack: Stack) -> None:
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example", "b@relay.example")
    [row] = (await stack.queued()).rows
    assert sorted(row.recipients) == ["a@relay.example", "b@relay.example"]
    assert row.job_id == job.id
    assert row.last_reply
    await stack.outbound_is_empty()
    await stack.smart_host.start()
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert len(stack.smart_host.messages) == 1
    await stack.queued(0)
    await stack.holds("DEFERRED", 0)


async def test_only_those_who_must_wait_wait(stack: Stack) -> None:
    stack.smart_host.defer_rcpt("later@relay.example")
    job = await stack.send("later@relay.example", "now@relay.example")
    [row] = (await stack.queued()).rows
    assert row.recipients == ("later@relay.example",)
    assert row.last_reply.startswith("451 4.2.1")
    stack.smart_host.behave()
    assert await stack.dispositions(job) == {"later@relay.example": "delivered", "now@relay.example": "delivered"}
    assert [m.recipients for m in stack.smart_host.messages] == [("now@relay.example",), ("later@relay.example",)]


async def test_many_recipients_go_in_several_transactions_over_one_connection(stack: Stack) -> None:
    await stack.set_policy(routes=(stack.route("default", max_recipients=100),))
    job = await stack.send(*(f"u{n}@relay.example" for n in range(105)))
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert [len(m.recipients) for m in stack.smart_host.messages] == [100, 5]
    assert stack.smart_host.connections == 1


@pytest.mark.parametrize("code", ["452 4.5.3", "552 5.5.3"])
async def test_a_peer_that_takes_no_more_recipients_gets_the_rest_at_once(stack: Stack, code: str) -> None:
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(3600,)))
    stack.smart_host.refuse_rcpt("b@relay.example", f"{code} too many recipients")
    job = await stack.send("a@relay.example", "b@relay.example")
    # b is refused once more in the second transaction, which brings nothing across: then it waits
    [row] = (await stack.queued()).rows
    assert row.recipients == ("b@relay.example",)
    asked = [command for command in stack.smart_host.commands if command.startswith("RCPT TO:<b@")]
    assert len(asked) == 2
    end = await stack.end_of(job.queue_id, 0)
    assert end is not None
    assert end.kind is DispositionKind.DELIVERED


async def test_a_connection_lost_after_the_dot_is_retried_and_counted(stack: Stack) -> None:
    stack.smart_host.hang_up(during="END-OF-DATA", times=1)
    job = await stack.send("a@relay.example")
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    await stack.outbound_is_empty()
    await stack.stop()
    attempts = [event.fields for event in await stack.events() if event.kind is EventKind.ATTEMPTED]
    assert [(fields["in_doubt"], fields["delivered"]) for fields in attempts] == [(1, 0), (0, 1)]


async def test_a_marked_or_redelivered_job_that_is_settled_is_not_sent_again(stack: Stack) -> None:
    job = await stack.send("a@relay.example")
    await stack.dispositions(job)
    await stack.send("a@relay.example", "b@relay.example", queue_id=job.queue_id, maybe_duplicate=True)
    await stack.outbound_is_empty()
    assert [m.recipients for m in stack.smart_host.messages] == [("a@relay.example",), ("b@relay.example",)]


async def test_a_death_between_the_disposition_and_the_ack_sends_nothing_twice(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def ack(_: Delivered) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Delivered, "ack", ack)
        job = await stack.send("a@relay.example")
        await reached.wait()
        assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
        await stack.kill()
    await stack.start()
    await stack.outbound_is_empty()  # redelivered after the ack-wait, and acknowledged
    assert len(stack.smart_host.messages) == 1


async def test_a_job_that_was_deferred_before_a_death_is_not_tried_by_two(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def ack(_: Delivered) -> None:
        reached.set()
        await asyncio.Event().wait()

    await stack.smart_host.stop()
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(3600,)))
    with monkeypatch.context() as patched:
        patched.setattr(Delivered, "ack", ack)
        job = await stack.send("a@relay.example")
        await reached.wait()
        await stack.kill()
    await stack.smart_host.start()
    await stack.start()
    await stack.outbound_is_empty()
    assert (await stack.queue()).total == 1
    assert stack.smart_host.messages == []
    assert await stack.change(DeliveryVerb.QUEUE_RETRY, queue_id=job.queue_id) == 1
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    assert len(stack.smart_host.messages) == 1


async def test_a_stop_hands_back_what_is_under_way(stack: Stack) -> None:
    stack.settings = stack.settings.model_copy(update={"drain_s": 3.5})
    await stack.stop()
    await stack.start()
    stack.smart_host.slow(30)
    job = await stack.send("a@relay.example")

    async def connected() -> bool:
        return stack.smart_host.connections > 0

    await stack.until(connected)
    await stack.stop()
    stack.smart_host.behave()
    await stack.start()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    assert len(stack.smart_host.messages) == 1


async def test_a_slow_route_holds_up_no_other(stack: Stack) -> None:
    slow = SmartHost()
    await slow.start()
    slow.slow(60)
    try:
        domains = (RelayDomain(pattern="slow.example", route="slow"),)
        await stack.set_policy(
            routes=(stack.route("default"), stack.route("slow", port=slow.port, max_connections=2)), relay_domains=domains
        )
        for n in range(60):
            await stack.send(f"u{n}@slow.example", route="slow")
        job = await stack.send("a@relay.example")
        assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
        assert slow.messages == []
    finally:
        await stack.stop()
        await slow.stop()


async def test_jobs_of_a_route_that_left_the_policy_take_the_route_of_their_domain(stack: Stack) -> None:
    await stack.set_policy(routes=(stack.route("default"), stack.route("old")))
    await stack.stop()
    job = await stack.send("a@relay.example", route="old")
    await stack.set_policy(routes=(stack.route("default"),))
    await stack.start()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}


async def test_jobs_that_wait_for_a_route_that_leaves_the_policy_take_the_route_of_their_domain(stack: Stack) -> None:
    domains = (RelayDomain(pattern="relay.example", route="old"),)
    await stack.set_policy(routes=(stack.route("default"), stack.route("old", port=1)), relay_domains=domains)
    job = await stack.send("a@relay.example", route="old")
    await stack.queued()
    # first to nowhere, as after a mistake: the mail waits, and says for what
    await stack.set_policy(routes=(stack.route("other"),), relay_domains=())

    async def says_why() -> bool:
        return "no route default" in (await stack.queue()).rows[0].last_reply

    await stack.until(says_why)
    await stack.set_policy(routes=(stack.route("default"),))
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    await stack.queued(0)
    await stack.holds("DEFERRED", 0)


async def test_credentials_of_a_route_are_read_when_it_connects(stack: Stack) -> None:
    stack.smart_host.users = {"relay": "secret"}
    stack.smart_host.offer = {*stack.smart_host.offer, "STARTTLS", "AUTH PLAIN LOGIN"}
    secret = RouteSecret(user="relay", password="secret")
    await stack.set_policy(routes=(stack.route("default", auth=True),))
    job = await stack.send("a@relay.example")
    assert "none are stored" in (await stack.queued()).rows[0].last_reply
    import msgspec

    await stack.api.kv_put("SECRETS", route_secret_key("default"), msgspec.json.encode(secret))
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    assert stack.smart_host.messages[0].auth_user == "relay"
    assert stack.smart_host.messages[0].tls


async def test_a_broker_that_goes_away_after_the_250_makes_no_second_copy(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    got, gone = asyncio.Event(), asyncio.Event()
    record = stack.smart_host.record

    async def recorded(message: object) -> None:
        got.set()
        await gone.wait()  # the 250 goes out while the broker is away
        await record(message)  # type: ignore[arg-type]

    monkeypatch.setattr(stack.smart_host, "record", recorded)
    job = await stack.send("a@relay.example")
    await got.wait()
    await asyncio.to_thread(stack.broker.stop)
    gone.set()
    await stack.smart_host.wait_for(1)
    await asyncio.to_thread(stack.broker.restart)

    async def back() -> bool:
        return stack.api.connected

    await stack.until(back)
    assert await stack.dispositions(job, timeout=40) == {"a@relay.example": "delivered"}
    await stack.outbound_is_empty()
    assert len(stack.smart_host.messages) == 1
