"""Kept connections: how many, how long, what happens when one dies, and that nobody who is cancelled leaves anything behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from fixtures.smart_host import SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, Route, RouteTls
from postern_smtp.client import ClientOptions, ConnectionFailed, ConnectionLost, Transaction
from postern_smtp.connection_pool import ConnectionPool

NOWHERE = NextHop(host="127.0.0.1", port=1)


def hop(host: SmartHost) -> NextHop:
    return NextHop(host=host.host, port=host.port)


async def options() -> ClientOptions:
    return ClientOptions(
        helo_name="relay.example", tls=RouteTls.OFF, connect_timeout_s=5.0, command_timeout_s=5.0, data_timeout_s=5.0
    )


def message(*to: str) -> Transaction:
    recipients = tuple(Recipient(n=n, address=address) for n, address in enumerate(to or ("a@relay.example",)))
    return Transaction("sender@example.org", recipients, b"Subject: x\r\n\r\nx\r\n", BodyType.SEVEN_BIT)


@asynccontextmanager
async def pool_for(*next_hops: NextHop, idle_s: float = 60.0, **route: object) -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(Route(name="test", next_hops=next_hops, **route), options, idle_s=idle_s)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()
        assert (pool.in_use, pool.idle) == (0, 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def until_closed(host: SmartHost) -> None:
    await until(lambda: host.open_connections == 0)


async def test_one_connection_carries_one_message_after_another(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host)) as pool:
        for _ in range(5):
            next_hop, outcomes = await pool.send(message())
            assert next_hop == hop(smart_host)
            assert [o.reply.code for o in outcomes] == [250]
        assert (pool.in_use, pool.idle) == (0, 1)
    assert (smart_host.connections, len(smart_host.messages)) == (1, 5)
    assert smart_host.commands[-1] == "QUIT"


async def test_a_connection_is_used_up_after_so_many_messages(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host), max_messages_per_connection=2, max_connections=1) as pool:
        for _ in range(5):
            await pool.send(message())
    assert [m.session for m in smart_host.messages] == [1, 1, 2, 2, 3]
    assert smart_host.commands.count("QUIT") == 3
    assert smart_host.most_connections == 1


@pytest.mark.parametrize("limit", [1, 3])
async def test_never_more_connections_than_allowed(smart_host: SmartHost, limit: int) -> None:
    smart_host.slow(0.001)
    async with pool_for(hop(smart_host), max_connections=limit, max_messages_per_connection=4, idle_s=0.001) as pool:
        await asyncio.gather(*(pool.send(message()) for _ in range(40)))
    assert len(smart_host.messages) == 40
    assert smart_host.most_connections <= limit


async def test_the_limit_counts_over_all_next_hops(smart_host: SmartHost) -> None:
    second = SmartHost()
    await second.start()
    smart_host.reply_to("CONNECT", "421 4.3.2 busy", times=2)
    async with pool_for(hop(smart_host), hop(second), max_connections=4) as pool:
        await asyncio.gather(*(pool.send(message()) for _ in range(20)))
        assert pool.idle <= 4
    assert len(smart_host.messages) + len(second.messages) == 20
    await second.stop()


async def test_idle_connections_are_closed(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host), idle_s=0.02) as pool:
        await asyncio.gather(*(pool.send(message()) for _ in range(3)))
        await until(lambda: (pool.in_use, pool.idle) == (0, 0))
        await until_closed(smart_host)
        await pool.send(message())
    assert smart_host.commands.count("QUIT") == smart_host.connections


async def test_recipients_over_the_limit_go_in_further_transactions(smart_host: SmartHost) -> None:
    smart_host.refuse_rcpt("r3@relay.example")
    names = [f"r{n}@relay.example" for n in range(7)]
    async with pool_for(hop(smart_host), max_recipients=3) as pool:
        _, outcomes = await pool.send(message(*names))
    assert [o.recipient.address for o in outcomes] == names
    assert [o.reply.code for o in outcomes] == [250, 250, 250, 550, 250, 250, 250]
    assert [len(m.recipients) for m in smart_host.messages] == [3, 2, 1]
    assert smart_host.connections == 1


async def test_what_the_first_transaction_settled_survives_the_loss_of_the_second(smart_host: SmartHost) -> None:
    smart_host.reply_to("END-OF-DATA", "250 2.0.0 ok", times=1)
    smart_host.hang_up(during="END-OF-DATA", times=1)
    async with pool_for(hop(smart_host), max_recipients=1) as pool:
        with pytest.raises(ConnectionLost) as lost:
            await pool.send(message("a@relay.example", "b@relay.example", "c@relay.example"))
    assert [(o.recipient.address, o.reply.code) for o in lost.value.outcomes] == [("a@relay.example", 250)]
    assert [r.address for r in lost.value.in_doubt] == ["b@relay.example"]
    assert lost.value.next_hop == hop(smart_host)


async def test_no_further_connection_is_a_loss_too_once_something_was_sent(smart_host: SmartHost) -> None:
    smart_host.reply_to("END-OF-DATA", "250 2.0.0 ok", times=1)
    smart_host.reply_to("CONNECT", "220 hi", times=1)
    smart_host.reply_to("CONNECT", "554 5.3.2 no more")
    async with pool_for(hop(smart_host), max_recipients=1, max_messages_per_connection=1, max_connections=1) as pool:
        with pytest.raises(ConnectionLost) as lost:
            await pool.send(message("a@relay.example", "b@relay.example"))
    assert (lost.value.stage, lost.value.in_doubt) == ("connect", ())
    assert [o.recipient.address for o in lost.value.outcomes] == ["a@relay.example"]


# -- next hops


async def test_the_next_host_takes_over_in_order(smart_host: SmartHost) -> None:
    last = SmartHost()
    await last.start()
    async with pool_for(NOWHERE, hop(smart_host), hop(last)) as pool:
        assert (await pool.send(message()))[0] == hop(smart_host)
    await smart_host.stop()
    async with pool_for(NOWHERE, hop(smart_host), hop(last)) as pool:
        assert (await pool.send(message()))[0] == hop(last)
        await smart_host.start()
        assert (await pool.send(message()))[0] == hop(last)  # over the connection that stands
    async with pool_for(NOWHERE, hop(smart_host), hop(last)) as pool:
        assert (await pool.send(message()))[0] == hop(smart_host)
    await last.stop()


async def test_when_no_host_is_left_the_last_failure_is_told(smart_host: SmartHost) -> None:
    smart_host.reply_to("CONNECT", "554 5.3.2 no service")
    async with pool_for(NOWHERE, hop(smart_host)) as pool:
        with pytest.raises(ConnectionFailed) as failed:
            await pool.send(message())
        assert (pool.in_use, pool.idle) == (0, 0)
    assert failed.value.next_hop == hop(smart_host)
    assert failed.value.reply is not None
    assert failed.value.reply.status == "5.3.2"


async def test_a_host_that_answers_too_late_goes_last_for_a_while(smart_host: SmartHost) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        await reader.read()
        writer.close()

    async def impatient() -> ClientOptions:
        return ClientOptions(helo_name="relay.example", tls=RouteTls.OFF, command_timeout_s=1.05)

    visits = 0
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    slow = NextHop(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    route = Route(name="test", next_hops=(slow, hop(smart_host)), max_messages_per_connection=1)
    pool = ConnectionPool(route, impatient)
    for _ in range(3):
        assert (await pool.send(message()))[0] == hop(smart_host)
    await pool.close()
    server.close()
    assert visits == 1


@pytest.mark.parametrize("misfortune", ["421", "hang up"])
async def test_a_new_session_that_ends_before_anything_was_accepted_is_left_for_the_next_host(
    smart_host: SmartHost, misfortune: str
) -> None:
    last = SmartHost()
    await last.start()
    if misfortune == "421":
        smart_host.reply_to("MAIL", "421 4.3.2 shutting down")
    else:
        smart_host.hang_up(during="MAIL")
    async with pool_for(hop(smart_host), hop(last)) as pool:
        next_hop, outcomes = await pool.send(message())
        assert (next_hop, [o.reply.code for o in outcomes]) == (hop(last), [250])
        assert (pool.in_use, pool.idle) == (0, 1)
    await last.stop()
    # and where no host is left, the last one's failure is told
    async with pool_for(hop(smart_host), hop(last)) as pool:
        with pytest.raises(ConnectionFailed) as failed:
            await pool.send(message())
    assert failed.value.next_hop == hop(last)


async def test_a_session_that_ends_after_a_recipient_was_accepted_is_not_begun_again_elsewhere(smart_host: SmartHost) -> None:
    smart_host.hang_up(during="END-OF-DATA")
    last = SmartHost()
    await last.start()
    async with pool_for(hop(smart_host), hop(last)) as pool:
        with pytest.raises(ConnectionLost):
            await pool.send(message())
    assert last.connections == 0
    await last.stop()


# -- connections that died while they were kept


async def test_a_kept_connection_that_the_peer_closed_is_replaced(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host)) as pool:
        await pool.send(message())
        await smart_host.stop()
        await smart_host.start()
        assert [o.reply.code for o in (await pool.send(message()))[1]] == [250]
    assert (smart_host.connections, len(smart_host.messages)) == (2, 2)


@pytest.mark.parametrize("offer", [{"PIPELINING"}, set()])
async def test_a_kept_connection_that_dies_at_mail_is_replaced(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    async with pool_for(hop(smart_host)) as pool:
        await pool.send(message())
        smart_host.hang_up(during="MAIL", times=1)
        await pool.send(message())
        smart_host.reply_to("MAIL", "421 4.7.0 too many messages", times=1)
        await pool.send(message())
    assert (smart_host.connections, len(smart_host.messages)) == (3, 3)


async def test_a_new_connection_that_answers_421_is_an_outcome_and_not_tried_again(smart_host: SmartHost) -> None:
    smart_host.reply_to("MAIL", "421 4.3.2 closing")
    async with pool_for(hop(smart_host)) as pool:
        _, outcomes = await pool.send(message())
    assert [(o.reply.code, o.stage) for o in outcomes] == [(421, "mail")]
    assert smart_host.connections == 1


async def test_a_message_whose_fate_is_unknown_is_never_sent_again_by_itself(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host)) as pool:
        await pool.send(message())
        smart_host.hang_up(during="END-OF-DATA", times=1)
        with pytest.raises(ConnectionLost) as lost:
            await pool.send(message())
    assert lost.value.stage == "end-of-data"
    assert lost.value.next_hop == hop(smart_host)
    assert smart_host.commands.count("DATA") == 2


# -- who is cancelled leaves nothing


async def cancel_senders(host: SmartHost, ticks: int) -> None:
    """Three senders and one place: cancelled one after another after so many turns of the loop, wherever they are then."""
    host.offer = {"SIZE"}
    async with pool_for(hop(host), max_connections=1) as pool:
        senders = [asyncio.create_task(pool.send(message())) for _ in range(3)]
        for sender in senders:
            for _ in range(ticks):
                await asyncio.sleep(0)
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        assert pool.in_use == 0
        await pool.send(message())
        assert (pool.in_use, pool.idle) == (0, 1)
        await until(lambda: host.open_connections == 1)  # the sink sees a hang-up a little later than we
    await until_closed(host)


@pytest.mark.parametrize("ticks", range(0, 60, 3))
async def test_cancelled_at_any_point_the_pool_stays_whole(smart_host: SmartHost, ticks: int) -> None:
    await cancel_senders(smart_host, ticks)


def test_cancelled_at_any_point_the_pool_stays_whole_on_uvloop_too() -> None:
    """Services run on uvloop, whose transports are not asyncio's."""

    async def sweep() -> None:
        for ticks in range(60):
            host = SmartHost()
            await host.start()
            await cancel_senders(host, ticks)
            await host.stop()

    uvloop.run(sweep())


