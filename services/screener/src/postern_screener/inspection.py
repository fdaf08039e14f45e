"""One message under one ruleset: what was read of it, and which criteria hold.

Everything that is searched for is searched once, for all rules; properties of the envelope are looked at when a rule comes to them. What of a
message may be read in several ways is searched in each.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from postern_core.envelope import Envelope, Recipient
from postern_core.policy import OnFailure
from postern_core.policy.expressions import Truth
from postern_core.policy.matching import CompiledRule
from postern_core.verdict import Engine, TextLanguage, Unscannable
from postern_screener.attachment_texts import Attached, further_texts
from postern_screener.bounded_texts import BoundedTexts, Reading
from postern_screener.checks.contents import hold_more
from postern_screener.checks.facts import Facts
from postern_screener.checks.hit import Hit, at_start
from postern_screener.checks.keywords import Region
from postern_screener.checks.members import Settled, search_member
from postern_screener.contents.archives import Member
from postern_screener.contents.entry import Obstacle, ObstacleKind
from postern_screener.defects import Defect
from postern_screener.engines.answers import NOBODY_ASKED, Answer, Answers, Failure, YaraAnswer
from postern_screener.message_tree import Part
from postern_screener.mime import read_message
from postern_screener.ruleset import Ruleset
from postern_screener.seams import Seams
from postern_screener.unpacking import unpack

_KIND_OF: Final = {
    ObstacleKind.ENCRYPTED: Unscannable.ENCRYPTED,
    ObstacleKind.AMBIGUOUS: Unscannable.MALFORMED,
    ObstacleKind.DAMAGED: Unscannable.MALFORMED,
    ObstacleKind.MULTI_VOLUME: Unscannable.INCOMPLETE,
}  # all others are limits
_NOTHING_DONE: Final[frozenset[int]] = frozenset()
_MALFORMED: Final = (Unscannable.MALFORMED, Unscannable.INCOMPLETE)  # what the condition asks for


class Inspection:
    """See the module. Never raises for anything in the message."""

    def __init__(self, envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers = NOBODY_ASKED) -> None:
        self.envelope = envelope
        self.body = body
        self.ruleset = ruleset
        self._answers = answers
        self._yara: YaraAnswer | None = None
        self.tree = read_message(body)  # MIME alone: what is cut out of the message is found by it
        self.message = unpack(self.tree, len(body), in_texts=ruleset.looks_into_texts)
        self.defects = self.message.defects
        self._surface: list[Hit] | None = None
        self._obstacles: tuple[Obstacle, ...] | None = None  # None: nothing was opened
        self._first: dict[int, Hit] = {}
        self._several: dict[int, dict[int, Hit]] = {}  # of criteria that ask for several values: value → where it is
        self._facts: Facts | None = None
        self._absent: set[int] = set()  # of the criteria about facts, those that were looked at and do not hold
        self._places: dict[int, dict[str, None]] = {}  # of criteria that attachments are stripped for: every part
        self._keep(self._searched(self._first if not ruleset.stripping else _NOTHING_DONE))
        # whether keywords may stand in more than what was searched
        self._holds_more = ruleset.keywords.wants(Region.ATTACHMENT) and hold_more(self.message.parts)

    @property
    def found(self) -> frozenset[int]:
        """The criteria that hold, as far as anybody has looked."""
        return frozenset(self._first)

    @property
    def unopened(self) -> frozenset[int]:
        """Criteria of which nobody knows, since they may hold in something that is attached and that nobody had a reason to open."""
        if not self._holds_more or self._obstacles is not None:
            return _NOTHING_DONE
        return self.ruleset.keywords.in_attachments.difference(self._first)

    @property
    def candidates(self) -> list[CompiledRule]:
        """The rules that may match, in order."""
        return self.ruleset.candidates(self.unopened.union(self._first))

    def holds(self, criterion: int) -> bool | None:
        """Whether the criterion of this number holds; None when that depends on an engine that has not answered. One that failed, and that the policy
        passes mail without, has found nothing."""
        if criterion in self._first:
            return True
        if self._look(criterion):
            return criterion in self._first
        if criterion in self.ruleset.engines:
            engine = self.ruleset.engines[criterion].engine
            is_passed = self.ruleset.policy.engines.of(engine).on_failure is OnFailure.PASS
            return False if is_passed and isinstance(self.answer(engine), Failure) else self.is_answered(criterion)
        if (look := self.ruleset.properties.get(criterion)) is not None:
            if (text := look(self.envelope)) is None:
                return False
            self._first[criterion] = Hit(criterion, "envelope", at_start(text))
            return True
        return criterion in self.ruleset.facts and self._fact_holds(criterion)

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
        """As `holds`, but that nobody is asked for it, and nothing opened for a keyword: for what decides nothing any more."""
        if self._holds_more and self._obstacles is None and criterion in self.unopened:
            return None
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
    def answers(self) -> list[tuple[Engine, Answer]]:
        """Those of the engines that were asked."""
        if self._yara is None and self._answers is NOBODY_ASKED:
            return []  # as for most mail, where there are no engines
        answers = [(engine, self._yara if engine is Engine.YARA else self._answers.of(engine)) for engine in Engine]
        return [(engine, answer) for engine, answer in answers if answer is not None]

    @property
    def language(self) -> TextLanguage | None:
        """What the text is written in; None: no rule came to ask."""
        return None if self._facts is None else self._facts.told_language

    @property
    def obstacles(self) -> tuple[Obstacle, ...]:
        """What could not be read of the attachments; opens them, unless a rule has had them opened."""
        if self._obstacles is None:
            self._look_at()
            found: list[Obstacle] = []
            self._keep(self._inside(found))
            self._obstacles = tuple(found)
        return self._obstacles

    def _inside(self, obstacles: list[Obstacle], *, every_place: bool = False) -> Iterator[Hit]:
        """What lies in the attachments: one walk for all conditions that ask."""
        keywords, places = self.ruleset.keywords, self._places

        def search(member: Member) -> Iterator[Hit | Obstacle]:
            done = () if every_place else Settled(self._first, places, member.part)
            return search_member(member, keywords, self._texts, done)

        for found in self.ruleset.contents.look_into(self.message.parts, search):
            if isinstance(found, Obstacle):
                obstacles.append(found)
            else:
                yield found

    @property
    def unscanned(self) -> tuple[Defect, ...]:
        """What could not be read of the message; of what lies in attachments, where a rule had them opened."""
        found = self.known_obstacles
        return (*self.defects, *map(_defect, found)) if found else self.defects

    @property
    def known_obstacles(self) -> tuple[Obstacle, ...]:
        """What could not be read of the attachments, as far as a rule has had them opened."""
        return self._obstacles or ()

    def _look(self, criterion: int) -> bool:
        """Have the attachments looked at, or opened, once, if `criterion` asks for it; whether it does."""
        contents = self.ruleset.contents
        if criterion in contents.deep or (self._holds_more and criterion in self.ruleset.keywords.in_attachments):
            assert self.obstacles is not None
            return True
        if criterion in contents.surface:
            self._look_at()
            return True
        return False

    def _look_at(self) -> None:
        if self._surface is None:
            self._surface = self.ruleset.contents.look_at(self.message.parts)
            self._keep(self._surface)

    def _keep(self, hits: Iterable[Hit]) -> None:
        at_least = self.ruleset.keywords.at_least
        for hit in hits:
            if hit.criterion in self.ruleset.stripping:
                self._places.setdefault(hit.criterion, {})[hit.part] = None
            if hit.criterion in at_least:
                self._count(hit, at_least[hit.criterion])
            else:
                self._first.setdefault(hit.criterion, hit)

    def hits(self, criterion: int) -> tuple[Hit, ...]:
        """Where it holds, in the order of the message: first, or for each of the values when it asks for several."""
        first = self._first.get(criterion)
        if first is None:
            return ()
        return tuple(self._several[criterion].values()) if criterion in self._several else (first,)

    def _count(self, hit: Hit, needed: int) -> None:
        found = self._several.setdefault(hit.criterion, {})
        found.setdefault(hit.value, hit)
        if len(found) >= needed:
            self._first[hit.criterion] = next(iter(found.values()))

    def _fact_holds(self, criterion: int) -> bool:
        if criterion in self._absent:
            return False
        if self._facts is None:
            self._facts = Facts(self.message)
        found = self.ruleset.facts[criterion](self._facts)
        if found is None:
            self._absent.add(criterion)
            return False
        part, text = found
        self._first[criterion] = Hit(criterion, part, at_start(text))
        return True

    def everywhere(self) -> Iterator[Hit]:
        """Every place at which a criterion that is searched for holds: the message is searched once more. Of what was looked at when a rule
        came to it, the same places again."""
        yield from (hit for hit in self._searched(()) if hit.criterion in self._first)
        yield from self._surface or ()
        if self._obstacles is not None or self._holds_more:
            yield from (hit for hit in self._inside([], every_place=True) if hit.criterion in self._first)

    def places(self, criterion: int) -> Iterable[str]:
        """The parts in which it holds: all of them where an attachment may be stripped for it, else the first."""
        first = self._first.get(criterion)
        return self._places.get(criterion) or (() if first is None else (first.part,))

    def _searched(self, done: Container[int]) -> Iterator[Hit]:
        """All hits in the order of the message: envelope, header fields, then part by part. Of criteria in `done`, which may grow meanwhile,
        not all places are looked up."""
        ruleset, message = self.ruleset, self.message
        self._texts = BoundedTexts()
        if ruleset.malformed is not None:
            for defect in self.defects:
                if defect.kind in _MALFORMED:
                    yield Hit(ruleset.malformed, defect.part, at_start(defect.reason))
                    break
        yield from ruleset.senders.check(self.envelope.reverse_path, message.fields.get("from", ()))
        if message.headers:
            yield from ruleset.headers.check(message.fields, message.headers[0])
        keywords = ruleset.keywords
        for block in message.headers:
            yield from keywords.check_header(block.part, block.readings, is_nested=block.is_nested, done=done)
        seams = Seams(message.multiparts, keywords.longest_octets)
        attached = Attached(message.headers) if keywords.wants(Region.ATTACHMENT) else None
        for part in message.parts:
            yield from ruleset.attachments.check(part)
            region = Region.BODY
            if attached is not None and attached.holds(part):
                region |= Region.ATTACHMENT
                if not part.is_text and not part.is_message:
                    for further in further_texts(part, self._texts.read):
                        yield from keywords.check_text(part.path, further.texts, Region.ATTACHMENT, done)
                        self._note(part, further)
            if part.is_text and keywords.wants(region):
                reading = self._texts.read(part.content(), part.charset, is_html=part.is_html, taken_out=part.taken_out)
                self._note(part, reading)
                texts = list(reading.texts)
                yield from keywords.check_text(part.path, texts, region, done)
                if (seam := seams.joined(part, texts)) is not None:
                    yield from keywords.check_text(*seam, region, done)
            else:
                seams.passed(part)

    def _note(self, part: Part, reading: Reading) -> None:
        for limit in reading.limits:
            if all(known.reason != limit for known in self.defects):
                self.defects += (Defect(part.path, limit, Unscannable.LIMIT),)


def _defect(obstacle: Obstacle) -> Defect:
    # what comes from the message stands in quotes, at the end: `unscannable.unquoted`
    where = f", in {'/'.join(obstacle.chain)!r}" if obstacle.chain else ""
    return Defect(obstacle.part, obstacle.reason + where, _KIND_OF.get(obstacle.kind, Unscannable.LIMIT), is_ambiguous=False)


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

    def hits(self, criterion: int) -> tuple[Hit, ...]:
        """Where it holds."""
        if criterion in self.holding:
            return (Hit(criterion, "envelope", at_start(self.recipients[0].address)),)
        return self.inspection.hits(criterion)
