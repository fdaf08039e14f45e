"""A next hop that falls silent: its time is bounded at each stage, the mail waits, and only behind the final dot is anybody in doubt."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from fixtures.silent_host import Silence, SilentHost
from postern_core.bus.topology import DEFERRED
from postern_core.events import EventKind
from postern_delivery import pools
from postern_smtp.client import ClientOptions

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
