"""What `make outage` does for ten minutes, for a few seconds: the broker is gone, comes back, and every process of before works on."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.outage import outage, restarts
from fixtures.relay import Relay


@pytest.mark.timeout(240)
def test_mail_flows_and_what_waited_goes_on_after_the_broker_was_away(tmp_path: Path) -> None:
    with Relay(tmp_path / "var") as relay, relay.schedule(intervals_s=[1], delay_notice_s=None, expiry_s=600):
        outage(relay, 5)
        restarts(relay, 2)
        assert relay.wait_balanced()["in_flight"] == 0
