"""What the sender hears: NDRs, their copy, delay notices; and badmail, when nobody can be told."""

from __future__ import annotations

from email import message_from_bytes
from typing import TYPE_CHECKING

import msgspec

from fixtures.smart_host import ReceivedMessage
from postern_core.bus.topology import BADMAIL
from postern_core.control import DeliveryVerb
from postern_core.disposition import DispositionKind
from postern_core.envelope import Recipient, frame
from postern_core.policy import RelayDomain, RetrySchedule

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack


class Newer(msgspec.Struct):
    """A head that a newer program wrote."""

    version: int = 2


async def notice(stack: Stack, action: str, count: int = 1) -> ReceivedMessage:
    """The one notice with this action among `count` messages that arrived."""
    messages = await stack.smart_host.wait_for(count)
    [found] = [m for m in messages if m.reverse_path == "" and f"Action: {action}".encode() in m.data]
    return found


async def test_expiry_returns_the_mail(stack: Stack) -> None:
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(0.5,), delay_notice_s=None, expiry_s=1))
    stack.smart_host.defer_rcpt("later@relay.example")
    job = await stack.send("later@relay.example")
    [end] = await stack.ends(job)
    assert end.kind is DispositionKind.EXPIRED
    assert end.reply.startswith("451")
    ndr = await notice(stack, "failed")
    status = message_from_bytes(ndr.data).get_payload(1).get_payload(1)
    assert status["Status"] == "5.4.7"
    assert status["Diagnostic-Code"].startswith("smtp; 451")
    assert end.successor_id.encode() in ndr.data
    await stack.queued(0)
    await stack.holds("DEFERRED", 0)


async def test_a_delay_is_told_once_and_only_to_those_who_want_to_know(stack: Stack) -> None:
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(0.5,), delay_notice_s=0.5, expiry_s=600))
    recipients = [
        Recipient(n=n, address=f"{name}@relay.example", notify=notify)
        for n, (name, notify) in enumerate([("a", ""), ("b", "FAILURE"), ("c", "SUCCESS,DELAY"), ("d", "NEVER")])
    ]
    for recipient in recipients:
        stack.smart_host.defer_rcpt(recipient.address)
    job = await stack.send(*recipients)
    delayed = await notice(stack, "delayed")
    assert delayed.recipients == ("me@sender.example",)

    async def tried_on() -> bool:
        return (await stack.queue()).rows[0].attempts >= 4

    await stack.until(tried_on)
    stack.smart_host.behave()
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert len(stack.smart_host.messages) == 2
    groups = message_from_bytes(delayed.data).get_payload(1).get_payload()[1:]
    assert [group["Final-Recipient"] for group in groups] == ["rfc822; a@relay.example", "rfc822; c@relay.example"]


async def test_success_is_told_to_who_asked_for_it_where_the_next_hop_will_not(stack: Stack) -> None:
    """RFC 3461 section 5.2.2: both gates offer DSN, and a peer without it says nothing."""
    recipients = [
        Recipient(n=n, address=f"{name}@relay.example", notify=notify, orcpt=orcpt)
        for n, (name, notify, orcpt) in enumerate(
            [("a", "SUCCESS,FAILURE", "rfc822;alias+2Ba@relay.example"), ("b", "FAILURE", ""), ("c", "", ""), ("d", "NEVER", "")]
        )
    ]
    await stack.dispositions(await stack.send(*recipients))
    await stack.outbound_is_empty()
    assert len(stack.smart_host.messages) == 1  # the peer offers DSN: it will report
    assert stack.smart_host.messages[0].rcpt_parameters[0] == "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;alias+2Ba@relay.example"
    stack.smart_host.messages.clear()
    stack.smart_host.offer = set(stack.smart_host.offer) - {"DSN"}
    await stack.stop()  # with its connections, and what it knows about the peer
    await stack.start()
    await stack.dispositions(await stack.send(*recipients))
    relayed = await notice(stack, "relayed", count=2)
    await stack.outbound_is_empty()
    assert relayed.recipients == ("me@sender.example",)
    [group] = message_from_bytes(relayed.data).get_payload(1).get_payload()[1:]
    assert group["Final-Recipient"] == "rfc822; a@relay.example"
    assert group["Original-Recipient"] == "rfc822; alias+a@relay.example"
    assert group["Status"] == "2.0.0"
    await stack.dispositions(await stack.send(*recipients, sender=""))
    await stack.outbound_is_empty()
    assert len(stack.smart_host.messages) == 3


