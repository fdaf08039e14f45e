"""What happens when a smart host is away, slow, or says no: retry queue, NDRs, badmail."""

from __future__ import annotations

from email import message_from_bytes

from fixtures.mail import a_message
from fixtures.relay import Relay


def test_smart_host_down_then_up(relay: Relay) -> None:
    with relay.schedule(intervals_s=[1, 1, 2], delay_notice_s=None, expiry_s=600):
        with relay.smart_host_down():
            queue_id = relay.send(a_message(), to=["a@relay.example", "b@relay.example"])
            row = relay.wait_queued(queue_id)
            assert sorted(row["recipients"]) == ["a@relay.example", "b@relay.example"]
            assert row["last_reply"]
        assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered", "b@relay.example": "delivered"}
    assert relay.copies(queue_id) == 1
    assert relay.api.get("/queue").json()["total"] == 0


def test_expiry_returns_the_mail_to_its_sender(relay: Relay) -> None:
    with relay.schedule(intervals_s=[1], delay_notice_s=None, expiry_s=3), relay.recipient_deferred("later@relay.example"):
        queue_id = relay.send(a_message(subject="expires"), to=["later@relay.example"], sender="me@relay.example")
        assert relay.wait_dispositions(queue_id, "expired") == {"later@relay.example": "expired"}
        ndr = relay.wait_for_arrival(lambda mail: mail.reverse_path == "" and mail.recipients == ("me@relay.example",))
    report = message_from_bytes(ndr.data)
    assert report.get_content_type() == "multipart/report"
    status = report.get_payload()[1].get_payload()[1]
    assert status["Action"] == "failed"
    assert status["Status"].startswith(("4.4.7", "5.4.7"))
    assert status["Final-Recipient"] == "rfc822; later@relay.example"


def test_one_recipient_refused_and_one_delivered(relay: Relay) -> None:
    with relay.recipient_refused("gone@relay.example"):
        queue_id = relay.send(a_message(), to=["gone@relay.example", "here@relay.example"], sender="me@relay.example")
        assert relay.dispositions(queue_id) == {"gone@relay.example": "bounced", "here@relay.example": "delivered"}
        ndr = relay.wait_for_arrival(
            lambda mail: mail.reverse_path == "" and b"gone@relay.example" in mail.data and queue_id.encode() in mail.data
        )
    assert ndr.recipients == ("me@relay.example",)
    assert relay.copies(queue_id) == 1


def test_a_delay_is_told_once(relay: Relay) -> None:
    with relay.schedule(intervals_s=[1], delay_notice_s=1, expiry_s=600):
        with relay.recipient_deferred("slow@relay.example"):
            queue_id = relay.send(a_message(subject="is delayed"), to=["slow@relay.example"], sender="me@relay.example")
            notice = relay.wait_for_arrival(lambda mail: mail.reverse_path == "" and b"Action: delayed" in mail.data)
            assert notice.recipients == ("me@relay.example",)
        assert relay.wait_dispositions(queue_id, "delivered") == {"slow@relay.example": "delivered"}


def test_what_can_neither_be_delivered_nor_returned_is_badmail(relay: Relay) -> None:
    with relay.recipient_refused("gone@relay.example"):
        queue_id = relay.send(a_message(), to=["gone@relay.example"], sender="")
        assert relay.dispositions(queue_id) == {"gone@relay.example": "badmail"}
    row = next(row for row in relay.api.get("/badmail").json()["rows"] if row["queue_id"] == queue_id)
    relay.api.delete(f"/badmail/{row['job_id']}").raise_for_status()


def test_an_administrator_retries_holds_and_deletes_queued_mail(relay: Relay) -> None:
    with relay.schedule(intervals_s=[3600], delay_notice_s=None, expiry_s=7200), relay.smart_host_down():
        retried, deleted = (relay.send(a_message(), to=["a@relay.example"]) for _ in range(2))
        for queue_id in (retried, deleted):
            relay.wait_queued(queue_id)
        relay.api.post("/queue/hold", json={"queue_id": retried}).raise_for_status()
        assert relay.wait_queued(retried, state="frozen")
        relay.api.post("/queue/delete", json={"queue_id": deleted}).raise_for_status()
        assert relay.wait_dispositions(deleted, "deleted") == {"a@relay.example": "deleted"}
    relay.api.post("/queue/resume", json={"queue_id": retried}).raise_for_status()
    relay.api.post("/queue/retry", json={"queue_id": retried}).raise_for_status()
    assert relay.wait_dispositions(retried, "delivered") == {"a@relay.example": "delivered"}


def test_a_dead_route_holds_up_no_other(relay: Relay) -> None:
    with relay.dead_route("void.example"):
        stuck = relay.send(a_message(), to=["a@void.example"])
        flows = relay.send(a_message(), to=["a@relay.example"])
        both = relay.send(a_message(), to=["a@relay.example", "a@void.example"])
        assert relay.dispositions(flows) == {"a@relay.example": "delivered"}
        assert relay.wait_queued(stuck)
        assert relay.wait_queued(both)["recipients"] == ["a@void.example"]
        for queue_id in (stuck, both):
            relay.api.post("/queue/delete", json={"queue_id": queue_id}).raise_for_status()
        assert relay.dispositions(both) == {"a@relay.example": "delivered", "a@void.example": "deleted"}
