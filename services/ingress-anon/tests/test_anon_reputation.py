"""What others know of a client, over a real socket: lists in a real DNS server, who talks too early, and what clients call themselves."""

from __future__ import annotations

import pytest

from fixtures.dns_server import DnsServer, Misbehaviour
from fixtures.gates import GateUnderTest
from postern_core.notices import NoticeKind
from postern_core.policy import (
    AccessAction,
    AccessEntry,
    DnsList,
    ListedAt,
    ListenerAccess,
    ListenerDnsLists,
    ListenerGreeting,
    ListenerPolicy,
    Switch,
)
from postern_core.policy.filters import ListenerRelaying
from postern_smtp.access import AccessList
from postern_smtp.dns_lists import DnsListCheck
from postern_smtp.resolver import Resolver
from postern_smtp.session import Session

LISTED = "550 5.7.1 your address is on lists of senders of unwanted mail"


def lists(*entries: DnsList, threshold: float = 1.0, at: ListedAt = ListedAt.RECIPIENT) -> ListenerPolicy:
    return ListenerPolicy(dns_lists=ListenerDnsLists(lists=entries, threshold=threshold, refuse_at=at))


def one(zone: str = "bad.example", weight: float = 1.0, *answers: str) -> DnsList:
    return DnsList(zone=zone, weight=weight, answers=answers)


def listed(dns_server: DnsServer, zone: str = "bad.example", code: str = "127.0.0.2") -> None:
    dns_server.add(f"1.0.0.127.{zone}", "A", code)


async def rcpt(gate: GateUnderTest, recipient: str = "a@relay.example") -> str:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    return await wire.say(f"RCPT TO:<{recipient}>")


async def test_a_listed_client_is_refused_at_rcpt_and_reaches_a_postmaster(
    dns_gate: GateUnderTest, dns_server: DnsServer
) -> None:
    await dns_gate.policy(listener=lists(one()))
    assert (await rcpt(dns_gate)).startswith("250 ")
    listed(dns_server, "other.example")
    await dns_gate.policy(listener=lists(one("other.example", 2.5)))
    assert await rcpt(dns_gate) == LISTED
    for postmaster in ("postmaster@relay.example", "PostMaster@relay.example", "Postmaster"):
        assert (await rcpt(dns_gate, postmaster)).startswith("250 ")
    notice = await dns_gate.notice(NoticeKind.CONNECTION_DENIED)
    assert notice.about == "127.0.0.1"
    assert notice.fields == {"reply": LISTED, "lists": "other.example", "score": 2.5}