async def test_who_asked_for_no_notice_gets_none(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("a@relay.example")
    job = await stack.send(Recipient(n=0, address="a@relay.example", notify="NEVER"))
    [end] = await stack.ends(job)
    assert (end.kind, end.successor_id) == (DispositionKind.BOUNCED, "")
    await stack.outbound_is_empty()
    assert stack.smart_host.messages == []


async def test_the_copy_of_an_ndr_goes_to_the_postmaster(stack: Stack) -> None:
    await stack.set_policy(ndr_copy_to="ndr@relay.example")
    stack.smart_host.refuse_rcpt("gone@relay.example")
    await stack.dispositions(await stack.send("gone@relay.example"))
    messages = await stack.smart_host.wait_for(2)
    assert sorted((m.reverse_path, m.recipients) for m in messages) == [
        ("", ("me@sender.example",)),
        ("", ("ndr@relay.example",)),
    ]


async def test_the_copy_makes_no_loop(stack: Stack) -> None:
    await stack.set_policy(ndr_copy_to="ndr@relay.example")
    stack.smart_host.refuse_rcpt("ndr@relay.example")
    stack.smart_host.refuse_rcpt("gone@relay.example")
    # sent by the address that gets the copies: one NDR, not two
    job = await stack.send("gone@relay.example", sender="NDR@relay.example")
    [end] = await stack.ends(job)
    await stack.outbound_is_empty()
    assert stack.smart_host.messages != []
    # and a copy that is refused is badmail
    await stack.dispositions(await stack.send("gone@relay.example"))

    async def bad() -> bool:
        return (await stack.badmail()).total == 1

    await stack.until(bad)
    assert (await stack.badmail()).rows[0].recipients == ("ndr@relay.example",)
    assert end.kind is DispositionKind.BOUNCED


async def test_the_ndr_takes_the_route_of_the_sender_s_domain(stack: Stack) -> None:
    routes = (stack.route("default", port=1), stack.route("inside"))
    await stack.set_policy(routes=routes, relay_domains=(RelayDomain(pattern="sender.example", route="inside"),))
    stack.smart_host.refuse_rcpt("gone@relay.example")
    await stack.dispositions(await stack.send("gone@relay.example", route="inside"))
    assert (await notice(stack, "failed")).recipients == ("me@sender.example",)


async def test_mail_with_a_null_reverse_path_is_never_answered(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("gone@relay.example")
    job = await stack.send("gone@relay.example", "here@relay.example", sender="")
    assert await stack.dispositions(job) == {"gone@relay.example": "badmail", "here@relay.example": "delivered"}
    await stack.outbound_is_empty()
    assert len(stack.smart_host.messages) == 1
    [row] = (await stack.badmail()).rows
    assert (row.job_id, row.recipients) == (job.id, ("gone@relay.example",))
    assert row.last_reply.startswith("550 5.1.1")
    assert await stack.change(DeliveryVerb.BADMAIL_DELETE, job_id=row.job_id) == 1
    assert (await stack.badmail()).total == 0


async def test_badmail_of_a_newer_program_is_passed_over_and_kept(stack: Stack) -> None:
    delivery = await stack.broker.connect("delivery")
    await delivery.publish(BADMAIL, "badmail.newer-main-0", frame(Newer()), "newer")
    stack.smart_host.refuse_rcpt("gone@relay.example")
    job = await stack.send("gone@relay.example", sender="")
    assert await stack.dispositions(job) == {"gone@relay.example": "badmail"}
    assert [row.queue_id for row in (await stack.badmail()).rows] == [job.queue_id]
    assert await stack.change(DeliveryVerb.BADMAIL_DELETE, job_id="newer-main-0") == 0
    assert await delivery.last(BADMAIL, "badmail.newer-main-0") is not None
    await delivery.close()


async def test_an_ndr_that_cannot_be_delivered_is_badmail(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("gone@relay.example")
    stack.smart_host.refuse_rcpt("me@sender.example", "550 5.1.1 forged")
    job = await stack.send("gone@relay.example")
    [end] = await stack.ends(job)

    async def ended() -> bool:
        return await stack.end_of(end.successor_id, 0) is not None

    await stack.until(ended)
    of_ndr = await stack.end_of(end.successor_id, 0)
    assert of_ndr is not None
    assert of_ndr.kind is DispositionKind.BADMAIL
    [row] = (await stack.badmail()).rows
    assert row.queue_id == end.successor_id
    assert row.reason == "undeliverable notice"
    await stack.outbound_is_empty()
    assert stack.smart_host.messages == []


async def test_recipients_that_become_badmail_one_after_another_share_an_entry(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("a@relay.example")
    stack.smart_host.defer_rcpt("b@relay.example")
    job = await stack.send("a@relay.example", "b@relay.example", sender="")
    await stack.queued()
    stack.smart_host.refuse_rcpt("b@relay.example")
    assert set((await stack.dispositions(job)).values()) == {"badmail"}
    [row] = (await stack.badmail()).rows
    assert row.recipients == ("a@relay.example", "b@relay.example")


async def test_a_repeated_bounce_makes_one_ndr(stack: Stack) -> None:
    stack.smart_host.refuse_rcpt("gone@relay.example")
    # two copies of one job side by side, as after a broker that forgot what it had seen
    job = await stack.send("gone@relay.example")
    await stack.send("gone@relay.example", queue_id=job.queue_id, maybe_duplicate=True)
    await stack.dispositions(job)
    await stack.smart_host.wait_for(1)
    await stack.outbound_is_empty()
    assert len(stack.smart_host.messages) == 1
