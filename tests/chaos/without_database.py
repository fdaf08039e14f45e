"""A database that fails under a whole relay, in some way of the caller's: what must hold meanwhile and afterwards, whatever the way is."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.mail import a_message
from fixtures.stack import eventually
from fixtures.streams import stream_messages

if TYPE_CHECKING:
    from fixtures.relay import Relay

NOW, LATER, NEVER = "now@relay.example", "later@relay.example", "never@relay.example"
MESSAGES = 30
_MISSED = {"delivery": "deferred.row_postponed", "api": "trace.record_failed"}  # what each logs when it could not write

_domains = itertools.count(1)


def mail_goes_on(relay: Relay, fault: AbstractContextManager[None], *, logs: dict[str, Path], monitor_url: str) -> None:
    """Inside `fault` neither delivery nor the api can write to its database: mail is delivered, bounced and deferred all the same, the
    last to its stream. After it everything settles, once each, by the processes that were there before.

    The retry schedule is the caller's to set, to a second or so; `logs` are those of delivery and api.
    """
    processes = {service: relay.pids(service) for service in logs}
    with relay.recipient_refused(NEVER), relay.recipient_deferred(LATER):
        before = relay.send(a_message(), to=[LATER])
        relay.wait_queued(before)
        written = {service: log.stat().st_size for service, log in logs.items()}
        with fault:
            sent = [relay.send(a_message(), to=[NOW, LATER, NEVER]) for _ in range(MESSAGES)]
            for queue_id in sent:
                relay.received(queue_id)
            eventually(lambda: stream_messages(monitor_url, "DEFERRED") == MESSAGES + 1, "mail to be deferred")
            for service, event in _MISSED.items():
                log, start = logs[service], written[service]
                eventually(lambda e=event, x=log, s=start: e.encode() in x.read_bytes()[s:], f"{service} to miss its database")
            # a page that is there already may have room for a few changes
            eventually(lambda: _refused(relay), "a change of the policy to be refused")
    assert relay.wait_dispositions(before, "delivered") == {LATER: "delivered"}
    for queue_id in sent:
        assert relay.dispositions(queue_id) == {NOW: "delivered", LATER: "delivered", NEVER: "bounced"}
    eventually(lambda: stream_messages(monitor_url, "DEFERRED") == 0, "nothing to wait any more")
    eventually(lambda: relay.api.get("/queue").raise_for_status().json()["total"] == 0, "the queue to be empty")
    assert relay.wait_balanced()["in_flight"] == 0
    expected = {(queue_id, recipient): 1 for queue_id in sent for recipient in (NOW, LATER)} | {(before, LATER): 1}
    assert _arrivals(relay, {before, *sent}) == expected
    assert {service: relay.pids(service) for service in logs} == processes
    assert not any(b"Traceback" in log.read_bytes() for log in logs.values())


def _refused(relay: Relay) -> bool:
    answer = relay.api.post("/domains", json={"pattern": f"d{next(_domains)}.example"})
    return answer.status_code == 503 and answer.json()["error"] == "database_unavailable"


def _arrivals(relay: Relay, queue_ids: set[str]) -> Counter[tuple[str, str]]:
    """How often the smart host took each of these messages for each recipient; NDRs do not count."""
    mails = [(relay.queue_id_in(mail.data), mail) for mail in relay.smart_host.messages if mail.reverse_path]
    return Counter((queue_id, recipient) for queue_id, mail in mails if queue_id in queue_ids for recipient in mail.recipients)