async def test_a_listed_client_is_refused_in_place_of_the_greeting(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    listed(dns_server)
    await dns_gate.policy(listener=lists(one(), at=ListedAt.CONNECTION))
    wire = await dns_gate.connect()
    assert await wire.reply() == "554 5.7.1 your address is on a list of senders of unwanted mail"
    assert await wire.is_closed()
    assert (await dns_gate.notice(NoticeKind.CONNECTION_DENIED)).fields["lists"] == "bad.example"


@pytest.mark.parametrize(
    ("entries", "threshold", "expected"),
    [
        ([one("bad.example", 1.0), one("worse.example", 1.0)], 2.0, "550"),
        ([one("bad.example", 1.0), one("worse.example", 1.0)], 2.1, "250"),
        ([one("bad.example", 3.0), one("good.example", -2.0)], 2.0, "250"),
        ([one("bad.example", 3.0), one("nothing.example", -2.0)], 2.0, "550"),
        ([one("bad.example", 1.0, "127.0.0.2")], 1.0, "550"),
        ([one("bad.example", 1.0, "127.0.0.4/30")], 1.0, "250"),
        ([one("bad.example", 1.0, "127.0.0.4/30"), one("bad.example", 1.0, "127.0.0.2/31")], 1.0, "550"),
        ([one("hijacked.example")], 1.0, "250"),
        ([one("closed.example")], 1.0, "250"),
        ([one("broken.example"), one("silent.example")], 1.0, "250"),
        ([one("broken.example"), one("silent.example"), one()], 1.0, "550"),
    ],
)
async def test_weights_are_added_and_what_is_no_answer_counts_nothing(
    dns_gate: GateUnderTest, dns_server: DnsServer, entries: list[DnsList], threshold: float, expected: str
) -> None:
    for zone, code in (
        ("bad.example", "127.0.0.2"),
        ("worse.example", "127.0.0.3"),
        ("good.example", "127.0.5.1"),
        ("hijacked.example", "192.0.2.80"),
        ("closed.example", "127.255.255.254"),
    ):
        listed(dns_server, zone, code)
    dns_server.misbehaves["1.0.0.127.broken.example"] = Misbehaviour.SERVFAIL
    dns_server.misbehaves["1.0.0.127.silent.example"] = Misbehaviour.SILENT
    await dns_gate.policy(listener=lists(*entries, threshold=threshold))
    assert (await rcpt(dns_gate)).startswith(expected)


async def test_each_zone_is_asked_once_a_session(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    dns_server.negative_ttl = 0  # nothing is remembered
    await dns_gate.policy(listener=lists(one("bad.example", 1.0, "127.0.0.2"), one("bad.example", 2.0, "127.0.0.3")))
    wire = await dns_gate.session()
    await wire.transaction("a@relay.example", "b@relay.example", "c@relay.example")
    assert dns_server.asked == [("1.0.0.127.bad.example", "A")]


@pytest.mark.parametrize("way", ["entry", "relaying"])
async def test_who_is_known_is_not_looked_up(dns_gate: GateUnderTest, dns_server: DnsServer, way: str) -> None:
    listed(dns_server)
    entries = (AccessEntry(action=AccessAction.ALLOW, who="127.0.0.0/24"),) if way == "entry" else ()
    networks = ("127.0.0.1",) if way == "relaying" else ()
    policy = ListenerPolicy(
        access=ListenerAccess(entries=entries),
        relaying=ListenerRelaying(networks=networks),
        dns_lists=lists(one()).dns_lists,
    )
    await dns_gate.policy(listener=policy)
    assert (await rcpt(dns_gate)).startswith("250 ")
    assert dns_server.asked == []


async def test_an_ipv6_address_is_looked_up_by_its_nibbles(dns_server: DnsServer) -> None:
    nibbles = ".".join(reversed("20010db8000000000000000000000001"))
    dns_server.add(f"{nibbles}.bad.example", "A", "127.0.0.2")
    settings = ListenerDnsLists(lists=(one(),))
    check = DnsListCheck(settings, Resolver(dns_server.servers), AccessList(ListenerAccess()), None)
    assert (await check.connection(Session("2001:db8::1"))) is not None
    assert (await check.connection(Session("2001:db8::2"))) is None


# --- the greeting


async def test_who_talks_before_the_greeting_gets_no_further(dns_gate: GateUnderTest) -> None:
    await dns_gate.policy(listener=ListenerPolicy(greeting=ListenerGreeting(pause_s=30.0)))
    wire = await dns_gate.connect()
    await wire.send(b"EHLO client.example\r\n")
    assert await wire.reply() == "554 5.5.1 you spoke before the greeting"
    assert await wire.is_closed()
    assert (await dns_gate.notice(NoticeKind.CONNECTION_DENIED)).fields["reply"].startswith("554 5.5.1 ")
    await dns_gate.wait_for(lambda: dns_gate.listener.connections == 0)


async def test_who_waits_is_greeted_and_who_leaves_is_gone(dns_gate: GateUnderTest) -> None:
    await dns_gate.policy(listener=ListenerPolicy(greeting=ListenerGreeting(pause_s=0.1)))
    await (await dns_gate.session()).transaction()
    await dns_gate.policy(listener=ListenerPolicy(greeting=ListenerGreeting(pause_s=30.0)))
    wire = await dns_gate.connect()
    wire.writer.close()
    await dns_gate.wait_for(lambda: dns_gate.listener.connections == 1)


async def test_who_is_known_need_not_wait(dns_gate: GateUnderTest) -> None:
    entry = AccessEntry(action=AccessAction.ALLOW, who="127.0.0.1")
    policy = ListenerPolicy(access=ListenerAccess(entries=(entry,)), greeting=ListenerGreeting(pause_s=60.0))
    await dns_gate.policy(listener=policy)
    await (await dns_gate.session()).transaction()


@pytest.mark.parametrize(
    ("switch", "host", "expected"),
    [
        ("hello_syntax", "localhost", "550 5.7.1 your HELO or EHLO names no host"),
        ("hello_syntax", "my_pc.example", "550"),
        ("hello_syntax", "192.0.2.1", "550"),
        ("hello_syntax", "[192.0.2.300]", "550"),
        ("hello_syntax", "[nonsense]", "550"),
        ("hello_syntax", "client.example", "250"),
        ("hello_syntax", "[192.0.2.1]", "250"),
        ("hello_syntax", "[IPv6:2001:db8::1]", "250"),
        ("hello_own", "MX.example", "550 5.7.1 your HELO or EHLO names this host"),
        ("hello_own", "mx.example.org", "250"),
        ("hello_own", "localhost", "250"),
        ("hello_resolves", "host.example", "250"),
        ("hello_resolves", "mail.example", "250"),
        ("hello_resolves", "dead.example", "250"),
        ("hello_resolves", "[192.0.2.1]", "250"),
        ("hello_resolves", "nowhere.example", "550 5.7.1 what your HELO or EHLO names is not in DNS"),
        ("hello_resolves", "[nonsense]", "550"),
    ],
)
async def test_what_a_client_calls_itself(
    dns_gate: GateUnderTest, dns_server: DnsServer, switch: str, host: str, expected: str
) -> None:
    dns_server.add("host.example", "AAAA", "2001:db8::1")
    dns_server.add("mail.example", "MX", "10 host.example.")
    dns_server.misbehaves["dead.example"] = Misbehaviour.SERVFAIL
    for setting, answer in ((Switch.REFUSE, expected), (Switch.OFF, "250")):
        await dns_gate.policy(listener=ListenerPolicy(greeting=ListenerGreeting(**{switch: setting})))
        wire = await dns_gate.connect()
        await wire.reply()
        await wire.expect(f"EHLO {host}", "250 ")
        assert (await wire.say("MAIL FROM:<x@sender.example>")).startswith(answer)


async def test_our_own_address_is_ours_unless_the_client_is_on_this_host(dns_gate: GateUnderTest) -> None:
    await dns_gate.policy(listener=ListenerPolicy(greeting=ListenerGreeting(hello_own=Switch.REFUSE)))
    for source, expected in (("127.0.0.9", "550"), ("127.0.0.1", "250")):
        wire = await dns_gate.connect(source=source)
        await wire.reply()
        await wire.expect("EHLO [127.0.0.1]", "250 ")
        assert (await wire.say("MAIL FROM:<x@sender.example>")).startswith(expected)
    await wire.expect("RSET", "250")
