"""PostgreSQL killed, restarted, read-only or out of connections under a whole relay: mail goes on, what must wait waits in the stream.

Afterwards everything settles, once each, and no service was started again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.without_database import mail_goes_on
from fixtures.machine import lacking
from fixtures.postgres import Postgres, postgres_binaries
from fixtures.postgres_faults import Fault, killed, out_of_connections, read_only, restarted
from fixtures.postgres_relay import PostgresRelay


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of our own: the one of other tests may be a container, and is theirs."""
    binaries = postgres_binaries() or lacking("PostgreSQL's server binaries (Debian: postgresql)")
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
    mail_goes_on(relay, fault(postgres), logs=relay.logs, monitor_url=relay.broker.monitor_url)
    assert relay.ended == {}
