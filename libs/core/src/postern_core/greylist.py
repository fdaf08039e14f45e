"""What the replicas of the anonymous gate tell each other of greylisting. Core NATS, JSON, nothing is kept there.

`peers.ingress-anon`: `GreylistNews`, told to all replicas inside the gate's own broker account, and as MessagePack what a replica keeps in its file.
Times in it are ages, so that clocks need not agree. Who is greylisted is not told: keys are digests of client network, sender and recipient.
"""

from __future__ import annotations

from typing import Final

import msgspec

GREYLIST_SUBJECT: Final = "peers.ingress-anon"


class SeenTriplet(msgspec.Struct, frozen=True, array_like=True):
    """A client network, a sender and a recipient that were seen together."""

    key: bytes
    first_age_s: float
    last_age_s: float
    came_again: bool  # after the delay


class SeenClient(msgspec.Struct, frozen=True, array_like=True):
    """A client network that came again."""

    network: str
    times: int  # with so many senders and recipients
    last_age_s: float


class GreylistNews(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one replica tells the others. Each row is all that it knows of its key: to hear it twice does no harm."""

    origin: str  # the replica
    asks: bool = False  # it has just come, or come back: tell it all
    triplets: tuple[SeenTriplet, ...] = ()
    clients: tuple[SeenClient, ...] = ()
