"""Questions that several clients may have at once, to somebody who must not be flooded: each asked once, in turn, and its answer remembered.

Of equal questions under way, one is asked; the others wait for its answer (so two relays that ask each other about a mailbox wait, and do not ask for
ever). A mailbox that exists is remembered for a day, one that does not for
two hours (settings of the policy). That nobody could be asked is remembered for ten seconds, and for all mailboxes there: a host that is down
does not cost each client its time-out.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from postern_core.policy import ListenerVerification
from postern_ingress_anon.turns import Turns

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AWAY_S: Final = 10.0


class Mailbox(enum.Enum):
    """What is known of a mailbox."""

    EXISTS = enum.auto()
    UNKNOWN = enum.auto()  # there is none
    UNDECIDED = enum.auto()  # whoever was asked does not say now (4yz): the next time it is asked again
    UNAVAILABLE = enum.auto()  # there was nobody to ask


@dataclass(frozen=True, slots=True)
class Question:
    """One recipient of one client."""

    address: str  # as it is compared
    asked: str  # whom: a route, or the directory
    client: str  # its network
    ask: Callable[[], Awaitable[Mailbox]]  # raises nothing but CancelledError; may take as long as it wants


_Key = tuple[str, str]


class Questions:
    """One for each process."""

    def __init__(self, *, away_s: float = AWAY_S) -> None:
        self._away_s = away_s
        self._answers: OrderedDict[_Key, tuple[float, Mailbox]] = OrderedDict()  # good until
        self._away: dict[str, float] = {}  # whom → until when nobody tries
        self._asking: dict[_Key, asyncio.Task[Mailbox]] = {}
        self._turns = Turns()

    async def answer(self, question: Question, settings: ListenerVerification) -> Mailbox:
        """Within `timeout_s`; UNAVAILABLE when there is no answer by then."""
        key = (question.asked, question.address)
        remembered = self._remembered(key)
        if remembered is not None:
            return remembered
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, question, settings), name="question")
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)  # a client that leaves does not take the answer away from others

    async def close(self) -> None:
        """End what is still asked: nobody waits for it any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: _Key, question: Question, settings: ListenerVerification) -> Mailbox:
        has_turn, answer = False, Mailbox.UNAVAILABLE
        try:
            async with (
                asyncio.timeout(settings.timeout_s),
                self._turns.turn(question.asked, question.client, settings),
            ):
                has_turn = True
                answer = await question.ask()
        except TimeoutError:
            log.warning("recipient.not_verified", asked=question.asked, reason="no answer in time" if has_turn else "too busy")
        if has_turn:  # else it says nothing of whom it would have asked
            self._remember(key, answer, settings)
        return answer

    def _remembered(self, key: _Key) -> Mailbox | None:
        now = asyncio.get_running_loop().time()
        until, answer = self._answers.get(key, (0.0, None))
        if answer is not None and until > now:
            self._answers.move_to_end(key)
            return answer
        return Mailbox.UNAVAILABLE if self._away.get(key[0], 0.0) > now else None

    def _remember(self, key: _Key, answer: Mailbox, settings: ListenerVerification) -> None:
        now = asyncio.get_running_loop().time()
        if answer is Mailbox.UNAVAILABLE:
            self._away[key[0]] = now + self._away_s
            return
        self._away.pop(key[0], None)
        if answer is Mailbox.UNDECIDED:
            return
        keep_s = settings.known_s if answer is Mailbox.EXISTS else settings.unknown_s
        self._answers[key] = (now + keep_s, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > settings.max_remembered:
            self._answers.popitem(last=False)
