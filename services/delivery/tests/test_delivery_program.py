"""Delivery as a program: SIGTERM in the middle of its work, and a configuration that it cannot run with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from postern_core.bus.topology import OUTBOUND
from postern_core.policy import RetrySchedule

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack


@asynccontextmanager
async def program(stack: Stack, directory: Path, **changes: str) -> AsyncIterator[asyncio.subprocess.Process]:
    settings = stack.broker.settings("delivery")
    environment = {
        **os.environ,
        "POSTERN_INSTANCE": settings.instance,
        "POSTERN_NATS_URL": settings.nats_url,
        "POSTERN_NATS_PASSWORD_FILE": str(settings.nats_password_file),
        "POSTERN_NATS_MONITOR_URL": settings.nats_monitor_url,
        "POSTERN_DATABASE_URL": f"sqlite+aiosqlite:///{directory / 'queue.db'}",
    } | changes
    log = (directory / "delivery.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postern_delivery", env=environment, stdout=log, stderr=log
    )
    log.close()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_in_the_middle_of_transactions_hands_them_back_and_ends_in_time(idle_stack: Stack, tmp_path: Path) -> None:
    """One is at its first try, one is tried again, and the peer answers neither: exit code 70 would say that the drain overran."""
    stack = idle_stack
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(0.5,), delay_notice_s=None))
    stack.smart_host.defer_rcpt("again@relay.example")
    async with program(stack, tmp_path) as process:
        again = await stack.send("again@relay.example")
        await stack.holds("DEFERRED", 1)
        stack.smart_host.behave()
        stack.smart_host.slow(600)
        first = await stack.send("first@relay.example")

        async def both_under_way() -> bool:
            return stack.smart_host.open_connections >= 2

        await stack.until(both_under_way)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0, (tmp_path / "delivery.log").read_text()
    stack.smart_host.behave()
    assert (await stack.api.stream_state(OUTBOUND))["messages"] == 1
    async with program(stack, tmp_path):
        for job in (again, first):
            assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert sorted(m.recipients for m in stack.smart_host.messages) == [("again@relay.example",), ("first@relay.example",)]
    assert "Traceback" not in (tmp_path / "delivery.log").read_text()


async def test_a_configuration_that_cannot_work_is_named_and_ends_it(idle_stack: Stack, tmp_path: Path) -> None:
    async with program(idle_stack, tmp_path, POSTERN_DATABASE_URL="mysql://root@127.0.0.1/queue") as process:
        async with asyncio.timeout(30):
            assert await process.wait() == 78
    told = (tmp_path / "delivery.log").read_text()
    assert "database_url" in told.lower()
    assert "Traceback" not in told
