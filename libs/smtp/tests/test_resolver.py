"""What a gate asks DNS, against a real server on loopback: found, none and failed are told apart, in time, and are remembered."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.dns_server import DnsServer, Misbehaviour
from postern_smtp.resolver import MailExchanger, Outcome, Resolver, host_name, parse_dns_servers, reverse_name


@pytest.fixture
def resolver(dns_server: DnsServer) -> Resolver:
    return Resolver(dns_server.servers, lookup_s=10)


async def test_each_type_comes_as_what_it_is(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.add("mx.example", "A", "192.0.2.1", "192.0.2.2")
    dns_server.add("mx.example", "AAAA", "2001:db8::1")
    dns_server.add("example", "MX", "20 second.example.", "10 First.Example.")
    dns_server.add("null.example", "MX", "0 .")
    dns_server.add("example", "TXT", '"v=spf1 " "-all"')
    dns_server.pointer("2001:db8::1", "MX.example")
    assert set((await resolver.addresses("MX.example.")).values) == {
        IPv4Address("192.0.2.1"),
        IPv4Address("192.0.2.2"),
        IPv6Address("2001:db8::1"),
    }
    assert (await resolver.mail_exchangers("example")).values == (
        MailExchanger(10, "first.example"),
        MailExchanger(20, "second.example"),
    )
    assert (await resolver.mail_exchangers("null.example")).values == (MailExchanger(0, ""),)
    assert (await resolver.texts("example")).values == (b"v=spf1 -all",)
    assert (await resolver.pointers("2001:db8::1")).values == ("mx.example",)


async def test_what_is_not_there_is_none(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.add("here.example", "A", "192.0.2.1")
    no_data, no_name = await resolver.texts("here.example"), await resolver.ipv4("nowhere.example")
    assert (no_data.outcome, no_data.name_exists) == (Outcome.NONE, True)
    assert (no_name.outcome, no_name.name_exists) == (Outcome.NONE, False)
    assert (await resolver.addresses("here.example")).outcome is Outcome.FOUND


@pytest.mark.parametrize("name", ["", "a..example", "x" * 64 + ".example", "ä.example", ".".join(["label"] * 60)])
async def test_what_cannot_be_a_name_is_none_and_is_not_asked(dns_server: DnsServer, resolver: Resolver, name: str) -> None:
    assert (await resolver.ipv4(name)).outcome is Outcome.NONE
    assert dns_server.asked == []


@pytest.mark.parametrize("misbehaviour", [Misbehaviour.SILENT, Misbehaviour.SERVFAIL, Misbehaviour.REFUSED, Misbehaviour.GARBAGE])
async def test_who_gets_no_answer_does_not_know(dns_server: DnsServer, misbehaviour: Misbehaviour) -> None:
    resolver = Resolver(dns_server.servers, lookup_s=0.3)
    dns_server.add("broken.example", "A", "192.0.2.1")
    dns_server.misbehaves["broken.example"] = misbehaviour
    answer = await resolver.ipv4("broken.example")
    assert (answer.outcome, answer.values) == (Outcome.FAILED, ())
    assert answer.reason
    assert (await resolver.addresses("broken.example")).outcome is Outcome.FAILED


async def test_a_server_that_is_not_there_is_not_waited_for_twice(dns_server: DnsServer) -> None:
    dns_server.misbehaves["slow.example"] = Misbehaviour.SILENT
    resolver = Resolver(dns_server.servers, lookup_s=0.2)
    assert (await resolver.ipv4("slow.example")).outcome is Outcome.FAILED
    asked = len(dns_server.asked)
    assert (await resolver.ipv4("slow.example")).outcome is Outcome.FAILED
    assert len(dns_server.asked) == asked


async def test_the_second_server_is_asked_when_the_first_does_not_know(dns_server: DnsServer) -> None:
    with DnsServer() as other:
        other.add("host.example", "A", "192.0.2.7")
        dns_server.misbehaves["host.example"] = Misbehaviour.SERVFAIL
        resolver = Resolver((*dns_server.servers, *other.servers), lookup_s=10)
        assert (await resolver.ipv4("host.example")).values == (IPv4Address("192.0.2.7"),)


async def test_a_slow_answer_is_an_answer(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.add("slow.example", "A", "192.0.2.1")
    dns_server.delays_s["slow.example"] = 0.3
    assert (await resolver.ipv4("slow.example")).outcome is Outcome.FOUND


async def test_a_large_answer_comes_by_tcp(dns_server: DnsServer, resolver: Resolver) -> None:
    text = "x" * 200
    dns_server.add("large.example", "TXT", *(f'"{number}{text}"' for number in range(10)))
    dns_server.add("cut.example", "A", "192.0.2.1")
    dns_server.misbehaves["cut.example"] = Misbehaviour.TRUNCATED
    assert len((await resolver.texts("large.example")).values) == 10
    assert (await resolver.ipv4("cut.example")).outcome is Outcome.FOUND


async def test_answers_are_remembered_for_their_time_and_no_longer(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.add("kept.example", "A", "192.0.2.1", ttl=600)
    dns_server.add("fresh.example", "A", "192.0.2.1", ttl=0)
    for _ in range(3):
        await resolver.ipv4("kept.example")
        await resolver.ipv4("KEPT.example.")
        await resolver.ipv4("fresh.example")
        await resolver.ipv4("nowhere.example")
    assert dns_server.asked.count(("kept.example", "A")) == 1
    assert dns_server.asked.count(("nowhere.example", "A")) == 1
    assert dns_server.asked.count(("fresh.example", "A")) == 3


async def test_what_is_remembered_is_bounded(dns_server: DnsServer) -> None:
    resolver = Resolver(dns_server.servers, lookup_s=10, max_entries=3)
    for number in range(5):
        await resolver.ipv4(f"{number}.example")
    assert len(resolver._remembered) == 3
    await resolver.ipv4("4.example")
    await resolver.ipv4("0.example")
    assert dns_server.asked.count(("4.example", "A")) == 1
    assert dns_server.asked.count(("0.example", "A")) == 2


async def test_one_that_gives_up_leaves_nothing_behind(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.misbehaves["slow.example"] = Misbehaviour.SILENT
    asking = asyncio.create_task(resolver.ipv4("slow.example"))
    await asyncio.to_thread(dns_server.wait_asked, "slow.example", "A")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del dns_server.misbehaves["slow.example"]
    dns_server.add("slow.example", "A", "192.0.2.1")
    assert (await resolver.ipv4("slow.example")).outcome is Outcome.FOUND


async def test_a_name_with_escapes_in_it_is_not_believed(dns_server: DnsServer, resolver: Resolver) -> None:
    dns_server.add("9.2.0.192.in-addr.arpa", "PTR", r"evil\032name.example.", "good.example.")
    dns_server.add("example", "MX", r"10 a\(b.example.", "20 mx.example.")
    assert (await resolver.pointers("192.0.2.9")).values == ("good.example",)
    assert (await resolver.mail_exchangers("example")).values == (MailExchanger(20, "mx.example"),)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("::ffff:192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("2001:db8::1", "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
def test_an_address_is_asked_for_backwards(address: str, name: str) -> None:
    assert reverse_name(address) == name
    assert reverse_name(address, "list.example") == name.rsplit(".", 2)[0] + ".list.example"


def test_servers_are_addresses_with_a_port_or_without() -> None:
    assert parse_dns_servers("") == ()
    assert parse_dns_servers("192.0.2.1, 192.0.2.2:5353,2001:db8::1, [2001:db8::2]:5353,[2001:db8::3]") == (
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::2", 5353),
        ("2001:db8::3", 53),
    )


@pytest.mark.parametrize(
    "text", ["ns.example", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:", "[2001:db8::1", "192.0.2", "192.0.2.1:x"]
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|address"):
        parse_dns_servers(text)


@given(st.text(max_size=80))
def test_a_host_name_holds_nothing_that_needs_quoting(text: str) -> None:
    name = host_name(text)
    assert name is None or (set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") and len(name) <= 253)


@given(st.ip_addresses())
def test_backwards_and_forwards_is_the_same(address: IPv4Address | IPv6Address) -> None:
    labels = reverse_name(str(address)).split(".")
    if labels[-2] == "in-addr":
        assert ip_address(".".join(labels[3::-1])) == (getattr(address, "ipv4_mapped", None) or address)
