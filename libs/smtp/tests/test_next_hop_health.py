"""Next hops that are silent: whom the next connection asks, and that mail does not wait for one while another is well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.ports import free_port
from fixtures.silent_host import Silence, SilentHost
from fixtures.smart_host import SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, Route, RouteTls
from postern_smtp.client import ClientOptions, ConnectionLost, Transaction
from postern_smtp.connection_pool import ConnectionPool
from postern_smtp.next_hop_health import NextHopHealth, Search

A, B, C = (NextHop(host=f"{name}.example") for name in "abc")
NOWHERE = NextHop(host="127.0.0.1", port=1)
PATIENCE_S = 20  # of a test: far less than the client's own five minutes


def order(health: NextHopHealth, now: float) -> list[NextHop]:
    search = Search(health)
    return list(iter(lambda: search.take(now), None))


def test_one_that_was_silent_goes_last_for_longer_each_time() -> None:
    health = NextHopHealth((A, B, C))
    assert order(health, 0) == [A, B, C]
    avoided: list[float] = []
    now = 0.0
    for _ in range(6):
        avoided.append(health.silent(A, now))
        assert order(health, now) == [B, C, A]
        assert order(health, now + avoided[-1] - 1) == [B, C, A]
        now += avoided[-1]
        assert order(health, now) == [A, B, C]  # somebody goes and looks
    assert avoided == [60, 120, 240, 480, 600, 600]
    health.answered(A)
    assert health.silent(A, now) == 60


def test_many_that_waited_together_count_once() -> None:
    health = NextHopHealth((A, B))
    assert [health.silent(A, now) for now in (100, 100.5, 101)] == [60, 0, 0]
    assert order(health, 160) == [A, B]


def test_only_one_goes_and_looks_whether_it_is_back() -> None:
    health = NextHopHealth((A, B))
    health.silent(A, 0)
    with health.waiting(A, 60):
        assert order(health, 60) == [B, A]
    health.answered(A)
    with health.waiting(A, 61):
        assert order(health, 61) == [A, B]


def test_while_somebody_waits_for_long_others_go_elsewhere() -> None:
    health = NextHopHealth((A, B))
    with health.waiting(A, 0), health.waiting(A, 5.5):
        assert order(health, 4) == [A, B]
        assert order(health, 6) == [B, A]
    assert order(health, 6) == [A, B]


def test_when_all_are_silent_they_are_tried_in_their_order() -> None:
    health = NextHopHealth((A, B))
    health.silent(B, 0)
    health.silent(A, 1)
    assert order(health, 2) == [A, B]
    health.forget()
    assert order(health, 2) == [A, B]


def test_who_was_hurried_gets_all_its_time_in_the_end() -> None:
    search = Search(NextHopHealth((A, B, C), patience_s=7))
    assert (search.take(0), search.patience_s) == (A, 7)
    search.hurried(A)
    assert (search.take(0), search.patience_s, search.is_last) == (B, 7, False)
    assert (search.take(0), search.patience_s, search.is_last) == (C, 7, False)
    search.hurried(C)
    assert (search.take(0), search.patience_s, search.is_last) == (A, None, False)
    assert (search.take(0), search.patience_s, search.is_last) == (C, None, True)
    assert search.take(0) is None


def test_the_only_one_is_not_hurried() -> None:
    search = Search(NextHopHealth((A,)))
    assert (search.take(0), search.patience_s, search.is_last) == (A, None, True)


# -- in the pool


@contextmanager
def silent_host(silence: Silence) -> Iterator[tuple[SilentHost, NextHop]]:
    with SilentHost(free_port(), silence) as host:
        yield host, NextHop(host="127.0.0.1", port=host.port)


def pool_for(*next_hops: NextHop, data_timeout_s: float = 600, **route: int) -> ConnectionPool:
    async def options() -> ClientOptions:
        return ClientOptions(helo_name="relay.example", tls=RouteTls.OFF, data_timeout_s=data_timeout_s)

    return ConnectionPool(Route(name="test", next_hops=next_hops, **route), options, idle_s=60, patience_s=0.3)


def message() -> Transaction:
    recipients = (Recipient(n=0, address="a@relay.example"),)
    return Transaction("sender@example.org", recipients, b"Subject: x\r\n\r\nx\r\n", BodyType.SEVEN_BIT)


def hop(host: SmartHost) -> NextHop:
    return NextHop(host=host.host, port=host.port)


@pytest.mark.parametrize("silence", [Silence.AT_ONCE, Silence.AT_MAIL])
async def test_mail_does_not_wait_five_minutes_while_another_next_hop_is_well(smart_host: SmartHost, silence: Silence) -> None:
    """Was: each new connection waited for 300 s, one of them in every half minute again."""
    with silent_host(silence) as (half_dead, first):
        pool = pool_for(first, hop(smart_host), max_messages_per_connection=1)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(4):
                assert (await pool.send(message()))[0] == hop(smart_host)
        assert half_dead.silent == 1
        pool.try_again()
        assert (await pool.send(message()))[0] == hop(smart_host)
        assert half_dead.silent == 2
        await pool.close()


async def test_after_a_silence_behind_the_dot_the_next_message_goes_elsewhere(smart_host: SmartHost) -> None:
    with silent_host(Silence.AT_DOT) as (half_dead, first):
        pool = pool_for(first, hop(smart_host), data_timeout_s=0.3)
        with pytest.raises(ConnectionLost) as lost:  # it may have been taken: never sent again by itself
            await pool.send(message())
        assert (lost.value.stage, lost.value.silent) == ("end-of-data", True)
        assert (await pool.send(message()))[0] == hop(smart_host)
        assert half_dead.silent == 1
        await pool.close()


async def test_a_next_hop_that_takes_its_time_gets_it_when_no_other_is_well(smart_host: SmartHost) -> None:
    smart_host.slow(1.0)  # before each reply, the greeting and that to MAIL too: over the patience of 0.3 s
    pool = pool_for(hop(smart_host), NOWHERE)
    async with asyncio.timeout(PATIENCE_S):
        assert (await pool.send(message()))[0] == hop(smart_host)
    smart_host.slow(0)
    await pool.close()


async def test_a_next_hop_that_is_slow_at_mail_gets_its_time_when_no_other_is_well(smart_host: SmartHost) -> None:
    pool = pool_for(hop(smart_host), NOWHERE)
    await pool.send(message())
    smart_host.slow(1.0)  # the connection stands: it is the reply to MAIL that comes late
    async with asyncio.timeout(PATIENCE_S):
        assert (await pool.send(message()))[0] == hop(smart_host)
    smart_host.slow(0)
    await pool.close()


async def test_the_kept_connections_of_a_next_hop_that_falls_silent_are_not_tried_one_by_one(smart_host: SmartHost) -> None:
    last = SmartHost()
    await last.start()
    pool = pool_for(hop(smart_host), hop(last))
    smart_host.slow(0.05)
    await asyncio.gather(*(pool.send(message()) for _ in range(3)))
    assert pool.idle == 3
    mails = sum(command.startswith("MAIL") for command in smart_host.commands)
    smart_host.slow(3600)
    async with asyncio.timeout(PATIENCE_S):
        assert (await pool.send(message()))[0] == hop(last)
    assert sum(command.startswith("MAIL") for command in smart_host.commands) <= mails + 1
    assert pool.idle == 1
    smart_host.slow(0)
    await pool.close()
    await last.stop()
