"""Requests that the api makes of the screener over the bus: what would come of these messages under these rules. Request-reply on core NATS.

Subject `control.screener.<verb>`; any worker answers. A request is framed as mail is (`envelope.frame`): a TrialRequest, then the policy section as KV
POLICY has it, then the messages, one behind the other. Nothing that is tried is stored or sent on by the screener.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from postern_core.contract import Version, written
from postern_core.envelope import Envelope, frame, unframe
from postern_core.verdict import Engine, Verdict

TRIAL_TIMEOUT_S: Final = 75.0  # compiling 100,000 phrases at the lowest priority is in it
TRIALS_ARE_BUSY: Final = "the screener is busy with other trials: try again later"  # a refusal that means no more than that
MOST_TRIAL_OCTETS: Final = 7 * 1024 * 1024  # of a request; the broker takes 8 MiB


class ScreenerVerb(enum.StrEnum):
    """Verbs of `control.screener.<verb>`, with their request and answer types."""

    TRY = "try"  # TrialRequest → TrialAnswer


class TrialMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message: its envelope, and how long it is."""

    envelope: Envelope
    octets: int


class TrialRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Head of a request."""

    version: Version = msgspec.field(default_factory=written)
    policy_octets: int
    messages: tuple[TrialMessage, ...]
    places: bool = False  # name every place, not only those in the verdict


class TrialPlace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place where a condition holds, with the rules that have it."""

    rule_ids: tuple[str, ...]
    part: str
    offset: int = 0
    length: int = 0
    chain: tuple[str, ...] = ()
    excerpt: str = ""


class TriedShare(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of it for some of its recipients."""

    recipients: tuple[str, ...]
    verdict: Verdict


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would come of one message. Without a verdict: `failure` says why, and live mail like it would become poison."""

    verdict: Verdict | None = None
    subject: str = ""
    places: tuple[TrialPlace, ...] = ()
    shares: tuple[TriedShare, ...] = ()  # where rules differ between recipients; `verdict` is then that of the first
    steps_ms: dict[str, float] = {}
    failure: str = ""
    deferral: str = ""  # an engine failed: live mail like it would wait for it, and meet `verdict` when it has waited long enough
    asks: tuple[Engine, ...] = ()  # engines without whose answers nothing can be said: it never leaves the screener


class TrialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One for each message, in their order."""

    tried: tuple[Tried, ...]
    compile_ms: float = 0.0  # 0: the rules were compiled before


def trial_subject(verb: ScreenerVerb) -> str:
    return f"control.screener.{verb.value}"


def frame_trial(policy: bytes, messages: Sequence[tuple[Envelope, bytes | memoryview]], *, places: bool = False) -> bytes:
    """A request. ValueError when it is larger than MOST_TRIAL_OCTETS."""
    octets = len(policy) + sum(len(body) for _, body in messages)
    if octets > MOST_TRIAL_OCTETS:
        raise ValueError(f"policy and messages take {octets} bytes, {MOST_TRIAL_OCTETS} are possible")
    head = TrialRequest(
        policy_octets=len(policy),
        messages=tuple(TrialMessage(envelope=envelope, octets=len(body)) for envelope, body in messages),
        places=places,
    )
    return frame(head, b"".join((policy, *(body for _, body in messages))))


def unframe_trial(payload: bytes) -> tuple[TrialRequest, bytes, list[tuple[Envelope, memoryview]]]:
    """Head, policy section and messages. ValueError for what is no request."""
    head, rest = unframe(payload, TrialRequest)
    if head.policy_octets < 0 or head.policy_octets + sum(max(message.octets, 0) for message in head.messages) != len(rest):
        raise ValueError("a trial request is cut short, or has more than it says")
    policy, at = bytes(rest[: head.policy_octets]), head.policy_octets
    messages = []
    for message in head.messages:
        messages.append((message.envelope, rest[at : at + message.octets]))
        at += message.octets
    return head, policy, messages
