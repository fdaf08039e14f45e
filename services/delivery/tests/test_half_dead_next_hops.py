"""A next hop that falls silent: its time is bounded at each stage, the mail waits, and only behind the final dot is anybody in doubt."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
import pytest

from fixtures.ports import free_port
from fixtures.silent_host import Silence, SilentHost
from postern_core.bus.topology import DEFERRED
from postern_core.events import EventKind
from postern_core.policy import NextHop
from postern_delivery import pools
from postern_smtp.client import ClientOptions
from postern_smtp.connection_pool import ConnectionPool

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack


@pytest.mark.parametrize(
    ("silence", "stage", "doubted"),
    [(Silence.AT_ONCE, "no reply", 0), (Silence.AT_MAIL, "lost at mail", 0), (Silence.AT_DOT, "lost at end-of-data", 2)],
)
async def test_the_wait_for_a_silent_next_hop_ends_and_its_mail_arrives_later(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, silence: Silence, stage: str, doubted: int
) -> None:
    monkeypatch.setattr(pools, "ClientOptions", functools.partial(ClientOptions, command_timeout_s=0.5))
    await stack.set_policy(routes=(stack.route("default", timeout_s=0.6),))
    await stack.smart_host.stop()
    with SilentHost(stack.smart_host.port, silence):
        job = await stack.send("a@relay.example", "b@relay.example")
        page = await stack.queued()
        assert stage in page.rows[0].last_reply
        await stack.outbound_is_empty()
    await stack.smart_host.start()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered", "b@relay.example": "delivered"}
    await stack.queued(0)
    await stack.holds(DEFERRED, 0)
    assert len(stack.smart_host.messages) == 1

    async def told() -> bool:
        attempts = [event.fields for event in await stack.events() if event.kind is EventKind.ATTEMPTED]
        return bool(attempts) and attempts[0].get("in_doubt") == doubted

    await stack.until(told)


@pytest.mark.parametrize("silence", [Silence.AT_ONCE, Silence.AT_MAIL])
async def test_mail_goes_to_the_second_next_hop_while_the_first_is_half_dead(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, silence: Silence
) -> None:
    """Was: each new connection waited for five minutes, and mail with it."""
    monkeypatch.setattr(pools, "ConnectionPool", functools.partial(ConnectionPool, patience_s=0.3))
    with SilentHost(free_port(), silence) as half_dead:
        first = NextHop(host="127.0.0.1", port=half_dead.port)
        route = stack.route("default", max_connections=2, max_messages_per_connection=1)
        await stack.set_policy(routes=(msgspec.structs.replace(route, next_hops=(first, *route.next_hops)),))
        jobs = [await stack.send("a@relay.example") for _ in range(10)]
        for job in jobs:
            assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
        assert (await stack.queue()).total == 0
        assert half_dead.silent <= 2
