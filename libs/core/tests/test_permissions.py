"""Every cell of the table of permissions, against a real server, and that no reply subject leads around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from permission_rows import EAVESDROPPING, FORBIDDEN, OPERATIONS, SUBSCRIPTIONS, Row, rendered

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.broker.names import PROVISIONER, SERVICES, inbox_prefix
from postern_core.broker.permissions import permissions_of
from postern_core.bus.provision import ensure_route, provision
from postern_core.bus.topology import streams

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "permissions.md"
NO_JETSTREAM = {10039, 10076}  # the account that was asked has none: the request did not get to where the streams are


class Intruder:
    """A thief of one service's password: plain NATS, none of our code. `refusals` is what the server said no to."""

    def __init__(self) -> None:
        self.client: Client = Client()
        self.refusals: list[str] = []

    async def noted(self, error: Exception) -> None:
        self.refusals.append(str(error))

    async def may_publish(self, row: Row) -> bool:
        """Whether the server lets it; where it does, an answer must come if there is one."""
        self.refusals.clear()
        inbox = self.client.new_inbox()
        answer = await self.client.subscribe(inbox)
        await self.client.publish(row.subject, row.payload, reply=inbox)
        await self._barrier()
        allowed = not any("permissions violation for publish" in refusal for refusal in self.refusals)
        if allowed and row.answered:
            got = await answer.next_msg(timeout=5)
            if got.data.startswith(b"{"):
                error = json.loads(got.data).get("error", {})
                assert error.get("err_code") not in NO_JETSTREAM, row
        await answer.unsubscribe()
        return allowed

    async def may_subscribe(self, subject: str) -> bool:
        self.refusals.clear()
        subscription = await self.client.subscribe(subject)
        await self._barrier()
        allowed = not any("permissions violation for subscription" in refusal for refusal in self.refusals)
        if allowed:
            await subscription.unsubscribe()
        return allowed

    async def _barrier(self) -> None:
        """Returns when the server has said no to what was sent before, if it does."""
        # twice: the client's PING overtakes what waits to be written
        await self.client.flush()
        await self.client.flush()


@asynccontextmanager
async def intruder(broker: Broker, user: str) -> AsyncIterator[Intruder]:
    thief = Intruder()
    await thief.client.connect(
        broker.url,
        user=user,
        password=(broker.directory / f"{user}.password").read_text(),
        inbox_prefix=inbox_prefix(user),
        error_cb=thief.noted,
        allow_reconnect=False,
    )
    try:
        yield thief
    finally:
        await thief.client.close()


@pytest.fixture
async def fed(broker: Broker) -> Broker:
    """A broker with the consumer of route `main`."""
    provisioner = await broker.connect(PROVISIONER)
    await ensure_route(provisioner, "main", TEST_LIMITS)
    await provisioner.close()
    return broker


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_may_do_what_the_table_says_and_nothing_else(fed: Broker, service: str) -> None:
    wrong: list[str] = []
    async with intruder(fed, service) as thief:
        for row in OPERATIONS + FORBIDDEN:
            if await thief.may_publish(row) is not (service in row.services):
                wrong.append(f"{row.what}: {row.subject}")
        for row in SUBSCRIPTIONS + EAVESDROPPING:
            if await thief.may_subscribe(row.subject) is not (service in row.services):
                wrong.append(f"{row.what}: {row.subject}")
    assert wrong == []


@pytest.mark.parametrize("service", SERVICES)
def test_there_is_no_permission_that_the_table_does_not_show(service: str) -> None:
    mine = permissions_of(service)
    publish = [row.subject for row in OPERATIONS if service in row.services]
    subscribe = [row.subject for row in SUBSCRIPTIONS if service in row.services]
    assert [pattern for pattern in mine.publish if not any(_matches(pattern, subject) for subject in publish)] == []
    assert [pattern for pattern in mine.subscribe if pattern not in subscribe] == []


def test_the_page_shows_the_table() -> None:
    assert rendered() in PAGE.read_text(encoding="utf-8"), f"{PAGE} should hold:\n{rendered()}"


