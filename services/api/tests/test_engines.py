"""Engines and YARA files through the API: what is taken, what is refused, and what reaches the bus, the alarms and monitoring."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from fixtures.api import RunningApi, eventually
from postern_api.alarms.conditions import Past, conditions
from postern_api.alarms.kinds import Kind, Severity
from postern_api.alarms.look import Look, engines_down
from postern_core.control import EngineState, EngineStatus, ServiceStatus
from postern_core.policy import OnFailure, OnVirus, ScreeningPolicy, decode_section
from postern_core.verdict import Engine

TEXT = {"Content-Type": "text/plain"}
SOURCE = 'rule Fox : animal red { strings: $a = "fox" condition: $a }\nrule Dog { condition: false }\n'
VIRUS_RULE = {"name": "v", "condition": {"type": "virus", "names": ["Win.*"]}, "action": "delete"}


async def screening(api: RunningApi) -> ScreeningPolicy:
    data = await api.bus.kv_get("POLICY", "screening")
    assert data is not None
    return decode_section(data, ScreeningPolicy)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_all_are_off_until_somebody_switches_them_on(api: RunningApi) -> None:
    shown = await api.get("/engines")
    assert [shown[engine]["enabled"] for engine in ("clamd", "rspamd", "yara")] == [False] * 3
    assert shown["health"] == []
    body = {"enabled": True, "address": "ClamAV:3310", "on_failure": "hold", "on_virus": "delete", "timeout_s": 5}
    answer = await api.client.put("/engines/clamd", json=body)
    assert answer.status_code == 200
    assert answer.json()["address"] == "clamav:3310"
    clamd = (await screening(api)).engines.clamd
    assert (clamd.enabled, clamd.address, clamd.on_failure, clamd.on_virus) == (
        True,
        "clamav:3310",
        OnFailure.HOLD,
        OnVirus.DELETE,
    )
    await api.client.put("/engines/rspamd", json={"enabled": True, "url": "http://[::1]:11333/"})
    await api.client.put("/engines/waiting", json={"hold_after_s": 3600})
    engines = (await screening(api)).engines
    assert (engines.rspamd.url, engines.hold_after_s) == ("http://[::1]:11333", 3600)
    assert "engine.changed" in (await api.client.get("/audit")).text


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("clamd", {"enabled": True, "address": "nowhere"}, (400, "invalid_engine_address")),
        ("clamd", {"enabled": True, "address": "host:0"}, (400, "invalid_engine_address")),
        ("clamd", {"enabled": True, "address": "host:99999"}, (400, "invalid_engine_address")),
        ("clamd", {"enabled": True, "address": "::1:3310"}, (400, "invalid_engine_address")),
        ("clamd", {"enabled": True, "address": "a b:3310"}, (400, "invalid_engine_address")),
        ("clamd", {"enabled": "yes"}, (422, "malformed_payload")),
        ("clamd", {"enabled": True, "timeout_s": 0}, (422, "malformed_payload")),
        ("clamd", {"enabled": True, "on_failure": "ignore"}, (422, "malformed_payload")),
        ("rspamd", {"enabled": True, "url": "https://host:11333"}, (400, "invalid_engine_address")),
        ("rspamd", {"enabled": True, "url": "http://user:pw@host:1"}, (400, "invalid_engine_address")),
        ("rspamd", {"enabled": True, "url": "http://host:x"}, (400, "invalid_engine_address")),
        ("rspamd", {"enabled": True, "url": "ftp://host"}, (400, "invalid_engine_address")),
        ("yara", {"enabled": True, "timeout_s": 10}, (400, "yara_timeout")),
        ("yara", {"enabled": True, "timeout_s": 1.5}, (422, "malformed_payload")),
    ],
)
async def test_what_is_no_engine_is_refused(api: RunningApi, path: str, body: Any, error: tuple[int, str]) -> None:
    assert error_of(await api.client.put(f"/engines/{path}", json=body)) == error


@pytest.mark.parametrize(
    ("engine", "condition"),
    [
        ("clamd", {"type": "virus", "names": []}),
        ("rspamd", {"type": "spam", "at_least": 5.5, "actions": ["reject"]}),
        ("yara", {"type": "yara", "rules": ["Fox"], "tags": ["red"]}),
    ],
)
async def test_a_rule_and_the_engine_that_it_needs_come_and_go_together(api: RunningApi, engine: str, condition: Any) -> None:
    rule = {"name": "r", "condition": condition, "action": "hold"}
    assert error_of(await api.client.post("/rules", json=rule)) == (409, "engine_off")
    nested = {"name": "r", "condition": {"type": "malformed"}, "unless": {"type": "not", "of": condition}, "action": "hold"}
    assert error_of(await api.client.post("/rules", json=nested)) == (409, "engine_off")
    draft = (await api.client.post("/rules", json={**rule, "mode": "off"})).json()  # a draft may wait for it
    assert draft["condition"] == condition
    assert (await api.client.put(f"/engines/{engine}", json={"enabled": True})).status_code == 200
    assert (await api.client.put(f"/rules/{draft['id']}", json=rule)).status_code == 200
    assert error_of(await api.client.put(f"/engines/{engine}", json={"enabled": False})) == (409, "engine_off")
    await api.client.delete(f"/rules/{draft['id']}")
    assert (await api.client.put(f"/engines/{engine}", json={"enabled": False})).status_code == 200


async def test_a_spam_condition_that_says_nothing_is_refused(api: RunningApi) -> None:
    await api.client.put("/engines/rspamd", json={"enabled": True})
    for condition in ({"type": "spam"}, {"type": "spam", "actions": [" "]}, {"type": "virus", "names": ["x" * 201]}):
        answer = await api.client.post("/rules", json={"name": "r", "condition": condition, "action": "hold"})
        assert error_of(answer) == (400, "invalid_condition")


async def test_a_yara_file_is_uploaded_listed_read_and_deleted(api: RunningApi) -> None:
    answer = await api.client.put("/yara/own.yar", content=SOURCE, headers=TEXT)
    assert answer.status_code == 200
    assert answer.json()["rules"] == [{"name": "Fox", "tags": ["animal", "red"]}, {"name": "Dog", "tags": []}]
    assert [file["name"] for file in await api.get("/yara")] == ["own.yar"]
    read = await api.client.get("/yara/own.yar")
    assert (read.text, read.headers["Content-Type"]) == (SOURCE, "text/plain; charset=utf-8")
    [file] = (await screening(api)).engines.yara.files
    assert (file.name, file.source) == ("own.yar", SOURCE)
    assert (await api.client.put("/engines/yara", json={"enabled": True})).status_code == 200
    assert (await screening(api)).engines.yara.files == (file,)  # switching it on or off leaves them alone
    assert (await api.client.delete("/yara/own.yar")).status_code == 204
    assert error_of(await api.client.get("/yara/own.yar")) == (404, "yara_file_not_found")
    assert error_of(await api.client.delete("/yara/own.yar")) == (404, "yara_file_not_found")


@pytest.mark.parametrize(
    ("name", "source", "error", "said"),
    [
        ("a.yar", "rule a {\n condition: nothing }", "invalid_yara", "line 2, column 13: unknown identifier `nothing`"),
        ("a.yar", "rule a {", "invalid_yara", "syntax error"),
        ("a.yar", 'include "/etc/passwd"\n', "invalid_yara", "include statements not allowed"),
        ("a.yar", "  \n", "invalid_yara", "empty"),
        ("a.yar", b"\xff\xfe", "invalid_yara", "not UTF-8"),
        ("A%20b.yar", "rule a { condition: true }", "invalid_yara_name", "cannot name a file"),
        ("a.yar", "//" + "x" * 1024 * 1024, "too_many", "may have 1048576"),
    ],
)
async def test_a_yara_file_that_is_none_is_refused_with_its_line(
    api: RunningApi, name: str, source: str | bytes, error: str, said: str
) -> None:
    answer = await api.client.put(f"/yara/{name}", content=source, headers=TEXT)
    assert error_of(answer) == (400, error)
    assert said in answer.json()["message"]
    assert "root:" not in answer.text
    if said.startswith("line 2"):
        assert answer.json()["detail"] == {"line": 2, "column": 13}
    assert await api.get("/yara") == []


async def test_the_whole_of_the_yara_files_is_bounded(api: RunningApi) -> None:
    for k in range(4):
        source = f"rule r{k} {{ condition: true }} //" + "x" * (1024 * 1024 - 100)
        assert (await api.client.put(f"/yara/f{k}", content=source, headers=TEXT)).status_code == 200
    answer = await api.client.put("/yara/f9", content="rule r9 { condition: true } //" + "x" * 5000, headers=TEXT)
    assert error_of(answer) == (400, "too_many")


async def test_a_difference_names_a_yara_file_and_does_not_print_it(api: RunningApi) -> None:
    await api.client.put("/yara/own.yar", content=SOURCE, headers=TEXT)
    answer = await api.client.get("/audit")
    assert "yara/own.yar" in answer.text
    assert "strings:" not in answer.text


def report(state: EngineState, error: str = "", on_failure: OnFailure = OnFailure.DEFER) -> ServiceStatus:
    now = datetime.now(UTC)
    status = EngineStatus(engine=Engine.CLAMD, state=state, on_failure=on_failure, error=error, asked=12, failed=5, seconds=1.5)
    return ServiceStatus(service="screener", instance="one", started_at=now, at=now, ready=True, engines=(status,))


async def test_how_engines_are_is_in_status_readiness_and_metrics(api: RunningApi) -> None:
    screener = await api.broker.connect("screener")
    await screener.kv_put("STATUS", "screener.one", msgspec.json.encode(report(EngineState.OPEN, "cannot connect")))

    async def health() -> Any:
        return (await api.get("/engines"))["health"]

    await eventually(health)
    [seen] = await health()
    assert (seen["instance"], seen["engine"], seen["state"], seen["error"]) == ("one", "clamd", "open", "cannot connect")
    [replica] = [each for each in (await api.get("/status"))["replicas"] if each["service"] == "screener"]
    assert replica["engines"] == [seen]
    ready = await api.client.get(str(api.client.base_url.join("/readyz")))
    assert ready.status_code == 200  # the api can do its work, and mail is not its
    assert ready.json()["engines"] == ["clamd does not answer screener/one"]  # no token, no addresses
    metrics = (await api.client.get("/metrics")).text
    labels = '{service="screener",instance="one",engine="clamd"}'
    assert f"postern_engine_up{labels} 0.0" in metrics
    assert f"postern_engine_asked_total{labels} 12.0" in metrics
    assert f"postern_engine_failed_total{labels} 5.0" in metrics
    assert f"postern_engine_seconds_total{labels} 1.5" in metrics
    await screener.close()


@pytest.mark.parametrize(
    ("on_failure", "severity"),
    [(OnFailure.DEFER, Severity.CRITICAL), (OnFailure.HOLD, Severity.WARNING), (OnFailure.PASS, Severity.WARNING)],
)
def test_an_engine_that_does_not_answer_is_an_alarm(on_failure: OnFailure, severity: Severity) -> None:
    look = Look(engines_down=engines_down([report(EngineState.FAILING, "cannot connect", on_failure), report(EngineState.OK)]))
    found = conditions(look, Past(), None, {})[Kind.ENGINE_DOWN, "clamd"]
    assert found.severity is severity
    assert "clamd does not answer screener/one: cannot connect" in found.summary
    assert engines_down([report(EngineState.OK), report(EngineState.UNKNOWN)]) == {}
