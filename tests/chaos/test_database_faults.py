"""PostgreSQL killed, restarted, read-only or out of connections under a whole relay: mail goes on, what must wait waits in the stream.

Afterwards everything settles, once each, and no service was started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from fixtures.mail import a_message
from fixtures.postgres import Postgres, postgres_binaries
from fixtures.postgres_faults import Fault, killed, out_of_connections, read_only, restarted
from fixtures.postgres_relay import PostgresRelay
from fixtures.stack import eventually
from fixtures.streams import stream_messages

NOW, LATER, NEVER = "now@relay.example", "later@relay.example", "never@relay.example"
MESSAGES = 20


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of our own: the one of other tests may be a container, and is theirs."""
    binaries = postgres_binaries()
    assert binaries is not None, "this test needs PostgreSQL's server binaries: apt-get install postgresql"
    server = Postgres(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def relay(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresRelay]:
    with PostgresRelay(tmp_path_factory.mktemp("relay") / "var", postgres) as running:
        running.set_schedule(1)
        yield running


@pytest.mark.parametrize("fault", [killed, restarted, read_only, out_of_connections])
def test_mail_goes_on_without_the_database_and_what_waited_for_it_settles(
    relay: PostgresRelay, postgres: Postgres, fault: Fault
) -> None:
    with relay.recipient_refused(NEVER), relay.recipient_deferred(LATER):
        before = relay.send(a_message(), to=[LATER])
        relay.wait_queued(before)
        written = {service: len(relay.log(service).read_text()) for service in ("delivery", "api")}
        with fault(postgres):
            sent = [relay.send(a_message(), to=[NOW, LATER, NEVER]) for _ in range(MESSAGES)]
            for queue_id in sent:
                relay.received(queue_id)
            eventually(lambda: stream_messages(relay.broker.monitor_url, "DEFERRED") == MESSAGES + 1, "mail to be deferred")
            for service, event in (("delivery", "deferred.row_postponed"), ("api", "trace.record_failed")):
                eventually(
                    lambda s=service, e=event: e in relay.log(s).read_text()[written[s] :], f"{service} to miss the database"
                )
            refused = relay.api.post("/domains", json={"pattern": "another.example"})
            assert (refused.status_code, refused.json()["error"]) == (503, "database_unavailable")
    assert relay.wait_dispositions(before, "delivered") == {LATER: "delivered"}
    for queue_id in sent:
        assert relay.dispositions(queue_id) == {NOW: "delivered", LATER: "delivered", NEVER: "bounced"}
    eventually(lambda: stream_messages(relay.broker.monitor_url, "DEFERRED") == 0, "nothing to wait any more")
    eventually(lambda: relay.api.get("/queue").raise_for_status().json()["total"] == 0, "the queue to be empty")
    assert relay.wait_balanced()["in_flight"] == 0
    assert arrivals(relay, [before, *sent]) == {(before, LATER): 1} | dict.fromkeys(
        ((queue_id, recipient) for queue_id in sent for recipient in (NOW, LATER)), 1
    )
    assert relay.ended == {}
    assert "Traceback" not in relay.output


def arrivals(relay: PostgresRelay, queue_ids: list[str]) -> Counter[tuple[str, str]]:
    """How often the smart host took each of these messages for each recipient; NDRs do not count."""
    mails = [(relay.queue_id_in(mail.data), mail) for mail in relay.smart_host.messages if mail.reverse_path]
    return Counter((queue_id, recipient) for queue_id, mail in mails if queue_id in queue_ids for recipient in mail.recipients)
