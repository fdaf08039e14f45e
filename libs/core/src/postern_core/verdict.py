"""Findings and verdicts: what the screener saw in a message, and what follows from it."""

from __future__ import annotations

import enum

import msgspec

from postern_core.contract import Version, written
from postern_core.envelope import Envelope, Gate

MOST_CRITERIA = 300  # written down of one message


class Action(enum.StrEnum):
    """What a rule does with a message that it matches."""

    DELETE = "delete"  # end it without a trace but the disposition; nobody is told (no backscatter)
    HOLD = "hold"  # keep it in QUARANTINE until somebody decides
    FORWARD = "forward"  # send it to another address instead of its recipients
    ALLOW = "allow"  # let it pass, whatever later rules say
    CONTINUE = "continue"  # note the rule's changes and let later rules decide


class Decision(enum.StrEnum):
    """What the whole verdict comes to."""

    PASS = "pass"
    DELETE = "delete"
    HOLD = "hold"
    FORWARD = "forward"


class Engine(enum.StrEnum):
    """Other programs, and rule files, that the screener asks about a message."""

    CLAMD = "clamd"  # ClamAV's daemon: viruses
    RSPAMD = "rspamd"  # spam score
    YARA = "yara"  # rule files that were uploaded, inside the screener


class HoldReason(enum.StrEnum):
    """Why a message lies in quarantine."""

    RULE = "rule"  # a rule said hold
    MALFORMED = "malformed"  # readers may take it for different messages, or it does not parse
    ENCRYPTED = "encrypted"  # a part of it cannot be opened without a password
    LIMIT = "limit"  # it unpacks to more than anybody looks at
    INCOMPLETE = "incomplete"  # message/partial, message/external-body: its content is elsewhere
    POISON = "poison"  # screening it crashed or timed out too often
    AUTHENTICATION = "authentication"  # the gate asked for it: DMARC, by the policy of the author's domain
    VIRUS = "virus"  # an engine found one, and no rule speaks of it
    ENGINE_FAILED = "engine-failed"  # an engine that was needed to judge it could not answer
    BODY_MISSING = "body-missing"  # its stored body is gone or damaged: an alarm


class Unscannable(enum.StrEnum):
    """What keeps a message from being screened whole; the policy has an answer to each (`policy.unscannable`). As in `HoldReason`."""

    MALFORMED = "malformed"
    ENCRYPTED = "encrypted"
    LIMIT = "limit"
    INCOMPLETE = "incomplete"
    POISON = "poison"

    @property
    def hold_reason(self) -> HoldReason:
        """Why a message lies in quarantine that is held for this."""
        return HoldReason(self.value)


class Obstacle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place in a message that could not be screened, or not in one way only."""

    kind: Unscannable
    part: str  # as in `Finding`
    reason: str  # one sentence for an administrator


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One match: which rule, where in the message, and on what."""

    rule_id: str
    rule_name: str
    part: str  # MIME part path as IMAP numbers it ("1.2"), "header", or "envelope"
    offset: int = 0  # bytes into the decoded part (or the header block)
    length: int = 0  # bytes from there that the match takes; 0: it is of the part as a whole
    chain: tuple[
        str, ...
    ] = ()  # inside an archive: the part's name, then those of its members down to the place, controls removed
    excerpt: str = ""  # at most 72 characters of what matched, controls removed
    monitored: bool = False  # the rule only records what it would do
    continued: bool = False  # the rule changed something and let later rules decide


class ChangeMade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a rule that matched, and what became of it."""

    kind: str  # `changes.ChangeKind`; another version may know more of them
    rule_id: str = ""  # empty: Postern's own, as a field that says what could not be scanned
    rule_name: str = ""
    part: str = ""  # that was stripped, or got the disclaimer
    address: str = ""  # of a copy or a notice
    detail: str = ""  # one sentence for an administrator: what was done, or why not
    skipped: bool = False  # it was not done, for the reason in `detail`
    monitored: bool = False  # the rule only records what it would do


class EngineAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine said of the message, or why it could not."""

    engine: Engine
    result: str  # "clean", "found", "failed"; of rspamd its action
    detail: str = ""  # what was found, the score, or why it failed; at most 200 characters
    ms: float = 0.0  # until it had answered


class TextLanguage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the text of a message is mostly written in."""

    code: str = ""  # ISO 639-1; empty: none for sure
    percent: int = 0  # of the letters that were looked at
    confidence: float = 0.0  # of the identifier, 0 to 1
    letters: int = 0  # that were looked at; one of Chinese, Japanese or Korean counts for three


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of screening one message under one policy revision."""

    revision: int
    decision: Decision
    findings: tuple[Finding, ...] = ()  # those of the rule that decided first
    hold_reason: HoldReason | None = None
    forward_to: str = ""
    detail: str = ""  # one sentence for an administrator
    screening_ms: float = 0.0
    criteria: tuple[str, ...] = ()  # keys (policy.matching) of those that held, as far as anybody looked; at most MOST_CRITERIA
    criteria_cut: bool = False  # there were more
    unasked: tuple[str, ...] = ()  # keys of criteria of which nobody knows: what they depend on was not asked, or not opened
    answers: tuple[EngineAnswer, ...] = ()  # of the engines that were asked
    unscanned: tuple[Engine, ...] = ()  # engines that failed, and without which the message passes by policy
    language: TextLanguage | None = None  # None: no rule came to ask for it
    obstacles: tuple[Obstacle, ...] = ()  # what could not be screened, whatever was decided; the first of each kind, then others
    changes: tuple[ChangeMade, ...] = ()  # of all rules that matched, up to the one that decided, in their order

    @property
    def was_screened(self) -> bool:
        """Whether an inspection came to an end, and not something else decided."""
        poison = any(obstacle.kind is Unscannable.POISON for obstacle in self.obstacles)
        return not poison and self.hold_reason not in (HoldReason.POISON, HoldReason.BODY_MISSING)

    @property
    def deciding(self) -> Finding | None:
        """The first finding of the rule that decided; None when no rule did."""
        first = self.findings[0] if self.findings else None
        return None if first is None or first.monitored or first.continued else first


class HeldMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Head of a QUARANTINE entry, subject `quarantine.<queue-id>`; the body follows inline or by reference."""

    version: Version = msgspec.field(default_factory=written)
    envelope: Envelope
    verdict: Verdict
    subject: str = ""  # decoded Subject:, at most 200 characters, for lists
    generation: int = 0  # of the `held` disposition; release and forward use the next one
    came_in_at: Gate | None = (
        None  # of a share of a message, whose own gate is internal: where the whole came in, for rules that ask
    )

    @property
    def as_it_came_in(self) -> Envelope:
        """What rules about the envelope judge."""
        return self.envelope if self.came_in_at is None else msgspec.structs.replace(self.envelope, gate=self.came_in_at)
