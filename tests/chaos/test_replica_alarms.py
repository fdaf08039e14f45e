"""A cluster of three that has lost a copy goes on as if nothing were: the alarm says so, and goes when the copy is there again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.broker import Broker
from fixtures.cluster import Cluster, running_cluster

pytestmark = pytest.mark.timeout(300)


async def alarms(api: RunningApi) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["about"]): each for each in (await api.get("/alarms"))["alarms"]}


async def wait_for(api: RunningApi, kind: str, about: str) -> dict[str, Any]:
    async def find() -> dict[str, Any] | None:
        return (await alarms(api)).get((kind, about))

    return await eventually(find, 60) or {}


async def wait_for_none(api: RunningApi) -> None:
    async def none() -> bool:
        answer = await api.get("/alarms")
        return answer["looked_at"] is not None and not answer["alarms"] and not answer["unseen"]

    await eventually(none, 90)


async def follower_of(cluster: Cluster, stream: str) -> Broker:
    provisioner = await cluster.connect("provisioner")
    leader = (await provisioner.api(f"STREAM.INFO.{stream}", {}))["cluster"]["leader"]
    await provisioner.close()
    return next(node for node in cluster.nodes if node.server_name != leader)


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "cluster") as cluster:
        starter = ApiStarter(cluster, tmp_path)
        api = await starter(BOOTSTRAP, alarms_every_s=0.2)
        await wait_for_none(api)
        away = await follower_of(cluster, "INTAKE")
        await asyncio.to_thread(away.stop)
        alarm = await wait_for(api, "replica_behind", away.server_name)
        assert "INTAKE" in alarm["figures"]["streams"]
        await asyncio.to_thread(away.restart)
        await wait_for_none(api)
        await starter.close()


async def test_a_copy_that_lost_mail_which_its_server_does_not_miss(tmp_path: Path) -> None:
    """The broker itself goes on calling such a copy current, and one day makes it the leader."""
    async with running_cluster(tmp_path / "cluster") as cluster:
        screener = await cluster.connect("screener")
        for n in range(20):
            await screener.publish("QUARANTINE", f"quarantine.{n}", b"x" * 500, f"{n}")
        damaged = await follower_of(cluster, "QUARANTINE")
        await asyncio.to_thread(damaged.stop)
        [block] = (damaged.directory / "store/jetstream/POSTERN/streams/QUARANTINE/msgs").glob("*.blk")
        data = block.read_bytes()
        block.write_bytes(data[: len(data) // 2])
        await asyncio.to_thread(damaged.restart)

        starter = ApiStarter(cluster, tmp_path)
        api = await starter(BOOTSTRAP, alarms_every_s=0.2)
        alarm = await wait_for(api, "replicas_differ", "QUARANTINE")
        assert sum(": 20 messages" in copy for copy in alarm["figures"]["copies"]) == 2

        await asyncio.to_thread(damaged.stop)
        shutil.rmtree(damaged.directory / "store")
        await asyncio.to_thread(damaged.restart)
        await wait_for_none(api)
        await starter.close()
        await screener.close()
