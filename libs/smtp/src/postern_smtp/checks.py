"""Checks that take time: they ask DNS, a directory, another server or the bus before a gate answers.

What can be decided from the policy alone is decided in the dialogue; only what has to wait for somebody comes here. Checks of one kind are
asked one after another, and the first that refuses is the answer. A check bounds its own time, and decides what follows when whom it
asked does not answer; it raises nothing. A gate without checks does not wait for anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from postern_core.envelope import Recipient
from postern_core.errors import Reply
from postern_smtp.commands import Mail

if TYPE_CHECKING:
    from postern_smtp.session import Session, Transaction  # which knows the rules, and so these checks

# each returns the refusal, or None
ConnectionCheck = Callable[["Session"], Awaitable[Reply | None]]  # before the greeting; a refusal ends the connection
SenderCheck = Callable[["Session", Mail], Awaitable[Reply | None]]  # before the transaction begins
RecipientCheck = Callable[["Session", "Transaction", Recipient], Awaitable[Reply | None]]  # before it is one of the transaction's

Ask = Callable[[], Awaitable[Reply | None]]


class AccountCheck(Protocol):
    """What a gate with users asks of whoever sends, with every MAIL and RCPT: so it answers at once, but for a user who has to be looked up anew."""

    def mail(self, session: Session, mail: Mail) -> Reply | Ask | None:
        """The refusal, None, or what has to be asked to know. A transaction that is not refused counts as sent."""
        ...

    def rcpt(self, session: Session, transaction: Transaction) -> Reply | None:
        """The refusal of one more recipient; one that is not refused counts as sent."""
        ...


@dataclass(frozen=True, slots=True)
class Checks:
    """Those of one policy revision at one gate."""

    connection: tuple[ConnectionCheck, ...] = ()
    sender: tuple[SenderCheck, ...] = ()
    recipient: tuple[RecipientCheck, ...] = ()
    account: AccountCheck | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What has to be asked before a command is answered. `go_on` does what the command asks for when nobody refuses, and returns its reply."""

    asked: tuple[Ask, ...]
    go_on: Callable[[], Reply]

    async def refusal(self) -> Reply | None:
        """The first refusal, None when there is none."""
        for ask in self.asked:
            refusal = await ask()
            if refusal is not None:
                return refusal
        return None
