"""Which jobs are poison: work on them failed so often, for a reason that nobody foresaw, that another try alike is not worth it.

A bus or a database that is away, and whatever a next hop does, is foreseen and counts for nothing here. The counts are this process's:
what ends it is not blamed on the mail, and a replica that takes a job over judges for itself, so that each adds a few tries at most.
"""

from __future__ import annotations

from typing import Final

MOST_FAULTS: Final = 4  # as the screener's default for max_deliveries
_MOST_REMEMBERED: Final = 10_000  # jobs; the oldest go first


class Faults:
    """Unforeseen faults of jobs that have no outcome yet."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, job_id: str) -> int:
        """One more; returns how many that makes."""
        self._counts[job_id] = faults = self._counts.pop(job_id, 0) + 1
        if len(self._counts) > _MOST_REMEMBERED:
            del self._counts[next(iter(self._counts))]
        return faults

    def forget(self, job_id: str) -> None:
        """It came to an outcome."""
        self._counts.pop(job_id, None)


def named(error: Exception) -> str:
    """For an administrator, who sees it beside the mail; the traceback is in the log."""
    return f"{type(error).__name__}: {error}"[:300]
