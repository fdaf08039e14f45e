"""Criteria about the message as a whole and who handed it in: each a look at the envelope, asked only when a rule comes to it."""

from __future__ import annotations

from collections.abc import Callable

from postern_core.envelope import Envelope
from postern_core.policy import ClientCondition, Criterion, DirectionCondition, SizeCondition, UserCondition
from postern_core.policy.networks import NetworkSet

Property = Callable[[Envelope], str | None]  # what it found, as text for the verdict; None: it does not hold


def property_of(criterion: Criterion) -> Property | None:
    """The look that `criterion` wants; None when it is of another kind. ValueError for a value that is none."""
    match criterion:
        case DirectionCondition(gates=gates):
            wanted = frozenset(gates)
            return lambda envelope: f"gate {envelope.gate}" if envelope.gate in wanted else None
        case ClientCondition(networks=networks):
            table = NetworkSet(networks)
            return lambda envelope: envelope.client.address if envelope.client.address in table else None
        case UserCondition(names=names):
            users = frozenset(name.casefold() for name in names)
            return lambda envelope: _user(envelope, users)
        case SizeCondition(larger_than_bytes=limit):
            return lambda envelope: f"{envelope.size_bytes} bytes" if envelope.size_bytes > limit else None
        case _:
            return None


def _user(envelope: Envelope, users: frozenset[str]) -> str | None:
    user = envelope.client.user
    return f"user {user}" if user and (not users or user.casefold() in users) else None
