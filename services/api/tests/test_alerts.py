"""Alerts over a real broker and a real receiver of webhooks: what a service tells is listed, told on, acknowledged, reset and raised again."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.broker import Broker
from fixtures.gates import gate_under_test
from fixtures.webhook import Receiver
from postern_api.alarms.look import Stale, stale_replicas
from postern_api.alerts import sending
from postern_api.alerts.mail import build
from postern_api.alerts.repository import Channel, Due, RaiseRow
from postern_api.alerts.thresholds import Subject
from postern_api.alerts.webhook import checked_webhook, signature
from postern_api.errors import InvalidError
from postern_core.alerts import AlertRaised
from postern_core.bus import Bus, NoticeSink, StatusReporter
from postern_core.control import ServiceStatus
from postern_core.envelope import Gate, unframe
from postern_core.job import Job
from postern_core.notices import NoticeKind
from postern_core.policy import GateState
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

OVERFLOW = "command-too-long"
SECRET = "a secret of the tests"


@pytest.fixture
async def gate(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("ingress-anon")
    yield bus
    await bus.close()


async def tell(gate: Bus, kind: NoticeKind = NoticeKind.COMMAND_TOO_LONG, about: str = "192.0.2.7", **fields: Any) -> None:
    """As a gate does."""
    sink, stop = NoticeSink(gate, "ingress-anon", "gate-1"), asyncio.Event()
    sink.tell(kind, about, **fields)
    stop.set()
    await sink.run(stop)


async def alert(api: RunningApi, kind: str = OVERFLOW, **expected: Any) -> dict[str, Any]:
    """The alert, as soon as it is as expected."""

    async def find() -> dict[str, Any]:
        found: dict[str, Any] = await api.get(f"/alerts/{kind}")
        return found if all(found[name] == value for name, value in expected.items()) else {}

    return await eventually(find)


async def told(api: RunningApi, number: int, state: str = "done") -> list[dict[str, Any]]:
    """The raises, once `number` deliveries are in that state."""

    async def find() -> list[dict[str, Any]]:
        raises: list[dict[str, Any]] = (await api.get("/alerts/history"))["raises"]
        return raises if sum(each["state"] == state for row in raises for each in row["deliveries"]) == number else []

    return await eventually(find)


async def put(api: RunningApi, path: str, body: dict[str, Any]) -> Any:
    answer = await api.client.put(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def test_an_alert_is_listed_acknowledged_reset_and_raised_again(api: RunningApi, gate: Bus) -> None:
    before = await api.get("/alerts")
    assert (before["open"], {each["standing"] for each in before["alerts"]}) == (0, {"quiet"})
    assert (await api.client.post(f"/alerts/{OVERFLOW}/acknowledge")).json()["error"] == "not_raised"
    await tell(gate, verb="MAIL", length=4711)
    found = await alert(api, standing="open")
    assert (found["count"], found["raises"], found["pending"]) == (1, 1, 0)
    listed = await api.get("/alerts", standing="open")
    assert [each["kind"] for each in listed["alerts"]] == [OVERFLOW]
    [row] = (await api.get("/alerts/history", kind=OVERFLOW))["raises"]
    assert row["subjects"] == [
        {"about": "192.0.2.7", "count": 1, "service": "ingress-anon/gate-1", "fields": {"verb": "MAIL", "length": 4711}}
    ]
    operator = await api.token("operator")
    answer = (await api.client.post(f"/alerts/{OVERFLOW}/acknowledge", headers=operator)).json()
    assert answer["standing"] == "acknowledged"
    assert answer["acknowledged_by"].startswith("a operator")
    # the catalogue's threshold: within an hour it is not raised again
    await tell(gate)
    found = await alert(api, count=2)
    assert (found["standing"], found["pending"], found["subjects"][0]["about"]) == ("acknowledged", 1, "192.0.2.7")
    assert (await api.client.post(f"/alerts/{OVERFLOW}/reset", headers=operator)).json()["standing"] == "quiet"
    await tell(gate)
    await alert(api, standing="open", count=1)
    assert len((await api.get("/alerts/history"))["raises"]) == 2
    assert [entry["action"] for entry in (await api.get("/audit", target="alerts/"))["entries"]] == [
        "alert.reset",
        "alert.acknowledged",
    ]


async def test_what_is_asked_for_is_listed(api: RunningApi, gate: Bus) -> None:
    begun = datetime.now(UTC).isoformat()
    await tell(gate, NoticeKind.TLS_FAILED)
    await alert(api, "tls-failed", standing="counting")
    listed = await api.get("/alerts", since=begun)
    assert [each["kind"] for each in listed["alerts"]] == ["tls-failed"]
    assert [each["kind"] for each in (await api.get("/alerts", kind=["overloaded", "tls-failed"]))["alerts"]] == [
        "tls-failed",
        "overloaded",
    ]
    assert (await api.get("/alerts", standing=["open", "acknowledged"]))["alerts"] == []
    assert (await api.client.get("/alerts?since=2026-03-01T00:00:00")).json()["error"] == "invalid_since"
    assert (await api.client.get("/alerts/no-such-kind")).status_code == 422


async def test_the_first_policy_may_have_alerts(start_api: ApiStarter) -> None:
    alerts = {"channels": {"mail_to": ["a@relay.example"]}, "thresholds": {"tls-failed": {"events_before_raise": 7}}}
    api = await start_api(BOOTSTRAP | {"alerts": alerts})
    assert (await api.get("/alerts/channels"))["mail_to"] == ["a@relay.example"]
    assert (await api.get("/alerts/tls-failed/thresholds"))["events_before_raise"] == 7


async def test_thresholds_and_channels_are_part_of_the_revisions(api: RunningApi) -> None:
    defaults = await api.get(f"/alerts/{OVERFLOW}/thresholds")
    wanted = {"events_before_raise": 3, "events_per_second": 2, "minutes_before_reraise": -1, "enabled": True, "notify": False}
    assert await put(api, f"/alerts/{OVERFLOW}/thresholds", wanted) == wanted
    await put(api, "/alerts/channels", {"mail_to": ["P@Relay.Example"], "webhooks": ["https://hook.example/x"]})
    assert (await api.get("/alerts/channels"))["mail_to"] == ["P@relay.example"]
    assert (await api.get(f"/alerts/{OVERFLOW}"))["thresholds"] == wanted
    difference = (await api.get("/revisions/1/diff/3"))["differences"]
    assert {each["object"] for each in difference} == {"alerts/channels", f"alerts/{OVERFLOW}/thresholds"}
    (await api.client.post("/revisions/1/rollback")).raise_for_status()
    assert await api.get(f"/alerts/{OVERFLOW}/thresholds") == defaults
    assert (await api.get("/alerts/channels"))["webhooks"] == []
    # nobody gets what makes no sense
    for body in (
        {"events_before_raise": 0},
        {"minutes_before_reraise": -2},
        {"events_per_second": -1},
        {"enabled": "no"},
        {"program": "/bin/sh"},
    ):
        assert (await api.client.put(f"/alerts/{OVERFLOW}/thresholds", json=body)).status_code == 422, body
    answer = await api.client.put("/alerts/channels", json={"mail_to": ["not an address"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_address")


# -- told


async def with_receiver(start_api: ApiStarter, tmp_path: Path, receiver: Receiver, **channels: Any) -> RunningApi:
    secret, ca = tmp_path / "webhook-secret", tmp_path / "webhook-ca.pem"
    secret.write_text(f"{SECRET}\n")
    settings: dict[str, Any] = {"webhook_secret_file": secret}
    if receiver.certificate:
        ca.write_bytes(receiver.certificate)
        settings["webhook_ca_file"] = ca
    api = await start_api(BOOTSTRAP, **settings)
    await put(api, "/alerts/channels", {"webhooks": [receiver.url()], **channels})
    return api


async def test_an_alert_is_posted_over_tls_and_signed(start_api: ApiStarter, tmp_path: Path, gate: Bus) -> None:
    with Receiver(tls=True) as receiver:
        api = await with_receiver(start_api, tmp_path, receiver)
        await tell(gate, about='evil "subject"\r\n', verb="MAIL")
        [row] = await told(api, 1)
    [posted] = receiver.posted
    assert posted.headers["content-type"] == "application/json"
    at, _, digest = posted.headers["postern-signature"].removeprefix("t=").partition(",v1=")
    assert digest == hmac.new(SECRET.encode(), f"{at}.".encode() + posted.body, hashlib.sha256).hexdigest()
    body = json.loads(posted.body)
    assert (body["id"], body["kind"], body["count"], body["relay"]) == (str(row["id"]), OVERFLOW, 1, "mx.relay.example")
    assert body["subjects"][0]["about"] == 'evil "subject"\r\n'
    assert row["deliveries"] == [
        {"channel": "webhook", "target": receiver.url(), "state": "done", "attempts": 1, "last_error": ""}
    ]


async def test_a_receiver_whose_certificate_is_not_verified_gets_nothing(
    start_api: ApiStarter, tmp_path: Path, gate: Bus
) -> None:
    with Receiver(tls=True) as receiver:
        certificate, receiver.certificate = receiver.certificate, b""
        api = await with_receiver(start_api, tmp_path, receiver)
        receiver.certificate = certificate
        await put(api, "/alerts/channels", {"webhooks": [receiver.url()]})
        await tell(gate)

        async def failed() -> bool:
            raises = (await api.get("/alerts/history"))["raises"]
            return bool(raises) and "ConnectError" in raises[0]["deliveries"][0]["last_error"]

        await eventually(failed)
        assert receiver.posted == []


async def test_a_receiver_that_fails_is_asked_again_and_given_up(
    start_api: ApiStarter, tmp_path: Path, gate: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WAITS_S", (0.01, 0.01))
    with Receiver() as receiver, Receiver() as elsewhere:
        api = await with_receiver(start_api, tmp_path, receiver)
        receiver.answers.extend([(500, ""), (302, elsewhere.url())])
        await tell(gate)
        [row] = await told(api, 1)
        assert row["deliveries"][0]["attempts"] == 3
        assert len({posted.body for posted in receiver.posted}) == 1
        receiver.answers.extend([(404, "")] * 3)
        await put(api, f"/alerts/{OVERFLOW}/thresholds", {})
        await tell(gate)
        [row, _] = await told(api, 1, "failed")
        assert (row["deliveries"][0]["attempts"], row["deliveries"][0]["last_error"]) == (3, "it answered 404")
    assert elsewhere.posted == []  # a redirect leads nowhere
    assert len(receiver.posted) == 6


async def test_two_replicas_tell_once(start_api: ApiStarter, tmp_path: Path, gate: Bus) -> None:
    with Receiver() as receiver:
        first = await with_receiver(start_api, tmp_path, receiver)
        second = await start_api()
        await put(first, f"/alerts/{OVERFLOW}/thresholds", {})
        for n in range(20):
            await tell(gate, about=f"192.0.2.{n}")
        found = await alert(second, count=20)
        raises = await told(second, found["raises"])
        # each event was raised once, and told once
        assert sum(row["count"] for row in raises) == 20
        assert len({json.loads(posted.body)["id"] for posted in receiver.posted}) == len(receiver.posted) == len(raises)


async def test_a_storm_is_withheld_and_stands_in_the_list(start_api: ApiStarter, tmp_path: Path, gate: Bus) -> None:
    with Receiver() as receiver:
        api = await with_receiver(start_api, tmp_path, receiver, most_per_hour=2)
        await put(api, f"/alerts/{OVERFLOW}/thresholds", {})
        for n in range(5):
            await tell(gate)
            await alert(api, count=n + 1)
        raises = await told(api, 3, "withheld")
        assert [row["deliveries"][0]["state"] for row in raises] == ["withheld"] * 3 + ["done"] * 2
    assert len(receiver.posted) == 2


async def test_a_kind_of_which_nobody_is_to_be_told(start_api: ApiStarter, tmp_path: Path, gate: Bus) -> None:
    with Receiver() as receiver:
        api = await with_receiver(start_api, tmp_path, receiver)
        await put(api, f"/alerts/{OVERFLOW}/thresholds", {"notify": False})
        await tell(gate)
        await alert(api, standing="open")
        assert [row["deliveries"] for row in (await api.get("/alerts/history"))["raises"]] == [[]]
    assert receiver.posted == []


async def test_an_alert_by_mail_is_a_message_of_our_own_to_delivery(api: RunningApi, gate: Bus) -> None:
    await put(api, "/alerts/channels", {"mail_to": ["postmaster@relay.example"]})
    await tell(gate, about="192.0.2.7\r\nBcc: x@elsewhere.example", verb="\u202eMAIL", line="." * 3000)
    [row] = await told(api, 1)
    [subject] = await api.bus.subjects("OUTBOUND", "outbound.>")
    assert subject.startswith("outbound.main.")
    queue_id = subject.rpartition(".")[2]
    delivery = await api.broker.connect("delivery")
    inbox = delivery.client.new_inbox()
    answers = await delivery.client.subscribe(inbox)
    await delivery.client.publish("$JS.API.CONSUMER.MSG.NEXT.OUTBOUND.delivery-main", b'{"batch":1}', reply=inbox)
    job, content = unframe((await answers.next_msg(timeout=5)).data, Job)
    await delivery.close()
    envelope = job.envelope
    assert (envelope.gate, envelope.reverse_path, envelope.size_bytes) == (Gate.INTERNAL, "", len(content))
    assert [recipient.address for recipient in envelope.recipients] == ["postmaster@relay.example"]
    message = email.message_from_bytes(bytes(content))
    assert message["Subject"] == "[Postern] A command was longer than its verb may be (overflow)"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Bcc"] is None
    assert "192.0.2.7\\r\\nBcc: x@elsewhere.example" in message.get_payload()
    assert "\\u202eMAIL" in message.get_payload()

    async def traced() -> Any:
        return (await api.get(f"/messages/{queue_id}"))["message"]

    accepted = await eventually(traced)
    assert (accepted["gate"], accepted["reverse_path"]) == ("internal", "")
    assert row["deliveries"][0]["target"] == "postmaster@relay.example"


async def test_without_a_route_mail_waits_for_one(start_api: ApiStarter, gate: Bus) -> None:
    api = await start_api()
    await put(api, "/alerts/channels", {"mail_to": ["postmaster@relay.example"]})
    await tell(gate)

    async def waits() -> bool:
        raises = (await api.get("/alerts/history"))["raises"]
        return bool(raises) and "no default route" in raises[0]["deliveries"][0]["last_error"]

    await eventually(waits)


# -- alarms


async def test_an_alarm_is_an_alert_as_well(start_api: ApiStarter, broker: Broker) -> None:
    api = await start_api(BOOTSTRAP, alarms_every_s=0.2)
    provisioner = await broker.connect("provisioner")
    await provisioner.api("STREAM.DELETE.BADMAIL", {})
    found = await alert(api, "stream-unreadable", standing="open")
    assert (found["source"], found["up"]) == ("alarm", ["BADMAIL"])
    assert (await alert(api, "stream-unreadable", count=1))["raises"] == 1
    await provisioner.close()


async def test_a_replica_with_an_old_policy_is_an_alert(start_api: ApiStarter, gate: Bus) -> None:
    api = await start_api(BOOTSTRAP, alarms_every_s=0.2)
    stop = asyncio.Event()
    said = {"ready": True, "revision": 0, "policy_error": "it has a pattern that does not compile", "in_flight": 0, "detail": ""}
    reporter = StatusReporter(gate, "ingress-anon", "gate-1", lambda: said, ready_file=None)
    reporting = asyncio.create_task(reporter.run(stop))
    found = await alert(api, "policy-stale", standing="open")
    assert found["up"] == ["ingress-anon/gate-1"]
    [row] = (await api.get("/alerts/history"))["raises"]
    assert "revision 0" in row["subjects"][0]["fields"]["summary"]
    assert "does not compile" in row["subjects"][0]["fields"]["summary"]
    said["revision"] = 1
    reporter.poke()
    await alert(api, "policy-stale", up=[])
    stop.set()
    await reporting


def test_a_replica_is_stale_only_behind_what_is_on_the_bus() -> None:
    def report(service: str, revision: int) -> ServiceStatus:
        return msgspec.convert(
            {
                "service": service,
                "instance": "one",
                "at": datetime.now(UTC),
                "started_at": datetime.now(UTC),
                "pid": 1,
                "ready": True,
                "revision": revision,
            },
            ServiceStatus,
        )

    reports = [report("screener", 3), report("delivery", 4), report("ingress-anon", 5), report("api", 0)]
    assert stale_replicas(reports, 4) == {"screener/one": Stale(3, 4, "")}
    assert stale_replicas(reports, 0) == {}


# -- pure


@pytest.mark.parametrize(
    "url",
    [
        "http://hook.example/",  # not secret, and not ours
        "http://localhost/",  # a name, which may lead anywhere
        "http://169.254.169.254/latest/meta-data",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://user:password@hook.example/",
        "https:///hook",
        "https://hook.example:99999/",
        "https://hook.example/\r\nX: y",
        "https://hook.example/#part",
        "https://hööк.example/",
        "",
    ],
)
def test_what_is_no_webhook(url: str) -> None:
    with pytest.raises(InvalidError):
        checked_webhook(url)


@pytest.mark.parametrize(
    "url", ["https://hook.example/a?b=c", "https://[2001:db8::1]:8443/x", "http://127.0.0.1:9/", "http://[::1]/"]
)
def test_what_is_one(url: str) -> None:
    assert checked_webhook(url) == url


def test_a_signature_is_that_of_its_time_and_body() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert (
        signature(b"secret", b"{}", at) == f"t=1772323200,v1={hmac.new(b'secret', b'1772323200.{}', hashlib.sha256).hexdigest()}"
    )


def test_a_message_is_ascii_with_short_lines_whatever_it_tells_of() -> None:
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    subjects = tuple(
        Subject(about="\U0001f600\0\ud800" * 60, count=n, service="s\n", fields={"x\r\ny": "\n.\n" + "\U0001f600" * 400})
        for n in range(20)
    )
    row = RaiseRow(1, OVERFLOW, at, at, at, 190, subjects)
    due = Due(1, Channel.MAIL, "pöstmaster@relay.example", 1, row, 7)
    content = build(due, hostname="mx.relay.example", postmaster="pöst@relay.example")
    assert content.isascii()
    assert b"\0" not in content
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) < 200
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert b"7 further alerts" in content
    assert email.message_from_bytes(content)["To"] == "undisclosed-recipients:;"


async def state_of(api: RunningApi, gate: str = "anon") -> dict[str, Any]:
    found: dict[str, Any] = await api.get(f"/listeners/{gate}/state")
    return found


async def paused(api: RunningApi, gate: str = "anon") -> dict[str, Any]:
    """Its state, once it is not open any more."""

    async def find() -> dict[str, Any]:
        found = await state_of(api, gate)
        return found if found["state"] != "open" else {}

    return await eventually(find)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


async def test_an_alert_pauses_the_gate_that_its_action_names_and_its_reset_opens_it(api: RunningApi, receiver: Receiver) -> None:
    await put(api, "/alerts/channels", {"webhooks": [receiver.url()]})
    # as it comes an alert pauses nothing
    assert await api.get(f"/alerts/{OVERFLOW}/action") == {"pause": [], "resume_at_reset": False}
    wanted = {"pause": ["anon"], "resume_at_reset": True}
    assert await put(api, f"/alerts/{OVERFLOW}/action", wanted) == wanted
    settings = Settings(**api.broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0", "instance": "mx-1"})
    async with gate_under_test(api.broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as running:
        await running.wait_for(lambda: running.listener.newest_rules() is not None)
        session = await running.session()
        # a real overflow: the gate tells, the api counts and raises, and the gate is paused
        assert (await (await running.session()).say(b"NOOP " + b"x" * 3000)).startswith("5")
        assert await paused(api) == {"state": "paused", "by_alert": OVERFLOW}
        await running.wait_for(lambda: running.listener.state is GateState.PAUSED)
        assert (await (await running.connect()).reply()).startswith("421 4.3.2")
        assert (await session.say("NOOP")).startswith("250")
        [row] = await told(api, 2)
        assert {(each["channel"], each["target"]) for each in row["deliveries"]} == {
            ("webhook", receiver.url()),
            ("pause", "anon"),
        }
        assert json.loads(receiver.posted[0].body)["pauses"] == ["anon"]
        entries = (await api.get("/audit", target="listeners/anon/state"))["entries"]
        assert [(entry["action"], entry["actor"]) for entry in entries] == [("listener.paused_by_alert", f"alert {OVERFLOW}")]
        assert (await state_of(api, "auth"))["state"] == "open"
        operator = await api.token("operator")
        (await api.client.post(f"/alerts/{OVERFLOW}/reset", headers=operator)).raise_for_status()
        assert await state_of(api) == {"state": "open", "by_alert": ""}
        await running.wait_for(lambda: running.listener.state is GateState.OPEN)
        assert (await (await running.connect()).reply()).startswith("220")


async def test_a_gate_that_an_administrator_took_over_is_not_touched(api: RunningApi, gate: Bus) -> None:
    await put(api, f"/alerts/{OVERFLOW}/action", {"pause": ["anon", "auth"], "resume_at_reset": True})
    await put(api, "/listeners/auth/state", {"state": "drained"})
    await tell(gate)
    await told(api, 2)
    assert (await paused(api))["by_alert"] == OVERFLOW
    assert await state_of(api, "auth") == {"state": "drained", "by_alert": ""}
    await put(api, "/listeners/anon/state", {"state": "paused"})
    (await api.client.post(f"/alerts/{OVERFLOW}/reset")).raise_for_status()
    assert (await state_of(api), await state_of(api, "auth")) == (
        {"state": "paused", "by_alert": ""},
        {"state": "drained", "by_alert": ""},
    )


async def test_without_that_setting_a_reset_opens_nothing(api: RunningApi, gate: Bus) -> None:
    await put(api, f"/alerts/{OVERFLOW}/action", {"pause": ["anon"]})
    await tell(gate)
    await paused(api)
    (await api.client.post(f"/alerts/{OVERFLOW}/reset")).raise_for_status()
    assert (await state_of(api))["state"] == "paused"


async def test_a_pause_that_comes_too_late_is_given_up(api: RunningApi, gate: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PAUSE_WITHIN", timedelta(0))
    await put(api, f"/alerts/{OVERFLOW}/action", {"pause": ["anon"]})
    await tell(gate)
    [row] = await told(api, 1, "failed")
    assert "could not be done within" in row["deliveries"][0]["last_error"]
    assert (await state_of(api))["state"] == "open"


async def test_only_an_administrator_says_what_alerts_pause(api: RunningApi) -> None:
    operator = await api.token("operator")
    answer = await api.client.put(f"/alerts/{OVERFLOW}/action", json={"pause": ["anon"]}, headers=operator)
    assert (answer.status_code, answer.json()["error"]) == (403, "scope_too_narrow")
    for wrong in ({"pause": ["screener"]}, {"run": "/bin/sh"}):
        assert (await api.client.put(f"/alerts/{OVERFLOW}/action", json=wrong)).status_code == 422


async def test_each_raise_is_told_on_the_bus(api: RunningApi, gate: Bus) -> None:
    await put(api, f"/alerts/{OVERFLOW}/action", {"pause": ["auth"]})
    reader = await api.broker.connect("provisioner")

    async def heard() -> AlertRaised | None:
        found = await reader.api("STREAM.MSG.GET.EVENTS", {"last_by_subj": "event.api.alert"}, tolerate_error=True)
        if "error" in found:
            return None
        return msgspec.json.decode(base64.b64decode(found["message"]["data"]), type=AlertRaised)

    await tell(gate)
    raised = await eventually(heard)
    assert raised is not None
    assert (raised.kind, raised.count, raised.about, raised.pauses) == (OVERFLOW, 1, ("192.0.2.7",), ("auth",))
    # and the api's own recorder takes it for what it is
    await eventually(lambda: _recorded(reader))
    await reader.close()


async def _recorded(reader: Bus) -> bool:
    info = await reader.api("CONSUMER.INFO.EVENTS.recorder", {})
    return int(info["num_pending"]) == 0 and int(info["num_ack_pending"]) == 0
