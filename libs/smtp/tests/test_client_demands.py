"""Messages that not every next hop can have: SMTPUTF8 (RFC 6531) and REQUIRETLS (RFC 8689), over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fixtures.smart_host import DEFAULT_OFFER, SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, Route, RouteTls
from postern_smtp import client_opening
from postern_smtp.client import ClientOptions, ConnectionFailed, SmtpClient, Transaction
from postern_smtp.connection_pool import ConnectionPool, Outcomes

UTF8 = DEFAULT_OFFER | {"SMTPUTF8"}
TLS = DEFAULT_OFFER | {"STARTTLS"}
REQUIRETLS = TLS | {"REQUIRETLS"}
ASCII_BODY = b"Subject: x\r\n\r\nx\r\n"
UTF8_BODY = "Subject: Grüße\r\n\r\nx\r\n".encode()


def message(
    *to: str,
    sender: str = "me@sender.example",
    body: bytes = ASCII_BODY,
    smtputf8: bool = True,
    requiretls: bool = False,
    orcpt: str = "",
) -> Transaction:
    recipients = tuple(Recipient(n=n, address=address, orcpt=orcpt) for n, address in enumerate(to or ("a@relay.example",)))
    return Transaction(sender, recipients, body, BodyType.EIGHT_BIT_MIME, smtputf8=smtputf8, requiretls=requiretls)


@asynccontextmanager
async def sinks(*offers: frozenset[str]) -> AsyncIterator[list[SmartHost]]:
    # names of their own: OpenSSL finds an authority by its name
    hosts = [SmartHost(offer=offer, names=(f"sink{n}.example", "localhost")) for n, offer in enumerate(offers)]
    for host in hosts:
        await host.start()
    try:
        yield hosts
    finally:
        for host in hosts:
            await host.stop()
            assert host.violations == []


@asynccontextmanager
async def pool_of(*hosts: SmartHost, tls: RouteTls = RouteTls.OFF, **route: int) -> AsyncIterator[ConnectionPool]:
    async def options() -> ClientOptions:
        return ClientOptions(helo_name="relay.example", tls=tls, connect_timeout_s=5, command_timeout_s=5, data_timeout_s=5)

    hops = tuple(NextHop(host="localhost", port=host.port) for host in hosts)
    pool = ConnectionPool(Route(name="test", next_hops=hops, **route), options, idle_s=60)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()
        assert (pool.in_use, pool.idle) == (0, 0)


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., None]]:
    """Call it with the hosts whose certificates are to be trusted."""

    def trusting(*hosts: SmartHost) -> None:
        authorities = tmp_path / "ca.pem"
        authorities.write_bytes(b"".join(host.certificate for host in hosts))
        monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
        client_opening._tls_context.cache_clear()

    client_opening._tls_context.cache_clear()
    yield trusting
    client_opening._tls_context.cache_clear()


def said(outcomes: Outcomes) -> list[tuple[int, str]]:
    return [(outcome.reply.code, outcome.reply.status) for outcome in outcomes]


DELIVERED = (250, "2.0.0")


async def test_a_peer_with_smtputf8_gets_all_of_it() -> None:
    async with sinks(UTF8) as [host], pool_of(host) as pool:
        sent = message(
            "用户@relay.example", "b@relay.example", sender="jösé@xn--bcher-kva.example", body=UTF8_BODY, orcpt="utf-8;ä@x"
        )
        assert said((await pool.send(sent))[1]) == [DELIVERED] * 2
        [got] = host.messages
        assert (got.reverse_path, got.recipients) == ("jösé@xn--bcher-kva.example", ("用户@relay.example", "b@relay.example"))
        assert got.mail_parameters.split()[1:] == ["BODY=8BITMIME", "SMTPUTF8"]
        assert got.rcpt_parameters == ("ORCPT=utf-8;ä@x",) * 2
        assert got.data == UTF8_BODY


async def test_an_ordinary_message_says_nothing_of_it() -> None:
    async with sinks(UTF8) as [host], pool_of(host) as pool:
        await pool.send(message(smtputf8=False))
        assert "SMTPUTF8" not in host.messages[0].mail_parameters
        await pool.send(message("ä@relay.example", smtputf8=False))  # from a program that did not know the flag
        assert "SMTPUTF8" in host.messages[1].mail_parameters


@pytest.mark.parametrize("offer", [DEFAULT_OFFER, UTF8 - {"8BITMIME"}], ids=["no SMTPUTF8", "no 8BITMIME"])
async def test_without_smtputf8_what_is_ascii_goes_and_the_rest_comes_back(offer: frozenset[str]) -> None:
    async with sinks(offer) as [host], pool_of(host) as pool:
        sent = message("a@xn--bcher-kva.example", "ä@relay.example", "c@relay.example", orcpt="utf-8;ä+@x")
        assert said((await pool.send(sent))[1]) == [DELIVERED, (553, "5.6.7"), DELIVERED]
        assert host.messages[0].recipients == ("a@xn--bcher-kva.example", "c@relay.example")
        assert "SMTPUTF8" not in host.messages[0].mail_parameters
        assert host.messages[0].rcpt_parameters == ("ORCPT=utf-8;\\x{E4}+@x",) * 2
        assert said((await pool.send(message("ä@relay.example")))[1]) == [(553, "5.6.7")]
        assert said((await pool.send(message(sender="ä@x.example")))[1]) == [(553, "5.6.7")]
        assert said((await pool.send(message(body=UTF8_BODY)))[1]) == [(554, "5.6.9")]
        assert said((await pool.send(message(body=b"Subject: Gr\xfc\r\n")))[1]) == [(554, "5.6.9")]
        assert said((await pool.send(message(body="\r\nkein Kopf: ä\r\n".encode())))[1]) == [DELIVERED]
        assert said((await pool.send(message(body=b"Subject: x\r\n\r\n" + "Grüße\r\n".encode())))[1]) == [DELIVERED]
        assert len(host.messages) == 3


async def test_other_next_hops_are_asked_before_it_comes_back() -> None:
    async with sinks(DEFAULT_OFFER, UTF8) as [without, able], pool_of(without, able) as pool:
        next_hop, outcomes = await pool.send(message("ä@relay.example", "b@relay.example"))
        assert (next_hop.port, said(outcomes)) == (able.port, [DELIVERED] * 2)
        assert without.messages == []
        next_hop, _ = await pool.send(message(smtputf8=False))  # what is kept serves everybody
        assert next_hop.port == able.port
        await pool.send(message("ü@relay.example"))
        assert len(able.messages) == 3
        assert able.connections == 1


async def test_a_kept_connection_that_lacks_it_is_left_to_others() -> None:
    async with sinks(DEFAULT_OFFER, UTF8) as [without, able], pool_of(without, able, max_connections=1) as pool:
        await pool.send(message(smtputf8=False))
        assert pool.idle == 1
        assert (await pool.send(message("ä@relay.example")))[0].port == able.port
        assert (pool.in_use, pool.idle) == (0, 1)
        assert (len(without.messages), len(able.messages)) == (1, 1)


@pytest.mark.parametrize("able_first", [True, False])
async def test_while_a_next_hop_cannot_be_asked_nothing_is_decided(able_first: bool) -> None:
    async with sinks(DEFAULT_OFFER, UTF8) as [without, able]:
        await able.stop()
        hosts = (able, without) if able_first else (without, able)
        async with pool_of(*hosts) as pool:
            with pytest.raises(ConnectionFailed) as failed:
                await pool.send(message("ä@relay.example"))
            assert failed.value.next_hop is not None
            assert failed.value.next_hop.port == able.port
            await able.start()
            pool.try_again()
            assert said((await pool.send(message("ä@relay.example")))[1]) == [DELIVERED]


async def test_a_busy_next_hop_that_could_is_not_overruled_by_one_that_cannot() -> None:
    async with sinks(UTF8, DEFAULT_OFFER) as [able, without], pool_of(able, without) as pool:
        able.reply_to("MAIL", "421 4.3.2 busy", times=1)
        with pytest.raises(ConnectionFailed, match="busy"):
            await pool.send(message("ä@relay.example"))
        assert said((await pool.send(message("ä@relay.example")))[1]) == [DELIVERED]


# -- REQUIRETLS


async def test_requiretls_goes_over_verified_tls_whatever_the_route_says(trust: Callable[..., None]) -> None:
    async with sinks(REQUIRETLS) as [host]:
        trust(host)
        for tls in RouteTls:
            async with pool_of(host, tls=tls) as pool:
                assert said((await pool.send(message(requiretls=True, smtputf8=False)))[1]) == [DELIVERED]
                assert host.messages[-1].tls == "TLSv1.3"
                assert host.messages[-1].mail_parameters.split()[-1] == "REQUIRETLS"
                await pool.send(message(smtputf8=False))
                assert "REQUIRETLS" not in host.messages[-1].mail_parameters


@pytest.mark.parametrize("tls", list(RouteTls))
@pytest.mark.parametrize(
    ("offer", "trusted", "refusal"),
    [
        (TLS, True, (550, "5.7.30")),
        (REQUIRETLS, False, (550, "5.7.10")),
        (DEFAULT_OFFER, True, (550, "5.7.10")),
        (DEFAULT_OFFER | {"REQUIRETLS"}, True, (550, "5.7.10")),
    ],
    ids=["no REQUIRETLS", "no valid certificate", "no TLS", "REQUIRETLS in the clear"],
)
async def test_less_than_requiretls_never_gets_the_message(
    trust: Callable[..., None], tls: RouteTls, offer: frozenset[str], trusted: bool, refusal: tuple[int, str]
) -> None:
    async with sinks(offer) as [host]:
        if trusted:
            trust(host)
        async with pool_of(host, tls=tls) as pool:
            sent = message(requiretls=True, smtputf8=False)
            assert said((await pool.send(sent))[1]) == [refusal]
        assert host.messages == []
        assert not any(command.startswith("MAIL") for command in host.commands)


async def test_a_session_of_the_route_that_was_not_verified_does_not_do(trust: Callable[..., None]) -> None:
    async with sinks(REQUIRETLS) as [host]:
        async with pool_of(host, tls=RouteTls.OPPORTUNISTIC) as pool:
            await pool.send(message(smtputf8=False))
            trust(host)
            assert said((await pool.send(message(requiretls=True, smtputf8=False)))[1]) == [DELIVERED]
            assert [got.session for got in host.messages] == [1, 2]
        options = ClientOptions(helo_name="relay.example", tls=RouteTls.REQUIRED)
        client = await SmtpClient.connect(NextHop(host="localhost", port=host.port), options)
        assert said(await client.send(message(requiretls=True))) == [(550, "5.7.10")]
        await client.quit()


async def test_every_next_hop_is_tried_for_requiretls(trust: Callable[..., None]) -> None:
    async with sinks(DEFAULT_OFFER, TLS, REQUIRETLS) as hosts:
        trust(*hosts)
        async with pool_of(*hosts, tls=RouteTls.OPPORTUNISTIC) as pool:
            assert (await pool.send(message(requiretls=True)))[0].port == hosts[2].port
        async with pool_of(*hosts[:2]) as pool:
            assert said((await pool.send(message(requiretls=True)))[1]) == [(550, "5.7.30")]
        async with pool_of(hosts[1], hosts[0]) as pool:
            assert said((await pool.send(message(requiretls=True)))[1]) == [(550, "5.7.10")]
        await hosts[2].stop()
        for order in (hosts, hosts[::-1]):
            async with pool_of(*order) as pool:
                with pytest.raises(ConnectionFailed) as failed:
                    await pool.send(message(requiretls=True))
                assert not failed.value.insecure
                assert failed.value.next_hop is not None
                assert failed.value.next_hop.port == hosts[2].port


async def test_a_handshake_that_breaks_off_may_succeed_next_time(trust: Callable[..., None]) -> None:
    async with sinks(REQUIRETLS) as [host]:
        trust(host)
        async with pool_of(host) as pool:
            host.hang_up(during="STARTTLS", times=1)
            with pytest.raises(ConnectionFailed):
                await pool.send(message(requiretls=True))
            host.reply_to("STARTTLS", "454 4.7.0 not now", times=1)
            with pytest.raises(ConnectionFailed):
                await pool.send(message(requiretls=True))
            assert said((await pool.send(message(requiretls=True)))[1]) == [DELIVERED]


async def test_a_report_is_not_lost_for_want_of_requiretls(trust: Callable[..., None]) -> None:
    async with sinks(DEFAULT_OFFER, REQUIRETLS) as [without, able]:
        trust(able)
        async with pool_of(without, able, tls=RouteTls.OPPORTUNISTIC) as pool:
            assert (await pool.send(message(sender="", requiretls=True)))[0].port == able.port
            assert "REQUIRETLS" in able.messages[0].mail_parameters
        async with pool_of(without, tls=RouteTls.OPPORTUNISTIC) as pool:
            assert said((await pool.send(message(sender="", requiretls=True)))[1]) == [DELIVERED]
            assert "REQUIRETLS" not in without.messages[0].mail_parameters
        able.hang_up(during="STARTTLS")
        async with pool_of(able, tls=RouteTls.OPPORTUNISTIC) as pool:
            assert said((await pool.send(message(sender="", requiretls=True)))[1]) == [DELIVERED]
