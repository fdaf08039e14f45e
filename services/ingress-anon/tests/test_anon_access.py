"""Who may connect, over a real socket: by address, by network, by a name that DNS confirms; and what the Received: field says of the name."""

from __future__ import annotations

import email

import pytest

from fixtures.dns_server import DnsServer, Misbehaviour
from fixtures.gates import GateUnderTest
from postern_core.envelope import HostCheck
from postern_core.notices import NoticeKind
from postern_core.policy import AccessAction, AccessEntry, ListenerAccess, ListenerPolicy, ListenerReverseDns, ReverseDns

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
DENIED = "554 5.7.1 no SMTP service"


def allow(who: str) -> AccessEntry:
    return AccessEntry(action=AccessAction.ALLOW, who=who)


def deny(who: str) -> AccessEntry:
    return AccessEntry(action=AccessAction.DENY, who=who)


def access(
    *entries: AccessEntry, otherwise: AccessAction = AccessAction.ALLOW, mode: ReverseDns = ReverseDns.OFF
) -> ListenerPolicy:
    return ListenerPolicy(access=ListenerAccess(entries=entries, otherwise=otherwise), reverse_dns=ListenerReverseDns(mode=mode))


async def first_words(gate: GateUnderTest, source: str = "127.0.0.1") -> str:
    wire = await gate.connect(source=source)
    said = await wire.reply()
    if not said.startswith("220"):
        assert await wire.is_closed()
    return said


async def test_an_address_that_is_denied_gets_554_in_place_of_the_greeting(gate: GateUnderTest) -> None:
    await gate.policy(listener=access(deny("127.0.0.2")))
    assert (await first_words(gate, "127.0.0.2")).startswith(DENIED)
    assert (await first_words(gate, "127.0.0.3")).startswith("220 ")
    notice = await gate.notice(NoticeKind.CONNECTION_DENIED)
    assert (notice.about, notice.fields["reply"]) == ("127.0.0.2", "554 5.7.1 no SMTP service for you here")
    await gate.wait_for(lambda: gate.listener.connections == 1)


async def test_the_first_entry_that_fits_decides(gate: GateUnderTest) -> None:
    entries = (allow("127.0.0.2"), deny("127.0.0.0/29"), allow("127.0.0.0/24"), deny("127.0.0.9"))
    await gate.policy(listener=access(*entries, otherwise=AccessAction.DENY))
    greeted = {source: (await first_words(gate, f"127.0.0.{source}"))[:3] for source in (2, 3, 8, 9)}
    assert greeted == {2: "220", 3: "554", 8: "220", 9: "220"}
    assert (await first_words(gate, "127.0.1.1")).startswith(DENIED)


async def test_the_list_changes_while_connections_come(gate: GateUnderTest) -> None:
    before = await gate.session()
    await gate.policy(listener=access(otherwise=AccessAction.DENY))
    assert (await first_words(gate)).startswith(DENIED)
    assert (await before.message(MESSAGE)).startswith("250")  # who is in stays in
    await gate.policy()
    assert (await first_words(gate)).startswith("220 ")


async def test_nobody_is_looked_up_who_need_not_be(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=access(allow("127.0.0.1"), deny("127.0.0.2"), deny("*.example"), otherwise=AccessAction.DENY))
    assert (await first_words(dns_gate)).startswith("220 ")
    assert (await first_words(dns_gate, "127.0.0.2")).startswith(DENIED)
    assert dns_server.asked == []
    envelope, _ = await dns_gate.stored(await (await dns_gate.session()).message(MESSAGE))
    assert (envelope.client.host, envelope.client.host_check) == ("", None)