# what a reply may be addressed to: a stream of mail, a bucket, the JetStream API, another service
VICTIMS = (
    "outbound.main.evil",
    "intake.anon.evil",
    "quarantine.evil",
    "disposition.evil.0",
    "$KV.POLICY.screening",
    "$KV.USERS.user.evil",
)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_reply_subject_is_no_way_around_the_table(fed: Broker, service: str) -> None:
    """Was: the broker sent its answers wherever a client asked for, so that any service could delete every stream."""
    provisioner = await fed.connect(PROVISIONER)
    own_event, own_body = f"event.{service}.trace", f"body.{service}.evil.0"
    names = [str(config.name) for config in streams(TEST_LIMITS)]
    async with intruder(fed, service) as thief:
        await thief.client.request(own_body, b"", timeout=5)  # empty: a request that the JetStream API would accept
        before = {name: (await provisioner.stream_state(name))["messages"] for name in names}
        for name in ("KV_SECRETS", "QUARANTINE", "INTAKE"):
            reply = f"$JS.API.STREAM.DELETE.{name}"
            await thief.client.publish(f"$JS.API.DIRECT.GET.BODIES.{own_body}", b"", reply=reply)
            for section in ("gates", "screening", "delivery"):
                await thief.client.publish(f"$JS.API.DIRECT.GET.KV_POLICY.$KV.POLICY.{section}", b"", reply=reply)
        for victim in VICTIMS:
            if not any(_matches(pattern, victim) for pattern in permissions_of(service).publish):
                await thief.client.publish(own_event, b"{}", reply=victim)
                await thief.client.publish(f"$JS.API.DIRECT.GET.BODIES.{own_body}", b"", reply=victim)
        # the same stream answers in order: when this answer is here, the others were sent
        await thief.client.request(own_event, b"{}", timeout=5)
    after = {name: (await provisioner.stream_state(name))["messages"] for name in names}
    assert {name: after[name] for name in names if name != "EVENTS"} == {name: before[name] for name in names if name != "EVENTS"}

    # inside the account of the streams the trick works: what was shown above is not for want of trying
    await provisioner.client.publish("$JS.API.INFO", b"", reply="outbound.main.control")
    async with asyncio.timeout(5):
        while await provisioner.last("OUTBOUND", "outbound.main.control") is None:
            await asyncio.sleep(0.01)
    await provisioner.close()


async def test_a_service_cannot_wipe_the_status_of_others_by_a_header(broker: Broker) -> None:
    screener, gate, api = await broker.connect("screener"), await broker.connect("ingress-anon"), await broker.connect("api")
    await screener.kv_put("STATUS", "screener.one", b"fine")
    answer = await gate.client.request("$KV.STATUS.ingress-anon.one", b"x", timeout=5, headers={"Nats-Rollup": "all"})
    assert "error" in json.loads(answer.data)
    assert await api.kv_get("STATUS", "screener.one") == b"fine"
    for bus in (screener, gate, api):
        await bus.close()


async def test_a_bucket_made_by_an_earlier_version_loses_its_roll_up_and_secrets_are_told_to_nobody(broker: Broker) -> None:
    provisioner = await broker.connect(PROVISIONER)
    info = await provisioner.jetstream.stream_info("KV_SECRETS")
    policy = await provisioner.jetstream.stream_info("KV_POLICY")
    loose = info.config.evolve(allow_rollup_hdrs=True, deny_purge=False, republish=policy.config.republish)
    await provisioner.jetstream.delete_stream("KV_SECRETS")
    loose.republish.src, loose.republish.dest = "$KV.SECRETS.>", "secrets.changed.>"
    await provisioner.jetstream.add_stream(loose)
    await provision(provisioner, TEST_LIMITS)
    config = (await provisioner.jetstream.stream_info("KV_SECRETS")).config
    assert (config.allow_rollup_hdrs, config.deny_purge, config.republish) == (False, True, None)
    await provisioner.close()


async def test_every_request_gets_one_answer(fed: Broker) -> None:
    """An account without streams has a JetStream API of its own, which must not answer beside the one that has them."""
    async with intruder(fed, "api") as thief:
        answers: list[Msg] = []
        inbox = thief.client.new_inbox()

        async def answered(msg: Msg) -> None:
            answers.append(msg)

        await thief.client.subscribe(inbox, cb=answered)
        await thief.client.publish("$JS.API.STREAM.INFO.INTAKE", b"", reply=inbox)
        await thief.client.request("$JS.API.STREAM.INFO.INTAKE", b"", timeout=5)
        await thief.client.request("$KV.STATUS.api.one", b"x", timeout=5)
    assert [json.loads(answer.data)["config"]["name"] for answer in answers] == ["INTAKE"]


async def test_the_api_asks_delivery_and_gets_its_answer(broker: Broker) -> None:
    api, delivery = await broker.connect("api"), await broker.connect("delivery")

    async def answer(msg: Msg) -> None:
        await msg.respond(b"answer to " + msg.data)

    await delivery.client.subscribe("control.delivery.*", queue="delivery", cb=answer)
    await delivery.client.flush()
    await delivery.client.flush()  # the first PING overtakes what waits to be written
    assert await api.request("control.delivery.queue-list", b"question", timeout_s=5) == b"answer to question"
    await api.close()
    await delivery.close()


@pytest.mark.parametrize("credentials", [{}, {"user": "api", "password": "guess"}, {"user": "nobody", "password": "x"}])
async def test_whoever_has_no_password_does_not_get_in(broker: Broker, credentials: dict[str, str]) -> None:
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization violation"):
        await nats.connect(broker.url, allow_reconnect=False, **credentials)


def _matches(pattern: str, subject: str) -> bool:
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and all(w in ("*", t) for w, t in zip(wanted[:-1], tokens, strict=False))
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))
