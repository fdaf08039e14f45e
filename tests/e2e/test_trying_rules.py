"""An administrator tries rules before they bite: on a message of his own, on held mail and on the traffic of the last hours, with a real screener behind the API."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from typer.testing import CliRunner

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, an_envelope, eventually, hold
from fixtures.broker import Broker
from fixtures.clamd import INFECTED, VIRUS, ClamdServer
from postern_cli.main import app
from postern_core.archive import unframe_archived
from postern_core.bus import BodyStore
from postern_core.bus.topology import ARCHIVE, INTAKE, intake_subject
from postern_core.control import ControlError
from postern_core.envelope import Gate, frame
from postern_screener.app import serve
from postern_screener.engines.asking import EngineDesk
from postern_screener.settings import Settings
from postern_screener.trials import Trials
from postern_screener.trials import default_command as trial_command

CAUGHT = b"From: x@sender.example\r\nSubject: Your invoice\r\n\r\nplease wire the money\r\n"
RULE: dict[str, Any] = {"name": "wires", "condition": {"type": "keyword", "phrases": ["wire the money"]}, "action": "hold"}


@pytest.fixture
async def api(broker: Broker, tmp_path: Path) -> AsyncIterator[RunningApi]:
    starter = ApiStarter(broker, tmp_path)
    bus, stop = await broker.connect("screener"), asyncio.Event()
    serving = asyncio.create_task(serve(bus, stop, Settings(**broker.settings("screener").model_dump())))
    try:
        running = await starter(BOOTSTRAP)

        async def screens() -> bool:
            answer = await running.client.post("/screening/test", content=b"\r\n", headers={"Content-Type": "message/rfc822"})
            return answer.status_code == 200

        await eventually(screens, 30)
        yield running
    finally:
        await starter.close()
        stop.set()
        async with asyncio.timeout(15):
            await serving
        await bus.close()


async def result_of(api: RunningApi, body: bytes = CAUGHT, **query: Any) -> Any:
    answer = await api.client.post("/screening/test", content=body, params=query, headers={"Content-Type": "message/rfc822"})
    return answer.raise_for_status().json()


async def test_a_message_is_tried_under_the_policy_in_force_an_earlier_one_and_a_draft(api: RunningApi) -> None:
    before = await result_of(api)
    assert (before["verdict"]["decision"], before["rules"], before["places"], before["draft"]) == ("pass", [], [], False)
    added = (await api.client.post("/rules", json=RULE | {"unless": {"type": "user"}})).raise_for_status()
    rule_id = added.json()["id"]
    found = await result_of(api)
    assert found["revision"] == int(added.headers["Postern-Revision"])
    assert (found["verdict"]["decision"], found["subject"]) == ("hold", "Your invoice")
    (place,) = found["places"]
    assert place == {"rule_ids": [rule_id], "part": "1", "offset": 7, "length": 14, "chain": [], "excerpt": "wire the money"}
    assert [(rule["rule_id"], rule["outcome"]) for rule in found["rules"]] == [(rule_id, "decided")]
    by_user = await result_of(
        api, gate="auth", user="alice", client="2001:db8::1", reverse_path="a@b.example", recipient="c@d.example"
    )
    assert (by_user["verdict"]["decision"], by_user["rules"][0]["outcome"]) == ("pass", "excepted")
    assert (await result_of(api, revision=before["revision"]))["verdict"]["decision"] == "pass"

    draft = {
        "message": base64.b64encode(CAUGHT).decode(),
        "envelope": {"reverse_path": "x@sender.example", "recipients": ["a@relay.example"]},
        "rules": [
            RULE | {"condition": {"type": "keyword", "phrases": ["no such words"]}},
            RULE | {"id": "mine", "action": "delete"},
        ],
    }
    found = (await api.client.post("/screening/test", json=draft)).raise_for_status().json()
    assert (found["draft"], found["verdict"]["decision"]) == (True, "delete")
    assert [(rule["rule_id"], rule["outcome"]) for rule in found["rules"]] == [("draft-1", "failed"), ("mine", "decided")]
    # nothing of it became policy, or mail
    assert [rule["id"] for rule in await api.get("/rules")] == [rule_id]
    assert (await api.get("/messages"))["rows"] == []
    assert (await api.get("/quarantine"))["rows"] == []


async def test_where_rules_differ_between_recipients_each_share_is_told(api: RunningApi) -> None:
    condition = {"type": "all", "of": [RULE["condition"], {"type": "recipient", "patterns": ["a@relay.example"]}]}
    body = {
        "message": base64.b64encode(CAUGHT).decode(),
        "envelope": {"recipients": ["a@relay.example", "b@relay.example"]},
        "rules": [RULE | {"condition": condition}],
    }
    found = (await api.client.post("/screening/test", json=body)).raise_for_status().json()
    shares = [(share["recipients"], share["verdict"]["decision"]) for share in found["shares"]]
    assert shares == [(["a@relay.example"], "hold"), (["b@relay.example"], "pass")]
    assert [rule["outcome"] for rule in found["rules"]] == ["decided"]


@pytest.mark.parametrize(
    ("body", "query", "status", "error"),
    [
        ({"message": "!"}, {}, 422, "malformed_payload"),
        ({"message": ""}, {}, 422, "malformed_payload"),
        (
            {"message": "QQ==", "rules": [RULE | {"condition": {"type": "keyword", "phrases": [" "]}}]},
            {},
            400,
            "invalid_condition",
        ),
        (
            {"message": "QQ==", "rules": [RULE | {"condition": {"type": "keyword", "expressions": ["("]}}]},
            {},
            400,
            "invalid_expression",
        ),
        ({"message": "QQ==", "rules": [RULE | {"id": "a"}, RULE | {"id": "a"}]}, {}, 409, "rule_exists"),
        ({"message": "QQ==", "rules": [RULE | {"id": "../x"}]}, {}, 400, "invalid_rule_id"),
        ({"message": "QQ==", "envelope": {"client": "nowhere"}}, {}, 400, "invalid_client"),
        ({"message": "QQ==", "envelope": {"recipients": ["nobody"]}}, {}, 400, "invalid_address"),
        ({"message": "QQ=="}, {"revision": 99}, 404, "revision_not_found"),
        (b"x" * (7 * 1024 * 1024), {}, 413, "message_too_large"),
        (b"x" * (9 * 1024 * 1024), {}, 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_tried_is_refused_by_name(api: RunningApi, body: Any, query: Any, status: int, error: str) -> None:
    if isinstance(body, bytes):
        answer = await api.client.post("/screening/test", content=body, params=query, headers={"Content-Type": "message/rfc822"})
    else:
        answer = await api.client.post("/screening/test", json=body, params=query)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_a_draft_that_does_not_compile_begins_no_rehearsal(api: RunningApi) -> None:
    """Was: it was begun, and `done` where there was no mail to try it on."""
    body = {"rules": [RULE | {"condition": {"type": "keyword", "expressions": ["("]}}]}
    answer = await api.client.post("/screening/rehearsals", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_expression")
    assert await api.get("/screening/rehearsals") == []


async def test_hostile_mail_is_tried_like_any_other(api: RunningApi) -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(10_000))
    for body in (nested, b"\0" * 1000, b"From: x\r\n" + b"X: y\r\n" * 100_000, b"x" * 5_000_000):
        found = await result_of(api, body)
        assert found["failure"] == ""
        assert found["verdict"]["decision"] in ("pass", "hold")


async def test_the_command_tells_the_same(api: RunningApi, tmp_path: Path) -> None:
    message, draft = tmp_path / "a.eml", tmp_path / "draft.json"
    message.write_bytes(CAUGHT)
    draft.write_text(json.dumps([RULE | {"id": "mine"}, RULE | {"id": "other", "condition": {"type": "user"}}]))
    where = ["--api", str(api.client.base_url.join("/")), "--token-file", str(api.settings.admin_token_file)]

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, ["screening", "test", *arguments, *where])

    told = await run(str(message), "--rules", str(draft), "--from", "x@sender.example")
    assert told.exit_code == 0, told.output
    assert printed(told) == [
        "hold  rule wires",
        "  1 +7: wire the money",
        "mine  decided    wires",
        "other  failed     wires  it is not so that a user sent it",
    ]
    assert printed(await run(str(message))) == ["pass"]
    draft.write_text("no JSON")
    assert (await run(str(message), "--rules", str(draft))).exit_code == 1


def printed(result: Any) -> list[str]:
    """Without what the api, which runs in the same process, logs meanwhile."""
    return [line for line in result.output.splitlines() if not re.match(r"\d{4}-", line)]


async def with_clamd(api: RunningApi, clamd: ClamdServer, **settings: Any) -> None:
    body = {"enabled": True, "address": clamd.tcp, "timeout_s": 5} | settings
    answer = (await api.client.put("/engines/clamd", json=body)).raise_for_status()
    await until_live(api, int(answer.headers["Postern-Revision"]))


async def test_clamd_is_asked_about_what_is_tried_and_its_absence_is_told(api: RunningApi, tmp_path: Path) -> None:
    infected = CAUGHT + INFECTED
    with ClamdServer(tmp_path / "clamd") as clamd:
        await with_clamd(api, clamd)
        rule = {"name": "v", "condition": {"type": "virus", "names": ["postern.*"]}, "action": "delete"}
        draft = {"message": base64.b64encode(infected).decode(), "rules": [rule]}
        found = (await api.client.post("/screening/test", json=draft)).raise_for_status().json()
        assert (found["verdict"]["decision"], found["deferral"], found["failure"]) == ("delete", "", "")
        assert [rule["outcome"] for rule in found["rules"]] == ["decided"]
        unruled = await result_of(api, infected)
        assert (unruled["verdict"]["decision"], unruled["verdict"]["hold_reason"]) == ("hold", "virus")
        [answer] = unruled["verdict"]["answers"]
        assert (answer["engine"], answer["result"], answer["detail"]) == ("clamd", "found", f"{VIRUS}.UNOFFICIAL")
        assert (await result_of(api))["verdict"]["decision"] == "pass"

        await set_archive(api, on=True)
        await accept(api, CAUGHT, "a@relay.example")
        await screened(api)
        await eventually(lambda: has_archived(api, 1))
        clamd.stop()
        # with `defer`: live mail waits, and what is told is what it comes to when it has waited long enough
        away = await result_of(api)
        assert away["deferral"].startswith("clamd failed: cannot connect")
        assert (away["verdict"]["decision"], away["verdict"]["hold_reason"]) == ("hold", "engine-failed")
        assert (away["verdict"]["answers"][0]["result"], away["failure"]) == ("failed", "")
        # of a rule nobody can say that it does not match
        found = (await api.client.post("/screening/test", json=draft)).raise_for_status().json()
        assert [rule["outcome"] for rule in found["rules"]] == ["unknown"]
        # and a rehearsal takes it for no change that its rules make
        found = await rehearsed(api, source="archive")
        assert (found["state"], found["examined"], found["failed"], found["changed"]) == ("done", 1, 1, 0)
        await with_clamd(api, clamd, on_failure="pass")
        passed = await result_of(api)
        assert (passed["verdict"]["decision"], passed["verdict"]["unscanned"], passed["deferral"]) == ("pass", ["clamd"], "")


async def has_archived(api: RunningApi, number: int) -> bool:
    return len(await archived(api)) == number


async def test_a_rehearsal_goes_on_when_the_screener_is_back(broker: Broker, tmp_path: Path) -> None:
    starter, stop = ApiStarter(broker, tmp_path), asyncio.Event()
    bus = await broker.connect("screener")
    trials = Trials(bus, trial_command(1024), EngineDesk().ask)
    answering: list[asyncio.Task[None]] = []
    try:
        api = await starter(BOOTSTRAP)
        await hold(bus, an_envelope())
        begun = (await api.client.post("/screening/rehearsals", json={"source": "held"})).raise_for_status().json()

        async def is_read() -> bool:
            return bool((await api.get(f"/screening/rehearsals/{begun['id']}"))["progress"])

        await eventually(is_read)
        answering.append(asyncio.create_task(trials.run(stop)))

        async def is_over() -> str:
            state = (await api.get(f"/screening/rehearsals/{begun['id']}"))["state"]
            return "" if state == "running" else str(state)

        assert await eventually(is_over, 40) == "done"
    finally:
        stop.set()
        await starter.close()
        await asyncio.gather(*answering)
        await bus.close()


async def test_a_request_that_the_screener_has_no_time_for_ends_a_rehearsal_and_is_not_made_again(
    broker: Broker, tmp_path: Path
) -> None:
    """Only while others are tried is it made again: rules that take too long to compile would do so thirty times."""
    starter, asked = ApiStarter(broker, tmp_path), []
    screener = await broker.connect("screener")

    async def refuse(msg: Msg) -> None:
        asked.append(msg.subject)
        await msg.respond(msgspec.json.encode(ControlError(message="there was no time for this trial: the screener is busy")))

    await screener.client.subscribe("control.screener.*", cb=refuse)
    try:
        api = await starter(BOOTSTRAP)
        await hold(screener, an_envelope())
        found = await rehearsed(api, source="held")
        assert (found["state"], len(asked)) == ("failed", 1)
        assert "no time" in found["detail"]
    finally:
        await starter.close()
        await screener.close()


# -- rehearsals


async def accept(api: RunningApi, body: bytes, *recipients: str) -> str:
    """A message in INTAKE, as a gate leaves it. Returns its id."""
    gate = await api.broker.connect("ingress-anon")
    envelope = msgspec.structs.replace(an_envelope(*recipients), size_bytes=len(body))
    stowed, inline = await BodyStore(gate, "ingress-anon", 512 * 1024).stow(envelope, envelope.id, body)
    await gate.publish(INTAKE, intake_subject(Gate.ANON, envelope.id), frame(stowed, bytes(inline)), f"{envelope.id}:intake")
    await gate.close()
    return envelope.id


async def screened(api: RunningApi) -> None:
    async def is_empty() -> bool:
        return not (await api.bus.stream_state(INTAKE))["messages"]

    await eventually(is_empty)


async def set_archive(api: RunningApi, on: bool) -> None:
    settings = await api.get("/settings")
    answer = (await api.client.put("/settings", json=settings | {"archive": on})).raise_for_status()
    await until_live(api, int(answer.headers["Postern-Revision"]))


async def until_live(api: RunningApi, revision: int) -> None:
    async def is_live() -> bool:
        status = await api.get("/status")
        return any(each["service"] == "screener" and each["revision"] == revision for each in status["replicas"])

    await eventually(is_live)


async def archived(api: RunningApi) -> list[str]:
    """The ids of the messages in the archive."""
    found: list[str] = []
    sequence = 1
    while (stored := await api.bus.next_on(ARCHIVE, "archive.*", sequence)) is not None:
        found += [head.envelope.id for head, _ in unframe_archived(stored.data)]
        sequence = stored.sequence + 1
    return found


async def rehearsed(api: RunningApi, **body: Any) -> Any:
    begun = (await api.client.post("/screening/rehearsals", json=body)).raise_for_status().json()

    async def over() -> Any:
        found = await api.get(f"/screening/rehearsals/{begun['id']}")
        return found if found["state"] != "running" else None

    return await eventually(over, 40)


async def test_the_traffic_of_the_last_hours_is_rehearsed_with_a_draft_and_tells_who_already_got_it(api: RunningApi) -> None:
    before = await accept(api, CAUGHT, "early@relay.example")
    await screened(api)
    await set_archive(api, on=True)
    caught = [await accept(api, CAUGHT, "a@relay.example", f"{n}@relay.example") for n in range(3)]
    large = await accept(api, CAUGHT + b"x" * 700_000, "large@relay.example")
    clean = [await accept(api, b"From: x@sender.example\r\nSubject: hello\r\n\r\nhello\r\n", "a@relay.example") for _ in range(2)]
    await screened(api)

    async def all_there() -> bool:
        return set(await archived(api)) == {*caught, large, *clean}

    await eventually(all_there)
    assert before not in await archived(api)
    found = await rehearsed(api, source="archive", rules=[RULE | {"id": "mine"}])
    assert (found["state"], found["draft"], found["examined"], found["changed"], found["progress"]) == ("done", True, 6, 4, 1.0)
    assert {change["queue_id"] for change in found["changes"]} == {*caught, large}
    change = found["changes"][0]
    assert (change["before"]["decision"], change["after"]["decision"], change["after"]["rule_id"]) == ("pass", "hold", "mine")
    assert (change["sender"], change["subject"], change["source"]) == ("x@sender.example", "Your invoice", "archive")
    assert "a@relay.example" in change["recipients"]
    assert found["already_got"][0] == {"recipient": "a@relay.example", "messages": 3}
    assert len(found["already_got"]) == 5
    # and it keeps no more of that than it shows
    (kept,) = api.api.context.rehearsals.known()
    assert kept.draft.policy.rules == ()
    assert {(change.after.criteria, len(change.after.findings), change.after.findings[0].excerpt) for change in kept.changes} == {
        ((), 1, "")
    }
    # a rule that is in force now is tried on what went through before
    (await api.client.post("/rules", json=RULE)).raise_for_status()
    assert (await rehearsed(api, source="archive"))["changed"] == 4
    assert (await rehearsed(api, source="archive", hours=1, most=2))["examined"] == 2
    noted = [entry for entry in (await api.get("/audit"))["entries"] if entry["action"] == "screening.rehearse"]
    # what was looked for in everybody's mail, too
    assert [RULE["condition"]["phrases"][0] in str(entry["changes"]) for entry in noted] == [False, False, True]
    # switched off, nothing more is kept
    await set_archive(api, on=False)
    later = await accept(api, CAUGHT, "late@relay.example")
    await screened(api)
    assert later not in await archived(api)


async def test_held_mail_is_rehearsed_with_rules_that_would_let_it_go(api: RunningApi) -> None:
    added = (await api.client.post("/rules", json=RULE)).raise_for_status()
    await until_live(api, int(added.headers["Postern-Revision"]))
    held = [await accept(api, CAUGHT + b"x" * size, "a@relay.example") for size in (0, 600_000)]
    await screened(api)
    found = await rehearsed(api, source="held", rules=[])
    assert {change["queue_id"] for change in found["changes"]} == set(held)
    for change in found["changes"]:
        assert (change["before"]["rule_name"], change["before"]["decision"], change["after"]["decision"]) == (
            "wires",
            "hold",
            "pass",
        )
    assert found["already_got"] == []
    assert (await rehearsed(api, source="all"))["changed"] == 0
    # nothing came of it: what is held is held
    assert {row["queue_id"] for row in (await api.get("/quarantine"))["rows"]} == set(held)


async def test_held_mail_that_was_split_off_is_rehearsed_as_it_came_in(api: RunningApi) -> None:
    """Was: as of gate `internal`, so that no condition about the direction held of it."""
    for_one = {"type": "all", "of": [RULE["condition"], {"type": "recipient", "patterns": ["a@relay.example"]}]}
    added = (await api.client.post("/rules", json=RULE | {"condition": for_one})).raise_for_status()
    await until_live(api, int(added.headers["Postern-Revision"]))
    await accept(api, CAUGHT, "a@relay.example", "b@relay.example")
    await screened(api)
    draft = {"name": "from outside", "id": "mine", "condition": {"type": "direction", "gates": ["anon"]}, "action": "delete"}
    [change] = (await rehearsed(api, source="held", rules=[draft]))["changes"]
    assert (change["recipients"], change["after"]["decision"], change["after"]["rule_id"]) == (
        ["a@relay.example"],
        "delete",
        "mine",
    )


async def test_a_replica_that_did_not_begin_a_rehearsal_says_so(api: RunningApi, broker: Broker, tmp_path: Path) -> None:
    other = ApiStarter(broker, tmp_path)
    try:
        second = await other(instance="second")
        begun = (await api.client.post("/screening/rehearsals", json={"source": "held"})).raise_for_status().json()
        answer = await second.client.get(f"/screening/rehearsals/{begun['id']}")
        assert (answer.status_code, answer.json()["error"]) == (404, "rehearsal_not_found")
        assert "another replica was asked to begin it" in answer.json()["message"]
        # another one may be begun there: the screener tries them in turn
        assert (await second.client.post("/screening/rehearsals", json={"source": "held"})).status_code == 201
    finally:
        await other.close()


async def test_a_rehearsal_waits_for_live_mail_and_can_be_stopped(broker: Broker, tmp_path: Path) -> None:
    starter, stop = ApiStarter(broker, tmp_path), asyncio.Event()
    bus = await broker.connect("screener")
    answering = asyncio.create_task(
        Trials(bus, trial_command(1024), EngineDesk().ask).run(stop)
    )  # it answers the api, and screens no mail
    try:
        api = await starter(BOOTSTRAP)
        screener = await broker.connect("screener")
        await hold(screener, an_envelope())
        await screener.close()
        backlog = [await accept(api, CAUGHT, "a@relay.example") for _ in range(30)]
        begun = (await api.client.post("/screening/rehearsals", json={"source": "held"})).raise_for_status().json()
        path = f"/screening/rehearsals/{begun['id']}"

        async def waits() -> bool:
            return bool((await api.get(path))["waiting"])

        await eventually(waits)
        second = await api.client.post("/screening/rehearsals", json={})
        assert (second.status_code, second.json()["error"]) == (409, "rehearsing")
        assert (await api.client.delete(path)).status_code == 204
        assert (await api.get(path))["state"] == "stopped"
        assert (await api.get(path))["examined"] == 0
        again = (await api.client.post("/screening/rehearsals", json={"source": "held"})).raise_for_status().json()
        assert [each["id"] for each in await api.get("/screening/rehearsals")] == [again["id"], begun["id"]]
        await eventually(lambda: waits_on(api, again["id"]))
        serving = asyncio.create_task(serve(bus, stop, Settings(**broker.settings("screener").model_dump())))
        assert backlog

        async def done() -> bool:
            return bool((await api.get(f"/screening/rehearsals/{again['id']}"))["state"] == "done")

        await eventually(done, 30)
        assert (await api.get(f"/screening/rehearsals/{again['id']}"))["examined"] == 1
        assert (await api.client.delete(path)).status_code == 204  # it is over: forgotten
        assert (await api.client.get(path)).json()["error"] == "rehearsal_not_found"
        stop.set()
        await serving
    finally:
        stop.set()
        await starter.close()
        await answering
        await bus.close()


async def waits_on(api: RunningApi, identity: str) -> bool:
    return bool((await api.get(f"/screening/rehearsals/{identity}"))["waiting"])


async def test_mail_goes_on_where_the_archive_cannot_be_written(api: RunningApi) -> None:
    await set_archive(api, on=True)
    provisioner = await api.broker.connect("provisioner")
    await provisioner.jetstream.delete_stream(ARCHIVE)
    sent = [await accept(api, CAUGHT, "a@relay.example") for _ in range(5)]
    await screened(api)
    assert len(await api.bus.subjects("OUTBOUND", "outbound.*.*")) == len(sent)
    await provisioner.close()
