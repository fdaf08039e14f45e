"""The screener is killed between its output's acknowledgement and its input's, and the broker forgets what it had seen: one copy arrives.

docs/reliability.md, "When somebody gets two copies": what the broker's duplicate window would have dropped is then recognised by what is
written down, and a message that was held and released twice is sent once."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.broker import TEST_LIMITS, Broker
from fixtures.gates import Wire
from fixtures.holding_proxy import HoldingProxy
from fixtures.ports import free_port
from fixtures.processes import kill, service
from fixtures.smart_host import SmartHost
from postern_core.bus import Bus
from postern_core.bus.topology import BODIES, INTAKE, OUTBOUND, QUARANTINE
from postern_core.errors import TransientError

pytestmark = pytest.mark.timeout(300)

HOLD = {"name": "hold", "condition": {"type": "keyword", "phrases": ["sesame"], "scope": "body"}, "action": "hold"}
SOON_AGAIN = replace(TEST_LIMITS, screening_ack_wait=timedelta(seconds=3))  # after a death; as shipped it is 30 s
_PATIENCE_S = 60  # delivery's ack may have been lost with the broker, and its ack-wait is 30 s
CASES = {
    "passed": ("", ""),
    "held, released before it comes again": ("before", "after"),
    "held, released twice before it comes again": ("before", "before"),
    "held, released twice at once, after it came again": ("after", "after"),
}


@pytest.mark.parametrize("large", [False, True], ids=["inline", "stored"])
@pytest.mark.parametrize("releases", CASES.values(), ids=CASES.keys())
async def test_a_death_between_output_and_ack_and_a_broker_that_forgets_make_no_second_copy(
    broker: Broker, smart_host: SmartHost, tmp_path: Path, releases: tuple[str, str], large: bool
) -> None:
    held = releases[0] != ""
    body = ("open sesame" if held else "hello").encode() + b"\r\n" + (b"x" * 70 + b"\r\n") * (10_000 if large else 1)
    apis, proxy, port = ApiStarter(broker, tmp_path), HoldingProxy(broker.port), free_port()
    [route] = BOOTSTRAP["routes"]
    api = await apis(BOOTSTRAP | {"routes": [route | {"smart_hosts": [{"host": "[127.0.0.1]", "port": smart_host.port}]}]})
    await broker.provision(SOON_AGAIN)
    await proxy.start()
    try:
        async with AsyncExitStack() as running:
            await running.enter_async_context(service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"127.0.0.1:{port}"))
            queue = f"sqlite+aiosqlite:///{tmp_path / 'queue.db'}"
            await running.enter_async_context(service(broker, "delivery", tmp_path, POSTERN_DATABASE_URL=queue))
            (await api.client.post("/rules", json=HOLD)).raise_for_status()
            async with service(broker, "screener", tmp_path, nats_url=proxy.url) as screener:
                await eventually(lambda: _live(api, 3), _PATIENCE_S)
                proxy.hold_from("$JS.ACK.INTAKE")
                queue_id = await _sent(port, b"Subject: twice\r\n\r\n" + body)
                await proxy.held.wait()  # the output is stored, and its input is not let go
                await kill(screener)
            await asyncio.to_thread(broker.restart, signal.SIGKILL)
            await _is_back(api)
            if held:
                for _ in range(releases.count("before")):
                    await _release(api, queue_id)
                assert await _count(api.bus, QUARANTINE) == (0 if "before" in releases else 1)
            if releases[0] != "after":
                await smart_host.wait_for(1, _PATIENCE_S)
                await eventually(lambda: _is_empty(api.bus, OUTBOUND), _PATIENCE_S)
                # the last that delivery does: a body that a broker's death keeps it from deleting is left to the janitor
                await eventually(lambda: _is_empty(api.bus, BODIES), _PATIENCE_S)
                # what the broker knows of ids it rebuilds from what is stored: this one is not any more
                await asyncio.to_thread(broker.restart, signal.SIGKILL)
                await _is_back(api)
            assert await _count(api.bus, INTAKE) == 1
            await running.enter_async_context(service(broker, "screener", tmp_path))
            await eventually(lambda: _is_empty(api.bus, INTAKE), _PATIENCE_S)
            await asyncio.gather(*(_release(api, queue_id) for _ in range(releases.count("after"))))
            await eventually(lambda: _balanced(api), _PATIENCE_S)
            for stream in (OUTBOUND, QUARANTINE, BODIES):
                await eventually(lambda stream=stream: _is_empty(api.bus, stream), _PATIENCE_S)
            trace = await api.get(f"/messages/{queue_id}")
            assert [(end["recipient"], end["kind"]) for end in trace["dispositions"]] == [("a@relay.example", "delivered")]
            assert [message.recipients for message in smart_host.messages] == [("a@relay.example",)]
            assert smart_host.messages[0].data.endswith(body)
    finally:
        await proxy.stop()
        await apis.close()


async def _sent(port: int, message: bytes) -> str:
    wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
    answer = await wire.message(message)
    assert answer.startswith("250 "), answer
    return answer.rpartition(" ")[2]


async def _release(api: RunningApi, queue_id: str) -> None:
    """Again while the api says that it cannot now, as an administrator would."""

    async def released() -> bool:
        answer = await api.client.post(f"/quarantine/{queue_id}/release")
        return answer.status_code == 200

    await eventually(released, _PATIENCE_S)


async def _live(api: RunningApi, services: int) -> bool:
    status = await api.get("/status")
    others = [replica["revision"] for replica in status["replicas"] if replica["service"] != "api"]
    return len(others) >= services and set(others) == {status["revision"]}


async def _is_back(api: RunningApi) -> None:
    async def answers() -> bool:
        try:
            await _count(api.bus, INTAKE)
        except TransientError:
            return False
        return True

    await eventually(answers, _PATIENCE_S)


async def _count(bus: Bus, stream: str) -> int:
    return int((await bus.stream_state(stream))["messages"])


async def _is_empty(bus: Bus, stream: str) -> bool:
    return await _count(bus, stream) == 0


async def _balanced(api: RunningApi) -> bool:
    try:
        total: dict[str, Any] = (await api.get("/ledger"))["total"]
    except httpx.HTTPError:
        return False
    return total["accepted"] == total["delivered"] == 1 and total["in_flight"] == 0