async def test_a_name_counts_when_it_leads_back(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    dns_server.host("mail.friend.example", "127.0.0.2")
    dns_server.pointer("127.0.0.3", "forged.friend.example")
    dns_server.add("forged.friend.example", "A", "192.0.2.1")
    dns_server.host("friend.example", "127.0.0.4")
    dns_server.host("bad.friend.example", "127.0.0.5")
    entries = (deny("bad.friend.example"), allow("*.friend.example"))
    await dns_gate.policy(listener=access(*entries, otherwise=AccessAction.DENY))
    answers = {last: (await first_words(dns_gate, f"127.0.0.{last}"))[:9] for last in range(2, 7)}
    assert answers == {2: "220 mx.ex", 3: "554 5.7.1", 4: "554 5.7.1", 5: "554 5.7.1", 6: "554 5.7.1"}
    assert (await dns_gate.notice(NoticeKind.CONNECTION_DENIED)).about == "127.0.0.3"


@pytest.mark.parametrize("misbehaviour", [Misbehaviour.SERVFAIL, Misbehaviour.REFUSED])
async def test_without_an_answer_of_dns_nobody_is_turned_away_for_good(
    dns_gate: GateUnderTest, dns_server: DnsServer, misbehaviour: Misbehaviour
) -> None:
    dns_server.misbehaves["2.0.0.127.in-addr.arpa"] = misbehaviour
    await dns_gate.policy(listener=access(allow("mail.friend.example"), otherwise=AccessAction.DENY))
    assert (await first_words(dns_gate, "127.0.0.2")).startswith("421 4.7.25")
    await dns_gate.policy(listener=access(deny("mail.foe.example")))
    assert (await first_words(dns_gate, "127.0.0.2")).startswith("220 ")
    await dns_gate.policy(listener=access(deny("mail.foe.example"), otherwise=AccessAction.DENY))
    assert (await first_words(dns_gate, "127.0.0.2")).startswith(DENIED)


async def test_an_honest_field_shows_each_of_the_three_outcomes(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    dns_server.host("one.example", "127.0.0.1")
    dns_server.misbehaves["3.0.0.127.in-addr.arpa"] = Misbehaviour.SERVFAIL
    await dns_gate.policy(listener=access(mode=ReverseDns.STAMP))
    fields, checks = [], []
    for last in (1, 2, 3):
        wire = await (await dns_gate.connect(source=f"127.0.0.{last}")).greeted()
        envelope, body = await dns_gate.stored(await wire.message(MESSAGE))
        fields.append(email.message_from_bytes(body)["Received"].split("\n")[0].strip())
        checks.append((envelope.client.host_check, envelope.client.host))
    assert fields == [
        "from client.example (one.example [127.0.0.1])",
        "from client.example ([127.0.0.2]) (unverified)",
        "from client.example ([127.0.0.3]) (RDNS failed)",
    ]
    assert checks == [(HostCheck.VERIFIED, "one.example"), (HostCheck.UNVERIFIED, ""), (HostCheck.FAILED, "")]


async def test_the_name_that_the_client_says_is_shown_when_it_is_one_of_several(
    dns_gate: GateUnderTest, dns_server: DnsServer
) -> None:
    dns_server.pointer("127.0.0.1", "a.example", "client.example")
    dns_server.add("a.example", "A", "127.0.0.1")
    dns_server.add("client.example", "A", "127.0.0.1")
    await dns_gate.policy(listener=access(mode=ReverseDns.STAMP))
    envelope, _ = await dns_gate.stored(await (await dns_gate.session()).message(MESSAGE))
    assert envelope.client.host == "client.example"


async def test_a_client_without_a_verified_name_is_refused_where_that_is_wanted(
    dns_gate: GateUnderTest, dns_server: DnsServer
) -> None:
    dns_server.host("one.example", "127.0.0.1")
    dns_server.misbehaves["3.0.0.127.in-addr.arpa"] = Misbehaviour.SERVFAIL
    await dns_gate.policy(listener=access(mode=ReverseDns.REFUSE))
    assert (await first_words(dns_gate)).startswith("220 ")
    assert (await first_words(dns_gate, "127.0.0.2")).startswith("554 5.7.25")
    assert (await first_words(dns_gate, "127.0.0.3")).startswith("421 4.7.25")


async def test_dns_that_says_nothing_holds_nobody_for_long(
    dns_gate: GateUnderTest, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_smtp.reverse_dns.verify_client_name.__kwdefaults__", {"within_s": 0.2})
    dns_server.misbehaves["1.0.0.127.in-addr.arpa"] = Misbehaviour.SILENT
    await dns_gate.policy(listener=access(mode=ReverseDns.STAMP))
    envelope, _ = await dns_gate.stored(await (await dns_gate.session()).message(MESSAGE))
    assert envelope.client.host_check is HostCheck.FAILED


async def test_a_client_that_leaves_while_dns_is_asked_is_counted_out(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    dns_server.misbehaves["1.0.0.127.in-addr.arpa"] = Misbehaviour.SILENT
    await dns_gate.policy(listener=access(mode=ReverseDns.STAMP))
    wire = await dns_gate.connect()
    await dns_gate.wait_for(lambda: ("1.0.0.127.in-addr.arpa", "PTR") in dns_server.asked)
    wire.writer.transport.abort()
    await dns_gate.wait_for(lambda: dns_gate.listener.connections == 0)


async def test_a_network_may_have_so_many_connections(gate: GateUnderTest) -> None:
    await gate.policy(max_connections_per_network=3, max_connections_per_client=2)
    kept = [await gate.connect(source=source) for source in ("127.0.0.1", "127.0.0.2", "127.0.0.2")]
    assert [(await wire.reply())[:3] for wire in kept] == ["220"] * 3
    assert (await first_words(gate, "127.0.0.2")).startswith("421 4.7.0 too many connections from your address")
    assert (await first_words(gate, "127.0.0.3")).startswith("421 4.7.0 too many connections from your network")
    assert (await first_words(gate, "127.0.1.1")).startswith("220 ")
    kept[0].writer.close()
    await gate.wait_for(lambda: gate.listener._crowd.of_network("127.0.0.9") == 2)
    assert (await first_words(gate, "127.0.0.3")).startswith("220 ")


async def test_a_command_that_comes_octet_by_octet_ends_in_time(gate: GateUnderTest) -> None:
    await gate.policy(command_timeout_s=0.5)
    wire = await gate.session()
    await wire.send(b"NO")
    assert (await wire.reply()).startswith("421 4.4.2 timed out")
    assert await wire.is_closed()


async def test_the_time_of_a_command_does_not_begin_anew_with_each_octet(gate: GateUnderTest) -> None:
    await gate.policy(command_timeout_s=0.5, idle_timeout_s=60)
    wire = await gate.session()
    connection = next(iter(gate.listener._connections))
    await wire.send(b"N")
    await gate.wait_for(lambda: connection._line_clock is not None)
    clock = connection._line_clock
    for octet in b"OOP":
        await wire.send(bytes([octet]))
    assert connection._line_clock is clock
    await wire.send(b"\r\n")
    assert (await wire.reply()).startswith("250 2.0.0")
    assert clock.cancelled()
    assert connection._line_clock is None


async def test_data_that_stops_ends_in_its_own_time(gate: GateUnderTest) -> None:
    await gate.policy(data_block_timeout_s=0.5, idle_timeout_s=60, command_timeout_s=60)
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: and then nothing")
    assert (await wire.reply()).startswith("421 4.4.2 timed out")
    assert await wire.is_closed()
    assert await gate.intake_count() == 0
