"""An intrusion, as a gate tells of it, through the whole stack: listed, mailed, posted, acknowledged, reset, raised again."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.relay import Relay
from fixtures.smart_host import ReceivedMessage
from fixtures.stack import eventually
from fixtures.webhook import Receiver
from postern_core.bus import NoticeSink, connect
from postern_core.notices import NoticeKind
from postern_core.settings import BusSettings

OVERFLOW = "command-too-long"
SECRET = b"a secret of the tests"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver(tls=True) as running:
        yield running


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Relay]:
    folder = tmp_path_factory.mktemp("alerts")
    secret, ca = folder / "secret", folder / "ca.pem"
    secret.write_bytes(SECRET)
    ca.write_bytes(receiver.certificate)
    settings = {"POSTERN_WEBHOOK_SECRET_FILE": str(secret), "POSTERN_WEBHOOK_CA_FILE": str(ca)}
    with Relay(folder / "var", environment=settings) as running:
        yield running


def tell(relay: Relay, about: str) -> None:
    """As the anonymous gate does, with its own password."""
    addresses = json.loads((relay.state / "addresses.json").read_text(encoding="utf-8"))

    async def once() -> None:
        bus = await connect(
            BusSettings(
                instance="a-test",
                nats_url=f"nats://{addresses['nats']}",
                nats_user="ingress-anon",
                nats_password_file=Path(relay.state / "secrets" / "ingress-anon.password"),
                nats_monitor_url=f"http://{addresses['monitor']}",
            ),
            "ingress-anon",
        )
        sink, stop = NoticeSink(bus, "ingress-anon", "a-test"), asyncio.Event()
        sink.tell(NoticeKind.COMMAND_TOO_LONG, about, verb="MAIL", length=4711)
        stop.set()
        await sink.run(stop)
        await bus.close()

    asyncio.run(once())


def alert(relay: Relay, **expected: Any) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        found: dict[str, Any] = relay.api.get(f"/alerts/{OVERFLOW}").raise_for_status().json()
        return found if all(found[name] == value for name, value in expected.items()) else None

    return eventually(find, f"the alert to be {expected}") or {}


def test_an_intrusion_is_listed_mailed_posted_acknowledged_reset_and_raised_again(relay: Relay, receiver: Receiver) -> None:
    channels = {"mail_to": ["postmaster@relay.example"], "webhooks": [receiver.url()]}
    relay.api.put("/alerts/channels", json=channels).raise_for_status()
    assert "no alerts" in relay.postern("alerts")
    tell(relay, "192.0.2.7")
    alert(relay, standing="open", raises=1)

    def mails(about: bytes) -> list[ReceivedMessage]:
        wanted = [mail for mail in relay.smart_host.messages if mail.recipients == ("postmaster@relay.example",)]
        return [mail for mail in wanted if about in mail.data]

    mail = relay.wait_for_arrival(lambda mail: b"* 192.0.2.7:" in mail.data)
    assert (mail.reverse_path, mail.recipients) == ("", ("postmaster@relay.example",))
    assert b"Subject: [Postern] A command was longer than its verb may be (overflow)\r\n" in mail.data
    posted = eventually(lambda: receiver.posted, "the webhook to be called")[0]
    assert json.loads(posted.body)["subjects"][0]["fields"] == {"verb": "MAIL", "length": 4711}
    at, _, digest = posted.headers["postern-signature"].removeprefix("t=").partition(",v1=")
    assert digest == hmac.new(SECRET, f"{at}.".encode() + posted.body, hashlib.sha256).hexdigest()

    # what Postern wrote itself is in the books
    [row] = relay.api.get("/alerts/history").raise_for_status().json()["raises"]
    assert sorted((told["channel"], told["state"]) for told in row["deliveries"]) == [("mail", "done"), ("webhook", "done")]

    def balanced() -> bool:
        gate = relay.api.get("/ledger").raise_for_status().json()["gates"].get("internal", {})
        return bool((gate.get("accepted"), gate.get("delivered"), gate.get("in_flight", 0)) == (1, 1, 0))

    eventually(balanced, "the books to balance")

    assert f"open {OVERFLOW}" in relay.postern("alerts", check=False)
    assert f"acknowledged {OVERFLOW}" in relay.postern("alerts", "acknowledge", OVERFLOW)
    tell(relay, "192.0.2.8")  # within the hour: counted, and no more
    alert(relay, standing="acknowledged", count=2, raises=1)
    assert f"quiet {OVERFLOW}" in relay.postern("alerts", "reset", OVERFLOW)
    tell(relay, "192.0.2.9")
    alert(relay, standing="open", count=1, raises=1)
    relay.wait_for_arrival(lambda mail: b"* 192.0.2.9:" in mail.data)
    eventually(lambda: len(receiver.posted) == 2, "the second post")
    assert [len(mails(about)) for about in (b"192.0.2.7", b"192.0.2.8", b"192.0.2.9")] == [1, 0, 1]
