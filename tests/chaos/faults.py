"""Carries out a schedule of faults on a running stack, and notes when each was in force."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.schedule import PlannedFault

if TYPE_CHECKING:
    from chaos.load import Record
    from chaos.target import Target


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that took place, from `from_s` until everything answered again."""

    fault: PlannedFault
    from_s: float
    until_s: float


class Injector:
    """Strikes each fault of `schedule` at its time, or when the one before is over; `struck` tells what took place."""

    def __init__(self, target: Target, schedule: tuple[PlannedFault, ...], record: Record) -> None:
        self._target = target
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
                self._target.strike(fault)
                self.struck.append(Struck(fault, begun, self._record.now_s()))
        except BaseException as failure:  # handed to whoever joins
            self.failure = failure


def change_policy(target: Target) -> None:
    """Add a rule that catches nothing, then roll back."""
    rule = {
        "name": f"chaos {os.urandom(4).hex()}",
        "condition": {"type": "keyword", "phrases": ["never-in-any-mail"]},
        "action": "delete",
    }
    with target.rule(rule):
        time.sleep(0.5)
