"""Which mailboxes a relay domain has, over real sockets: by its list, and by asking a smart host that is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from fixtures.gates import GateUnderTest, Wire
from fixtures.smart_host import EVERYTHING, SmartHost
from postern_core.policy import (
    CalloutRoute,
    ListenerPolicy,
    ListenerVerification,
    NextHop,
    RecipientList,
    Recipients,
    RelayDomain,
    RouteTls,
    WhenUnavailable,
)

LISTED = RelayDomain(pattern="relay.example", recipients=Recipients.LIST)
CALLED = RelayDomain(pattern="relay.example", recipients=Recipients.CALLOUT)
UNKNOWN = "550 5.1.1 no such mailbox"


def settings(**changes: object) -> ListenerPolicy:
    return ListenerPolicy(verification=msgspec.structs.replace(ListenerVerification(), **changes))


def route_to(*hosts: SmartHost, tls: RouteTls = RouteTls.OPPORTUNISTIC) -> CalloutRoute:
    return CalloutRoute(name="main", next_hops=tuple(NextHop(host=host.host, port=host.port) for host in hosts), tls=tls)


async def in_mail(gate: GateUnderTest) -> Wire:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    return wire


async def reply_to(gate: GateUnderTest, address: str) -> str:
    wire = await in_mail(gate)
    reply = await wire.say(f"RCPT TO:<{address}>")
    await wire.expect("QUIT", "221")
    return reply


def asked(host: SmartHost, address: str) -> int:
    return sum(command == f"RCPT TO:<{address}>" for command in host.commands)


@pytest.fixture
async def called(gate: GateUnderTest, smart_host: SmartHost) -> AsyncIterator[GateUnderTest]:
    """The gate asks the smart host, which knows everybody but gone@ and whom it is probed for."""
    smart_host.knows = lambda address: not address.startswith(("gone@", "postern-probe-"))
    await gate.policy((CALLED,), routes=(route_to(smart_host),))
    yield gate
    assert smart_host.violations == []


# --- lists


async def test_who_is_on_the_list_is_taken_and_nobody_else(gate: GateUnderTest) -> None:
    domains = (LISTED, RelayDomain(pattern="*.wild.example", recipients=Recipients.LIST), RelayDomain(pattern="any.example"))
    lists = (
        RecipientList(domain="relay.example", addresses=("ann@relay.example", "o'hara x@relay.example")),
        RecipientList(domain="*.wild.example", addresses=("bob@a.wild.example",)),
    )
    await gate.policy(domains, lists=lists)
    wire = await in_mail(gate)
    await wire.expect("RCPT TO:<ann@relay.example>", "250 2.1.5")
    await wire.expect("RCPT TO:<ANN@Relay.Example>", "250 2.1.5")
    await wire.expect('RCPT TO:<"o\'hara x"@relay.example>', "250 2.1.5")
    await wire.expect("RCPT TO:<anne@relay.example>", UNKNOWN)
    await wire.expect("RCPT TO:<bob@a.wild.example>", "250 2.1.5")
    await wire.expect("RCPT TO:<bob@b.wild.example>", UNKNOWN)
    await wire.expect("RCPT TO:<anybody@any.example>", "250 2.1.5")
    await wire.expect("RCPT TO:<postMaster@relay.example>", "250 2.1.5")
    await wire.expect("RCPT TO:<ann@elsewhere.example>", "550 5.7.1")


async def test_a_list_may_tell_cases_apart(gate: GateUnderTest) -> None:
    listed = RecipientList(domain="relay.example", addresses=("Ann@relay.example",), case_sensitive=True)
    await gate.policy((LISTED,), lists=(listed,))
    assert (await reply_to(gate, "Ann@RELAY.example")).startswith("250")
    assert (await reply_to(gate, "ann@relay.example")).startswith(UNKNOWN)


async def test_a_domain_without_a_list_has_no_mailbox_but_the_postmaster(gate: GateUnderTest) -> None:
    await gate.policy((LISTED,))
    assert (await reply_to(gate, "ann@relay.example")).startswith(UNKNOWN)
    assert (await reply_to(gate, "postmaster@relay.example")).startswith("250")


# --- callouts


async def test_the_smart_host_is_asked_once_and_remembered(called: GateUnderTest, smart_host: SmartHost) -> None:
    for _ in range(2):
        assert (await reply_to(called, "ann@relay.example")).startswith("250 2.1.5")
        assert (await reply_to(called, "Ann@relay.example")).startswith("250 2.1.5")
        assert (await reply_to(called, "gone@relay.example")).startswith(UNKNOWN)
        assert (await reply_to(called, "postmaster@relay.example")).startswith("250 2.1.5")
    assert (asked(smart_host, "ann@relay.example"), asked(smart_host, "gone@relay.example")) == (1, 1)
    # a question, a probe with the first of them, and no mail
    assert [command.partition(":<")[0] for command in smart_host.commands] == [
        *("EHLO mx.example", "MAIL FROM", "RCPT TO", "RCPT TO", "QUIT"),
        *("EHLO mx.example", "MAIL FROM", "RCPT TO", "QUIT"),
    ]
    assert "MAIL FROM:<>" in smart_host.commands
    assert smart_host.messages == []


async def test_a_smart_host_that_takes_anything_is_not_asked_again_that_day(gate: GateUnderTest, smart_host: SmartHost) -> None:
    await gate.policy((CALLED,), routes=(route_to(smart_host),))
    for address in ("ann@relay.example", "bob@relay.example", "anybody@relay.example"):
        assert (await reply_to(gate, address)).startswith("250")
    assert smart_host.connections == 1


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("CONNECT", "421 4.3.2 not now"),
        ("CONNECT", "554 5.7.1 not you"),
        ("MAIL", "550 5.7.1 no null sender here"),
        ("RCPT", "451 4.2.1 mailbox busy"),
        ("RCPT", "530 5.7.0 authentication required"),
        ("RCPT", "503 5.5.1 what"),
        ("RCPT", "421 4.3.2 going down"),
    ],
)
async def test_what_says_nothing_of_the_mailbox_defers_or_accepts(
    called: GateUnderTest, smart_host: SmartHost, stage: str, reply: str
) -> None:
    smart_host.reply_to(stage, reply)
    assert (await reply_to(called, "ann@relay.example")).startswith("451 4.3.0 cannot verify")
    await called.policy((CALLED,), routes=(route_to(smart_host),), listener=settings(when_unavailable=WhenUnavailable.ACCEPT))
    assert (await reply_to(called, "ann@relay.example")).startswith("250 2.1.5")


async def test_the_next_hop_behind_one_that_is_down_is_asked(called: GateUnderTest, smart_host: SmartHost) -> None:
    down = SmartHost()
    await down.start()
    await down.stop()
    await called.policy((CALLED,), routes=(route_to(down, smart_host),))
    assert (await reply_to(called, "gone@relay.example")).startswith(UNKNOWN)
    await called.policy((CALLED,), routes=(route_to(down),))
    assert (await reply_to(called, "ann@relay.example")).startswith("451 4.3.0")


async def test_other_smart_hosts_of_the_route_are_asked_anew(gate: GateUnderTest, smart_host: SmartHost) -> None:
    await gate.policy((CALLED,), routes=(route_to(smart_host),))  # it takes anything
    assert (await reply_to(gate, "gone@relay.example")).startswith("250")
    strict = SmartHost(knows=lambda address: address.startswith("ann@"))
    await strict.start()
    await gate.policy((CALLED,), routes=(route_to(strict),))
    assert (await reply_to(gate, "gone@relay.example")).startswith(UNKNOWN)
    await strict.stop()


async def test_two_gates_that_ask_each_other_do_not_ask_for_ever(gate: GateUnderTest) -> None:
    itself = CalloutRoute(name="main", next_hops=(NextHop(host="127.0.0.1", port=gate.listener.addresses[0].port),))
    await gate.policy((CALLED,), routes=(itself,), listener=settings(timeout_s=0.5))
    assert (await reply_to(gate, "ann@relay.example")).startswith("451 4.3.0")
    await gate.wait_for(lambda: gate.listener.connections == 0)


async def test_a_smart_host_that_is_slow_costs_its_time_out_and_no_more(called: GateUnderTest, smart_host: SmartHost) -> None:
    await called.policy((CALLED,), routes=(route_to(smart_host),), listener=settings(timeout_s=0.2))
    smart_host.hold()
    assert (await reply_to(called, "ann@relay.example")).startswith("451 4.3.0")
    connections = smart_host.connections
    assert (await reply_to(called, "bob@relay.example")).startswith("451 4.3.0")  # at once, for whoever waits
    assert smart_host.connections == connections
    smart_host.let_go()
    await called.wait_for(lambda: smart_host.open_connections == 0)


async def test_the_certificate_is_checked_where_the_route_says_so(called: GateUnderTest, smart_host: SmartHost) -> None:
    smart_host.offer = EVERYTHING
    await called.policy((CALLED,), routes=(route_to(smart_host, tls=RouteTls.VERIFY),))
    assert (await reply_to(called, "ann@relay.example")).startswith("451 4.3.0")
    assert asked(smart_host, "ann@relay.example") == 0


async def test_few_questions_are_under_way_at_once_and_equal_ones_are_one(called: GateUnderTest, smart_host: SmartHost) -> None:
    await called.policy((CALLED,), routes=(route_to(smart_host),), listener=settings(max_at_once_per_client=3))
    smart_host.slow(0.01)
    replies = await asyncio.gather(*(reply_to(called, f"a{n % 10}@relay.example") for n in range(40)))
    assert all(reply.startswith("250") for reply in replies)
    assert smart_host.most_connections == 3
    assert [asked(smart_host, f"a{n}@relay.example") for n in range(10)] == [1] * 10


async def test_a_client_that_asks_much_does_not_hold_up_another(called: GateUnderTest, smart_host: SmartHost) -> None:
    await called.policy((CALLED,), routes=(route_to(smart_host),), listener=settings(max_at_once_per_client=1, max_at_once=2))
    smart_host.hold()
    greedy = [asyncio.create_task(reply_to(called, f"a{n}@relay.example")) for n in range(20)]
    await called.wait_for(lambda: smart_host.open_connections == 1)
    wire = await (await called.connect(source="127.9.9.9")).greeted()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    other = asyncio.create_task(wire.say("RCPT TO:<ann@relay.example>"))
    await called.wait_for(lambda: smart_host.open_connections == 2)
    smart_host.let_go()
    assert (await other).startswith("250")
    assert all(reply.startswith("250") for reply in await asyncio.gather(*greedy))


async def test_a_client_that_leaves_does_no_harm(called: GateUnderTest, smart_host: SmartHost) -> None:
    smart_host.hold()
    wire = await in_mail(called)
    await wire.send(b"RCPT TO:<ann@relay.example>\r\n")
    await called.wait_for(lambda: smart_host.open_connections == 1)
    wire.writer.transport.abort()
    smart_host.let_go()
    await called.wait_for(lambda: called.listener.connections == 0)
    await called.wait_for(lambda: smart_host.open_connections == 0)
    assert (await reply_to(called, "ann@relay.example")).startswith("250")
    assert asked(smart_host, "ann@relay.example") == 1


async def test_an_address_in_utf_8_is_asked_for_where_it_is_understood(called: GateUnderTest, smart_host: SmartHost) -> None:
    async def international(local_part: str) -> str:
        wire = await called.session()
        await wire.expect("MAIL FROM:<x@sender.example> SMTPUTF8", "250")
        return await wire.say(f"RCPT TO:<{local_part}@relay.example>")

    assert (await international("j\u00f6rg")).startswith(UNKNOWN)
    smart_host.offer = {*EVERYTHING - {"STARTTLS"}, "SMTPUTF8"}
    assert (await international("bj\u00f6rn")).startswith("250")
    assert "MAIL FROM:<> SMTPUTF8" in smart_host.commands
    assert (await international("ann")).startswith("250")