async def test_a_place_given_to_somebody_who_is_cancelled_goes_to_the_next(smart_host: SmartHost) -> None:
    async with pool_for(hop(smart_host), max_connections=1) as pool:
        first, second, third = (asyncio.create_task(pool.send(message())) for _ in range(3))
        first.add_done_callback(lambda _: second.cancel())
        results = await asyncio.gather(first, second, third, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert not isinstance(results[2], BaseException)
        assert pool.in_use == 0


async def test_options_that_cannot_be_had_leave_the_pool_whole(smart_host: SmartHost) -> None:
    async def broken() -> ClientOptions:
        raise LookupError("no credentials")

    pool = ConnectionPool(Route(name="test", next_hops=(hop(smart_host),), max_connections=1), broken)
    for _ in range(2):
        with pytest.raises(LookupError):
            await pool.send(message())
    assert pool.in_use == 0
    await pool.close()


async def test_a_closed_pool_sends_nothing_more(smart_host: SmartHost) -> None:
    smart_host.slow(0.02)
    pool = ConnectionPool(Route(name="test", next_hops=(hop(smart_host),), max_connections=1), options)
    sending = asyncio.create_task(pool.send(message()))
    waiting = asyncio.create_task(pool.send(message()))
    while not smart_host.commands:
        await asyncio.sleep(0.001)
    await pool.close()
    assert [o.reply.code for o in (await sending)[1]] == [250]
    with pytest.raises(ConnectionFailed, match="closed"):
        await waiting
    with pytest.raises(ConnectionFailed, match="closed"):
        await pool.send(message())
    await until_closed(smart_host)
    assert smart_host.commands[-1] == "QUIT"
