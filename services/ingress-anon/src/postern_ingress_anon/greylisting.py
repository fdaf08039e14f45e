"""Greylisting (RFC 6647 section 2.2): a client network that was never seen with this sender and this recipient is asked to come again, with
451 4.7.1. Who comes again after the delay is known for weeks, and a network that did so with several is not asked any more.

At RCPT, in front of everything that asks somebody else: who does not come again costs no callout.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postern_core.envelope import Recipient
from postern_core.errors import Reply
from postern_core.policy import ListenerGreylisting, ListenerPolicy
from postern_core.policy.networks import NetworkSet
from postern_ingress_anon.greylist import Greylist
from postern_ingress_anon.networks import client_block
from postern_smtp import replies
from postern_smtp.checks import RecipientCheck

if TYPE_CHECKING:
    from postern_smtp.session import Session, Transaction


@dataclass(frozen=True, slots=True)
class GreylistRecipient:
    """The check of one policy revision."""

    greylist: Greylist
    rules: ListenerGreylisting
    exempt: NetworkSet

    async def __call__(self, session: Session, transaction: Transaction, recipient: Recipient) -> Reply | None:
        if session.client_address in self.exempt:
            return None
        network, reverse_path = client_block(session.client_address), transaction.mail.reverse_path.address
        passes = self.greylist.passes(network, reverse_path, recipient.address, time.time(), self.rules)
        return None if passes else replies.GREYLISTED


def greylisting_checks(listener: ListenerPolicy, greylist: Greylist) -> tuple[RecipientCheck, ...]:
    """Nothing when it is off. Clients that may relay are exempt, too. ValueError for a network that is none."""
    rules = listener.greylisting
    exempt = NetworkSet((*rules.exempt_networks, *listener.relaying.networks))
    return (GreylistRecipient(greylist, rules, exempt),) if rules.enabled else ()
