"""One message under one ruleset: what was read of it, and which criteria hold.

Everything that is searched for is searched once, for all rules; properties of the envelope are looked at when a rule comes to them. A
message that does not parse is still searched: by its reverse-path, by the From: fields found in its bytes, by keywords over those bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from postern_core.envelope import Envelope, Recipient
from postern_core.policy import OnFailure
from postern_core.policy.expressions import Truth
from postern_core.verdict import Engine
from postern_screener.checks.hit import Hit, at_start
from postern_screener.defects import Defect
from postern_screener.engines.answers import NOBODY_ASKED, Answer, Answers, Failure, YaraAnswer
from postern_screener.mime import MalformedError, Message, parse_message
from postern_screener.ruleset import Ruleset
from postern_screener.text import searchable

_FROM_LINE: Final = re.compile(rb"^from[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)


class Inspection:
    """See the module. Never raises for anything in the message."""

    def __init__(self, envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers = NOBODY_ASKED) -> None:
        self.envelope = envelope
        self.body = body
        self.ruleset = ruleset
        self._answers = answers
        self._yara: YaraAnswer | None = None
        self.message: Message | None
        try:
            self.message = parse_message(body)
            self.defects = self.message.defects
        except MalformedError as error:
            self.message = None
            self.defects = (Defect("1", f"the message does not parse: {error}"),)
        self._first: dict[int, Hit] = {}
        self._places: dict[int, dict[str, None]] = {}  # of criteria that attachments are stripped for: every part
        for hit in self._searched():
            self._first.setdefault(hit.criterion, hit)
            if hit.criterion in ruleset.stripping:
                self._places.setdefault(hit.criterion, {})[hit.part] = None

    @property
    def found(self) -> frozenset[int]:
        """The criteria that hold, as far as anybody has looked."""
        return frozenset(self._first)

    def holds(self, criterion: int) -> bool | None:
        """Whether the criterion of this number holds; None when that depends on an engine that has not answered. One that failed, and that the policy
        passes mail without, has found nothing."""
        if criterion in self._first:
            return True
        if criterion in self.ruleset.engines:
            engine = self.ruleset.engines[criterion].engine
            is_passed = self.ruleset.policy.engines.of(engine).on_failure is OnFailure.PASS
            return False if is_passed and isinstance(self.answer(engine), Failure) else self.is_answered(criterion)
        look = self.ruleset.properties.get(criterion)
        if look is None or (text := look(self.envelope)) is None:
            return False
        self._first[criterion] = Hit(criterion, "envelope", at_start(text))
        return True

    def shares(self) -> list[Share]:
        """The recipients, those together of whom the same criteria about recipients hold, in the order of RCPT."""
        tables = self.ruleset.recipients
        if not tables:
            return [Share(self, self.envelope.recipients, frozenset())]
        found: dict[frozenset[int], list[Recipient]] = {}
        for recipient in self.envelope.recipients:
            holding = frozenset(criterion for criterion, patterns in tables.items() if patterns.covers(recipient.address))
            found.setdefault(holding, []).append(recipient)
        return [Share(self, tuple(recipients), holding) for holding, recipients in found.items()]

    def holds_so_far(self, criterion: int) -> bool | None:
        """As `holds`, but that nobody is asked for it: for what decides nothing any more."""
        look = self.ruleset.engines.get(criterion)
        return None if look is not None and look.engine is Engine.YARA and self._yara is None else self.holds(criterion)

    def is_answered(self, criterion: int) -> bool | None:
        """As `holds`, but that whatever failed is not known, whatever the policy says."""
        if (look := self.ruleset.engines.get(criterion)) is None or criterion in self._first:
            return self.holds(criterion)
        answer = self.answer(look.engine)
        if answer is None or isinstance(answer, Failure):
            return None
        if (place := look.find(answer)) is None:
            return False
        part, offset, excerpt = place
        self._first[criterion] = Hit(criterion, part, lambda: (offset, excerpt))
        return True

    def answer(self, engine: Engine) -> Answer | None:
        """What an engine says of the message; None: a daemon that was not asked. YARA is asked when somebody wants to know."""
        if engine is not Engine.YARA:
            return self._answers.of(engine)
        if self._yara is None and self.ruleset.yara is not None:
            self._yara = self.ruleset.yara.scan(self.message, self.body)
        return self._yara

    @property
    def answers(self) -> Iterator[tuple[Engine, Answer]]:
        """Those of the engines that were asked."""
        if self._yara is None and self._answers is NOBODY_ASKED:
            return  # as for most mail, where there are no engines
        for engine in Engine:
            answer = self._yara if engine is Engine.YARA else self._answers.of(engine)
            if answer is not None:
                yield engine, answer

    def hit(self, criterion: int) -> Hit | None:
        """Where it holds first, in the order of the message."""
        return self._first.get(criterion)

    def everywhere(self) -> Iterator[Hit]:
        """Every place at which a criterion that is searched for holds: the message is searched once more."""
        return self._searched()

    def places(self, criterion: int) -> Iterable[str]:
        """The parts in which it holds: all of them where an attachment may be stripped for it, else the first."""
        first = self._first.get(criterion)
        return self._places.get(criterion) or (() if first is None else (first.part,))

    def _searched(self) -> Iterator[Hit]:
        """All hits in the order of the message: envelope, header fields, then part by part."""
        ruleset, message = self.ruleset, self.message
        if self.defects and ruleset.malformed is not None:
            yield Hit(ruleset.malformed, self.defects[0].part, at_start(self.defects[0].reason))
        if message is None:
            yield from self._searched_as_bytes()
            return
        yield from ruleset.senders.check(self.envelope.reverse_path, message.fields.get("from", ()))
        for k, block in enumerate(message.headers):
            yield from ruleset.keywords.check_header(block.part, block.readings, is_nested=k > 0)
        for part in message.parts:
            yield from ruleset.attachments.check(part)
            if part.is_text and ruleset.keywords.wants_body:
                yield from ruleset.keywords.check_text(part.path, searchable(part.content(), part.charset, is_html=part.is_html))

    def _searched_as_bytes(self) -> Iterator[Hit]:
        from_fields = [found.decode("utf-8", "replace") for found in _FROM_LINE.findall(self.body[:262_144])[:10]]
        yield from self.ruleset.senders.check(self.envelope.reverse_path, from_fields)
        if self.ruleset.keywords.wants_body:
            yield from self.ruleset.keywords.check_text("1", searchable(self.body, "", is_html=True))


@dataclass(frozen=True, slots=True)
class Share:
    """An inspection from the point of view of some of the recipients, of whom the same criteria hold."""

    inspection: Inspection
    recipients: tuple[Recipient, ...]
    holding: frozenset[int]  # criteria about recipients
    told: set[int] = field(default_factory=set)  # those of them that a rule came to

    def holds(self, criterion: int) -> bool | None:
        """Whether the criterion of this number holds for these recipients; None as in `Inspection.holds`, and so are the other two."""
        return self._looked_at(criterion, self.inspection.holds)

    def holds_so_far(self, criterion: int) -> bool | None:
        return self._looked_at(criterion, self.inspection.holds_so_far)

    def is_answered(self, criterion: int) -> bool | None:
        return self._looked_at(criterion, self.inspection.is_answered)

    def _looked_at(self, criterion: int, truth: Truth) -> bool | None:
        if criterion not in self.inspection.ruleset.recipients:
            return truth(criterion)
        if criterion not in self.holding:
            return False
        self.told.add(criterion)
        return True

    def hit(self, criterion: int) -> Hit | None:
        """Where it holds first."""
        if criterion in self.holding:
            return Hit(criterion, "envelope", at_start(self.recipients[0].address))
        return self.inspection.hit(criterion)
