"""Mailboxes of relay domains, and greylisting, through the whole stack: what is refused at RCPT needs no NDR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import eventually

DOMAIN = "boxes.example"


@contextmanager
def domain(relay: Relay, recipients: str) -> Iterator[None]:
    """Inside the block there is this domain, whose mail goes to the smart host."""
    relay.api.post("/domains", json={"pattern": DOMAIN, "recipients": recipients}).raise_for_status()
    try:
        yield
    finally:
        relay.api.delete(f"/domains/{DOMAIN}").raise_for_status()


def reply_to(relay: Relay, recipient: str) -> tuple[int, bytes]:
    with relay.client("anon") as client:
        client.ehlo()
        client.mail("x@sender.example")
        return client.rcpt(recipient)


def refused(relay: Relay, recipient: str) -> bool:
    code, text = reply_to(relay, recipient)
    return (code, text[:5]) == (550, b"5.1.1")


def test_the_smart_host_is_asked_before_mail_is_taken(relay: Relay) -> None:
    before = relay.smart_host_count()
    with relay.recipient_refused(f"gone@{DOMAIN}"), domain(relay, "callout"):
        eventually(lambda: refused(relay, f"gone@{DOMAIN}"), "callouts")
        sent = relay.send(a_message(), to=[f"ann@{DOMAIN}"])
        assert relay.dispositions(sent) == {f"ann@{DOMAIN}": "delivered"}
    relay.wait_balanced()
    assert relay.smart_host_count() == before + 1  # no NDR, and no message that came of asking


def test_a_list_is_in_force_as_soon_as_it_is_changed(relay: Relay) -> None:
    path = f"/domains/{DOMAIN}/recipients"
    with domain(relay, "list"):
        relay.api.put(path, content=f"ann@{DOMAIN}\n", headers={"Content-Type": "text/plain"}).raise_for_status()
        eventually(lambda: reply_to(relay, f"ann@{DOMAIN}")[0] == 250, "the list")
        assert refused(relay, f"bob@{DOMAIN}")
        relay.api.patch(path, json={"add": [f"bob@{DOMAIN}"], "remove": [f"ann@{DOMAIN}"]}).raise_for_status()
        eventually(lambda: refused(relay, f"ann@{DOMAIN}"), "the changed list")
        sent = relay.send(a_message(), to=[f"bob@{DOMAIN}"])
        assert relay.dispositions(sent) == {f"bob@{DOMAIN}": "delivered"}
    relay.wait_balanced()


def test_greylisting_is_switched_on_and_off(relay: Relay) -> None:
    path = "/listeners/anon/greylisting"
    relay.api.put(path, json={"enabled": True}).raise_for_status()
    try:
        eventually(lambda: reply_to(relay, "ann@relay.example")[1].startswith(b"4.7.1 greylisted"), "greylisting")
    finally:
        relay.api.put(path, json={}).raise_for_status()
    eventually(lambda: reply_to(relay, "ann@relay.example")[0] == 250, "no greylisting")
