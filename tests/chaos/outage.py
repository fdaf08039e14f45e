"""`make outage`: the broker is away for ten minutes, then it is restarted twenty times; how soon does mail flow, without a restart of ours?

    python -m chaos.outage --away 600 --restarts 20

Away is: its process is gone, and connections to its port are refused. What counts is the time from the moment when it answers again until
mail through each gate is at the smart host and written down, and mail that waited has gone on, too: by then every consumer has resumed
(the screener's, the route's, and both of the recorder). Exit code 0 when nothing is lost and each of these times is at most ten seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import smtplib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMISED_S = 10.0
_BROKER = "nats-server"
_GATES = ("anon", "auth_starttls")
_PATIENCE_S = 120.0  # after that it is not late, but lost


@dataclass(frozen=True, slots=True)
class Resumed:
    """Seconds from the broker's first answer until each of these was so."""

    accepted_s: float  # both gates said 250
    arrived_s: float  # that mail, and mail that had waited, was at the smart host
    recorded_s: float  # and the api knew it to be delivered

    @property
    def worst_s(self) -> float:
        return max(self.accepted_s, self.arrived_s, self.recorded_s)


def outage(relay: Relay, seconds: float) -> Resumed:
    """The broker is away for so long, with mail in the retry queue. RuntimeError when a gate took mail meanwhile or a service was restarted."""
    before = _pids(relay)
    with relay.recipient_deferred("waits@relay.example"):
        waiting = [relay.send(a_message(), to=["waits@relay.example"])]
        relay.wait_queued(waiting[0])
        with _away(relay):
            until = time.monotonic() + seconds
            eventually(lambda: _refused(relay), "the gate to refuse mail")
            time.sleep(max(0.0, until - time.monotonic()))
            if not _refused(relay):
                raise RuntimeError("a gate took mail that nobody could store")
    resumed = _resumed(relay, waiting)
    if (after := _pids(relay)) != before:
        raise RuntimeError(f"a service was started again: {before} before, {after} after")
    return resumed


def restarts(relay: Relay, times: int) -> list[Resumed]:
    """The broker is ended and started again so many times, each time idle, by SIGTERM and SIGKILL in turn."""
    before, resumed = _pids(relay), []
    for number in range(times):
        relay.kill(_BROKER, number=signal.SIGKILL if number % 2 else signal.SIGTERM)
        resumed.append(_resumed(relay, []))
    if _pids(relay) != before:
        raise RuntimeError("a service was started again")
    return resumed


@contextmanager
def _away(relay: Relay) -> Iterator[None]:
    """The broker is killed, and its supervisor stopped in its tracks, so that nobody starts it again inside the block."""
    assert relay.process is not None
    [broker] = relay.pids(_BROKER)
    relay.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(broker, signal.SIGKILL)
        yield
    finally:
        relay.process.send_signal(signal.SIGCONT)


def _resumed(relay: Relay, waiting: Sequence[str]) -> Resumed:
    eventually(lambda: _answers(relay), "the broker to answer")
    began = time.monotonic()
    sent = [_send(relay, gate) for gate in _GATES]
    accepted = time.monotonic()
    for queue_id in (*sent, *waiting):
        relay.received(queue_id)
    arrived = time.monotonic()
    for queue_id in (*sent, *waiting):
        if "delivered" not in set(relay.dispositions(queue_id).values()):
            raise RuntimeError(f"{queue_id} was not delivered")
        relay.wait_event(queue_id, "accepted")
    return Resumed(accepted - began, arrived - began, time.monotonic() - began)


def _answers(relay: Relay) -> bool:
    with contextlib.suppress(OSError):
        return bool(relay.monitor("healthz")["status"] == "ok")
    return False


def _send(relay: Relay, gate: str) -> str:
    """Try until the gate takes it."""

    def attempt() -> str | None:
        with contextlib.suppress(smtplib.SMTPException, OSError, AssertionError):
            return relay.send(a_message(), to=["a@relay.example"], gate=gate)
        return None

    return eventually(attempt, f"{gate} to accept", _PATIENCE_S) or ""


def _refused(relay: Relay) -> bool:
    with relay.client("anon") as client:
        client.ehlo()
        return client.docmd("MAIL", "FROM:<x@sender.example>")[0] // 100 == 4


def _pids(relay: Relay) -> dict[str, list[int]]:
    return {name: pids for name, pids in relay.endpoints["processes"].items() if name != _BROKER}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", type=float, default=600, help="seconds for which the broker is away (default 600)")
    parser.add_argument("--restarts", type=int, default=20, help="how often it is restarted after that (default 20)")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="postern-outage-") as state,
        Relay(Path(state) / "var") as relay,
        relay.schedule(intervals_s=[1], delay_notice_s=None, expiry_s=86_400),
    ):
        long = outage(relay, arguments.away)
        short = restarts(relay, arguments.restarts)
        relay.wait_balanced()
    print(f"away for {arguments.away:g} s: 250 after {long.accepted_s:.1f} s, at the smart host after {long.arrived_s:.1f} s")
    print(f"  and written down after {long.recorded_s:.1f} s; no service was started again")
    worst = max((each.worst_s for each in short), default=0.0)
    print(f"restarted {len(short)} times: all of it within {worst:.1f} s each time")
    good = max(long.worst_s, worst) <= PROMISED_S
    print("good" if good else f"NOT GOOD: more than {PROMISED_S:g} s")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
