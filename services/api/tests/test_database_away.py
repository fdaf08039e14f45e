"""PostgreSQL killed, or read-only: clear answers, nothing lost, and work goes on by itself."""

from __future__ import annotations

import asyncio
import signal

import asyncpg
import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, an_end, an_envelope, eventually
from fixtures.postgres import Postgres
from postern_core.bus import DispositionLog
from postern_core.disposition import DispositionKind


async def answers(api: RunningApi) -> dict[str, tuple[int, str]]:
    """Status and error of one request of each kind."""
    found = {}
    for method, path, body in (
        ("GET", "/domains", None),
        ("GET", "/messages", None),
        ("POST", "/domains", {"pattern": "b.example"}),
        ("POST", "/tokens", {"name": "n", "scope": "auditor"}),
        ("POST", "/queue/retry", {"all": True}),
    ):
        answer = await api.client.request(method, path, json=body)
        found[f"{method} {path}"] = (answer.status_code, answer.json()["error"] if answer.status_code >= 400 else "")
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_database_that_dies_is_said_to_be_away_and_costs_no_disposition(
    start_api: ApiStarter, postgres_server: Postgres, postgres_url: str, how: signal.Signals
) -> None:
    api = await start_api(BOOTSTRAP, database_url=postgres_url)
    ready = str(api.client.base_url.join("/readyz"))
    delivery = await api.broker.connect("delivery")
    postgres_server.halt(how)
    try:
        assert set((await answers(api)).values()) == {(503, "database_unavailable")}
        answer = await api.client.get(ready)
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["the database does not answer"])
        assert (await api.client.get(str(api.client.base_url.join("/livez")))).status_code == 200
        ends = [an_end(an_envelope(), DispositionKind.DELIVERED) for _ in range(20)]
        await DispositionLog(delivery).write(ends)
    finally:
        postgres_server.launch()

    async def caught_up() -> bool:
        answer = await api.client.get("/ledger")
        return answer.status_code == 200 and answer.json()["total"]["delivered"] == len(ends)

    await eventually(caught_up, 60)
    assert (await api.client.post("/domains", json={"pattern": "b.example"})).status_code == 201
    await delivery.close()


async def test_a_read_only_database_refuses_changes_and_shows_the_rest(start_api: ApiStarter, postgres_url: str) -> None:
    api = await start_api(BOOTSTRAP, database_url=postgres_url)
    role = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await role.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
    try:
        await api.api.database.engine.dispose()  # new connections, as after a fail-over to a standby
        found = await answers(api)
    finally:
        await role.execute("SET default_transaction_read_only = off")
        await role.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
        await role.close()
    assert {name for name, answer in found.items() if answer == (200, "")} == {"GET /domains", "GET /messages"}
    assert {answer for name, answer in found.items() if name.startswith("POST")} == {(503, "database_unavailable")}
    await api.api.database.engine.dispose()
    assert (await api.client.post("/domains", json={"pattern": "b.example"})).headers["Postern-Revision"] == "2"


async def test_of_two_administrators_tokens_revoked_at_once_one_stays(start_api: ApiStarter, postgres_url: str) -> None:
    # both saw two of them, and both were deleted: nobody could administer any more
    one, two = await start_api(BOOTSTRAP, database_url=postgres_url), await start_api(BOOTSTRAP, database_url=postgres_url)
    for _ in range(5):
        first = (await one.get("/tokens"))[0]["id"]
        second = (await one.client.post("/tokens", json={"name": "n", "scope": "admin"})).raise_for_status().json()
        both = await asyncio.gather(
            one.client.delete(f"/tokens/{first}"),
            two.client.delete(f"/tokens/{second['id']}"),
        )
        assert sorted(answer.status_code for answer in both) == [204, 409], [answer.text for answer in both]
        if both[0].status_code == 204:
            for api in (one, two):
                api.client.headers["Authorization"] = f"Bearer {second['token']}"
