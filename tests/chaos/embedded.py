"""The embedded stack under chaos: its processes are signalled, and its smart host is scripted."""

from __future__ import annotations

import re
import signal
import time

from chaos.faults import change_policy
from chaos.schedule import EMBEDDED, Kind, PlannedFault
from chaos.target import Arrival
from chaos.timeline import ON_THE_WAY
from fixtures.relay import Relay
from fixtures.silent_host import Silence, SilentHost

_FLAP_S = 0.1
_SILENCE = {
    Kind.SMART_HOST_NEVER_GREETS: Silence.AT_ONCE,
    Kind.SMART_HOST_SILENT_AT_MAIL: Silence.AT_MAIL,
    Kind.SMART_HOST_SILENT_AT_DOT: Silence.AT_DOT,
}
_QUEUE_ID = re.compile(rb"\b[0-9a-z]{26}\b")


class EmbeddedTarget(Relay):
    """See `chaos.target.Target`."""

    menu = EMBEDDED
    refuses = True
    sample_every_s = 0.5

    def arrivals(self) -> list[Arrival]:
        return [
            Arrival(
                at_s=mail.at_s,
                reverse_path=mail.reverse_path,
                recipients=tuple(mail.recipients),
                queue_id=self.queue_id_in(mail.data),
                returned=frozenset()
                if mail.reverse_path
                else frozenset(found.decode() for found in _QUEUE_ID.findall(mail.data)),
            )
            for mail in self.smart_host.messages
        ]

    def arrived_count(self) -> int | None:
        return self.smart_host_count()

    def backlog(self) -> int | None:
        try:
            streams = self.streams()
        except (OSError, ValueError):
            return None
        return sum(streams[name]["messages"] for name in ON_THE_WAY if name in streams)

    def strike(self, fault: PlannedFault) -> None:
        host = self.smart_host.host
        match fault.kind:
            case Kind.KILL | Kind.KILL_SEVERAL | Kind.BROKER_KILL:
                self.kill(*fault.targets)
            case Kind.PAUSE | Kind.BROKER_PAUSE:
                with self.paused(*fault.targets):
                    time.sleep(fault.for_s)
            case Kind.SMART_HOST_DOWN:
                with self.smart_host_down():
                    time.sleep(fault.for_s)
            case Kind.SMART_HOST_FLAPS:
                self._flap(fault.for_s)
            case kind if kind in _SILENCE:
                with self.smart_host_down(), SilentHost(host.port, _SILENCE[kind]):
                    time.sleep(fault.for_s)
            case Kind.ROLLING_RESTART:
                for service in fault.targets:
                    self.kill(service, number=signal.SIGTERM)
            case Kind.POLICY_CHANGE:
                change_policy(self)
            case Kind.SMART_HOST_SLOW | Kind.SMART_HOST_421 | Kind.SMART_HOST_HANGS_UP:
                match fault.kind:
                    case Kind.SMART_HOST_SLOW:
                        host.slow(0.3)
                    case Kind.SMART_HOST_421:
                        host.reply_to("MAIL", "421 4.3.2 shutting down")
                    case _:
                        host.hang_up("END-OF-DATA")
                time.sleep(fault.for_s)
                self.calm_smart_host()
            case _:
                raise ValueError(f"the embedded stack has no {fault.kind}")

    def _flap(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with self.smart_host_down():
                time.sleep(_FLAP_S)
            time.sleep(_FLAP_S)
