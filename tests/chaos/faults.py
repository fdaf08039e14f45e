"""Carries out a schedule of faults on a running stack, and notes when each was in force."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.schedule import Kind, PlannedFault
from fixtures.silent_host import Silence, SilentHost

if TYPE_CHECKING:
    from chaos.load import Record
    from fixtures.relay import Relay

_FLAP_S = 0.1
_SILENCE = {
    Kind.SMART_HOST_NEVER_GREETS: Silence.AT_ONCE,
    Kind.SMART_HOST_SILENT_AT_MAIL: Silence.AT_MAIL,
    Kind.SMART_HOST_SILENT_AT_DOT: Silence.AT_DOT,
}


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that took place, from `from_s` until everything answered again."""

    fault: PlannedFault
    from_s: float
    until_s: float


class Injector:
    """Strikes each fault of `schedule` at its time; `struck` tells what took place."""

    def __init__(self, relay: Relay, schedule: tuple[PlannedFault, ...], record: Record) -> None:
        self._relay = relay
        self._schedule = schedule
        self._record = record
        self.struck: list[Struck] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the last fault to be over; raises what went wrong in carrying them out."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError("the faults did not end")
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            for fault in self._schedule:
                time.sleep(max(0.0, fault.at_s - self._record.now_s()))
                begun = self._record.now_s()
                self._strike(fault)
                self.struck.append(Struck(fault, begun, self._record.now_s()))
        except BaseException as failure:  # handed to whoever joins
            self.failure = failure

    def _strike(self, fault: PlannedFault) -> None:
        relay, host = self._relay, self._relay.smart_host.host
        match fault.kind:
            case Kind.KILL | Kind.KILL_SEVERAL | Kind.BROKER_KILL:
                relay.kill(*fault.targets)
            case Kind.PAUSE | Kind.BROKER_PAUSE:
                with relay.paused(*fault.targets):
                    time.sleep(fault.for_s)
            case Kind.SMART_HOST_DOWN:
                with relay.smart_host_down():
                    time.sleep(fault.for_s)
            case Kind.SMART_HOST_FLAPS:
                self._flap(fault.for_s)
            case kind if kind in _SILENCE:
                with relay.smart_host_down(), SilentHost(host.port, _SILENCE[kind]):
                    time.sleep(fault.for_s)
            case Kind.ROLLING_RESTART:
                for service in fault.targets:
                    relay.kill(service, number=signal.SIGTERM)
            case Kind.POLICY_CHANGE:
                self._change_policy()
            case _:
                match fault.kind:
                    case Kind.SMART_HOST_SLOW:
                        host.slow(0.3)
                    case Kind.SMART_HOST_421:
                        host.reply_to("MAIL", "421 4.3.2 shutting down")
                    case _:
                        host.hang_up("END-OF-DATA")
                time.sleep(fault.for_s)
                relay.calm_smart_host()

    def _flap(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with self._relay.smart_host_down():
                time.sleep(_FLAP_S)
            time.sleep(_FLAP_S)

    def _change_policy(self) -> None:
        """Add a rule that catches nothing, then roll back."""
        rule = {
            "name": f"chaos {os.urandom(4).hex()}",
            "condition": {"type": "keyword", "phrases": ["never-in-any-mail"]},
            "action": "delete",
        }
        with self._relay.rule(rule):
            time.sleep(0.5)
