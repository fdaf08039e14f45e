"""Two replicas of the gate on one broker: what one of them learns of accounts, the other knows."""

from __future__ import annotations

import asyncio
import base64
import signal
import ssl
import time

import msgspec

from fixtures.auth_gate import QUICK, all_know, running_gate, shared_of
from fixtures.gates import GateUnderTest, Wire
from postern_core.accounts import AccountVerb, FailureClearing, FailurePage, FailureQuery, FailuresCleared, control_subject
from postern_core.notices import NoticeBatch, NoticeKind
from postern_core.policy import Rates, SenderRules, SendingRates
from postern_ingress_auth.counts import HOUR_S

RIGHT = "wörd pass"


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


async def secured(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    return await (await gate.connect(1, tls)).greeted()


async def logged_in(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    wire = await secured(gate, tls)
    await wire.expect(plain("anna@example.com", RIGHT), "235 2.7.0")
    return wire


async def failures(gate: GateUnderTest) -> FailurePage:
    """As the api asks for them; any replica answers."""
    answer = await gate.api.request(control_subject(AccountVerb.FAILURES_LIST), msgspec.json.encode(FailureQuery()), timeout_s=5)
    return msgspec.json.decode(answer, type=FailurePage)


async def guess(gate: GateUnderTest, tls: ssl.SSLContext, times: int, name: str = "anna@example.com") -> None:
    wire = await secured(gate, tls)
    for n in range(times):
        if n % 2 == 0 and n:
            wire = await secured(gate, tls)
        await wire.expect(plain(name, "wrong"), "535 5.7.8")


def sent_by_anna(gate: GateUnderTest) -> int:
    return shared_of(gate).counts.sent("user:anna@example.com", HOUR_S, time.time()).messages


async def notices(gate: GateUnderTest, kind: NoticeKind) -> list[str]:
    """What was told of so far, by whom it is about."""
    found: list[str] = []
    provisioner = await gate.broker.connect("provisioner")
    try:
        for sequence in range(1, (await provisioner.stream_state("EVENTS"))["last_seq"] + 1):
            stored = await provisioner.jetstream.get_msg("EVENTS", sequence)
            if stored.subject == "event.ingress-auth.notice":
                told = msgspec.json.decode(stored.data or b"", type=NoticeBatch).notices
                found += [each.about for each in told if each.kind is kind]
    finally:
        await provisioner.close()
    return found


async def test_guesses_at_one_replica_count_at_the_other(
    gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    await guess(gate, client_tls, 3)
    await guess(gate, client_tls, 1, name="nobody of that name")
    await all_know((gate, other), {"address:127.0.0.1": 4})
    await guess(other, client_tls, 2)
    await all_know((gate, other), {"address:127.0.0.1": 6})
    # the limit is six: neither of them listens any more
    for replica in (gate, other):
        await (await secured(replica, client_tls)).expect(plain("anna@example.com", RIGHT), "454 4.7.0")
    page = await failures(gate)
    assert {row.key: row.count for row in page.rows} == {"address:127.0.0.1": 6, "user:anna@example.com": 5}
    assert page.unknown_names == 1
    assert "nobody" not in str(page)
    blocked = {row.key: row.blocked_until is not None for row in page.rows}
    assert blocked == {"address:127.0.0.1": True, "user:anna@example.com": False}


async def test_whoever_is_cleared_is_heard_again_by_all(
    gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    await guess(gate, client_tls, 6)
    await all_know((gate, other), {"address:127.0.0.1": 6})
    for key, cleared in (("address:127.0.0.1", 1), ("", 1), ("address:127.0.0.1", 0)):
        request = msgspec.json.encode(FailureClearing(key=key, actor="test"))
        answer = await gate.api.request(control_subject(AccountVerb.FAILURES_CLEAR), request, timeout_s=5)
        assert msgspec.json.decode(answer, type=FailuresCleared).cleared == cleared
        await all_know((gate, other), {"address:127.0.0.1": 0})
        await all_know((gate, other), {"user:anna@example.com": 0 if key == "" or cleared == 0 else 6})
    for replica in (gate, other):
        await logged_in(replica, client_tls)


async def test_a_replica_that_comes_later_is_told(
    gate: GateUnderTest, certificate: tuple[object, object], client_tls: ssl.SSLContext
) -> None:
    await guess(gate, client_tls, 6)
    async with running_gate(gate.broker, certificate) as late:  # type: ignore[arg-type]
        await all_know((gate, late), {"address:127.0.0.1": 6})
        await (await secured(late, client_tls)).expect(plain("anna@example.com", RIGHT), "454 4.7.0")


async def test_what_was_learnt_while_the_bus_was_away_is_told_when_it_is_back(
    gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    await guess(gate, client_tls, 2)
    await all_know((gate, other), {"address:127.0.0.1": 2})
    gate.broker.stop(signal.SIGKILL)
    for replica in (gate, other):
        await replica.wait_for(lambda replica=replica: replica.listener.unavailable() is not None)  # type: ignore[misc]
    # fails open: nobody is blocked for want of the others, and nobody let in unverified
    await (await secured(other, client_tls)).expect(plain("anna@example.com", RIGHT), "454 4.7.0 cannot check")
    # counted as the bus went away: this news is lost
    shared_of(gate).failed("127.0.0.1", "anna@example.com", exists=True)
    await asyncio.to_thread(gate.broker.restart)
    for replica in (gate, other):
        await replica.wait_for(lambda replica=replica: replica.listener.unavailable() is None)  # type: ignore[misc]
    await all_know((gate, other), {"address:127.0.0.1": 3})
    await guess(other, client_tls, 3)
    await all_know((gate, other), {"address:127.0.0.1": 6})
    await (await secured(gate, client_tls)).expect(plain("anna@example.com", RIGHT), "454 4.7.0 too many")


async def test_an_administrator_is_told_of_guesses(gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await guess(gate, client_tls, 6, name="my passw0rd")
    await all_know((gate, other), {"address:127.0.0.1": 6})
    async with asyncio.timeout(20):
        while len(told := await notices(gate, NoticeKind.AUTHENTICATION_BURST)) < 2:
            await asyncio.sleep(0.05)
    assert set(told) == {"127.0.0.1", "unknown user"}


async def test_rates_hold_over_both_replicas(gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    rates = Rates(user=SendingRates(messages_per_hour=4, recipients_per_day=7))
    gate.listener_policy = msgspec.structs.replace(QUICK, rates=rates, senders=SenderRules(null_sender=False))
    await gate.policy()
    await other.wait_for(lambda: (rules := other.listener.newest_rules()) is not None and rules.listener.rates == rates)
    wire, elsewhere = await logged_in(gate, client_tls), await logged_in(other, client_tls)
    for _ in range(2):
        assert (await wire.message(b"Subject: one\r\n\r\n")).startswith("250")
    # the other knows after half a second: two more and no third
    await other.wait_for(lambda: sent_by_anna(other) == 2)
    for _ in range(2):
        assert (await elsewhere.message(b"Subject: one\r\n\r\n")).startswith("250")
    await elsewhere.expect("MAIL FROM:<x@sender.example>", "450 4.7.1")
    async with asyncio.timeout(20):
        while not await notices(gate, NoticeKind.ACCOUNT_SUSPECTED):
            await asyncio.sleep(0.05)
    await gate.wait_for(
        lambda: sent_by_anna(gate) == 4 and "user:anna@example.com hour" in str(shared_of(gate).counts._suspected)
    )
    await wire.expect("MAIL FROM:<x@sender.example>", "450 4.7.1")
    await wire.expect("MAIL FROM:<>", "553 5.7.1")
    async with asyncio.timeout(20):
        while not await notices(gate, NoticeKind.SENDER_REFUSED):  # told by the same replica, after what went before
            await asyncio.sleep(0.05)
    assert await notices(gate, NoticeKind.ACCOUNT_SUSPECTED) == ["Anna@example.com"]  # once for both
    assert sent_by_anna(gate) == 4


async def test_where_the_listener_says_so_a_name_is_not_heard_from_anywhere_for_a_while(
    gate: GateUnderTest, other: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    throttling = msgspec.structs.replace(QUICK.throttling, network_limit=None, user_limit=3)
    gate.listener_policy = msgspec.structs.replace(QUICK, throttling=throttling)
    await gate.policy()
    await other.wait_for(lambda: (rules := other.listener.newest_rules()) is not None and rules.revision >= gate.revision)
    await guess(gate, client_tls, 3, name="ANNA@example.com")
    await guess(gate, client_tls, 3, name="nobody")
    await all_know((gate, other), {"user:anna@example.com": 3, "user:nobody": 3})
    for replica in (gate, other):
        for name in ("anna@example.com", "Nobody"):  # whether there is such a user or not
            await (await secured(replica, client_tls)).expect(plain(name, RIGHT), "454 4.7.0 too many")
        await (await secured(replica, client_tls)).expect(plain("gone", RIGHT), "535 5.7.8")
