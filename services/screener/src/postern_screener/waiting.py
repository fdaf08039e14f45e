"""What a worker remembers of messages that wait in INTAKE for an engine: that they passed their inspection, and what else of their entry was done.

Only memory: with another worker, or after a restart, they are suspects like any that comes again, and inspected in the sandbox once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from postern_core.ids import QueueId
from postern_screener.screening import Screened

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 60.0
_MOST: Final = 20_000  # the broker gives out no more than 10,000 entries that nobody has settled


def pause_s(tries: int) -> float:
    """Until an entry that was delivered `tries` times comes again."""
    return min(_FIRST_PAUSE_S * (1 << min(tries - 1, 10)), _LONGEST_PAUSE_S)


class Waiting:
    """See the module; bounded, the oldest go first."""

    def __init__(self) -> None:
        self._times: dict[QueueId, int] = {}
        self._verdicts: dict[QueueId, Screened] = {}

    def begin(self, deferred: Iterable[QueueId], done: Mapping[QueueId, Screened]) -> None:
        """These wait; those of the same entry are done, and come again with them."""
        for queue_id in (*deferred, *done):
            self._times[queue_id] = self._times.pop(queue_id, 0) + 1
        self._verdicts |= done
        for remembered in (self._times, self._verdicts):
            while len(remembered) > _MOST:
                del remembered[next(iter(remembered))]

    def times(self, queue_id: QueueId) -> int:
        """How often it came back for an engine's sake; more than 0: it passed its inspection."""
        return self._times.get(queue_id, 0)

    def verdict(self, queue_id: QueueId) -> Screened | None:
        """What was decided on a message whose entry came back for another's sake: decided anew, it might get a second end."""
        return self._verdicts.get(queue_id)

    def end(self, queue_ids: Iterable[QueueId]) -> None:
        """Their entry is let go."""
        for queue_id in queue_ids:
            self._times.pop(queue_id, None)
            self._verdicts.pop(queue_id, None)
