"""What would come of a message: its verdict, every place where a condition holds, and where the time goes. Pure; for the child of `trials.py`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from postern_core.envelope import Envelope
from postern_core.trial import TrialPlace, Tried, TriedShare
from postern_screener.engines.answers import NOBODY_ASKED, Answers
from postern_screener.inspection import Inspection
from postern_screener.mime import MalformedError, parse_message
from postern_screener.ruleset import Ruleset
from postern_screener.screening import CHAIN_CHARACTERS, EXCERPT_CHARACTERS, judged
from postern_screener.unscannable import one_line

_MOST_PLACES: Final = 500
_MOST_RULES: Final = 20  # named for one place


def try_out(envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers = NOBODY_ASKED, *, places: bool) -> Tried:
    """The same verdict as live mail would get under these rules, once nobody is left to be asked."""
    started, cpu = time.perf_counter(), time.process_time()
    inspection = Inspection(envelope, body, ruleset, answers)
    screened = judged(inspection)
    steps = {"screen": _ms_since(started), "cpu": round((time.process_time() - cpu) * 1000, 3)}
    addresses = {recipient.n: recipient.address for recipient in envelope.recipients}
    shares = tuple(
        TriedShare(recipients=tuple(addresses[n] for n in outcome.recipients), verdict=outcome.verdict)
        for outcome in screened.outcomes
    )
    tried = Tried(
        verdict=screened.verdict,
        subject=screened.subject,
        shares=shares,
        steps_ms=steps,
        deferral=screened.deferral,
        asks=screened.asks,
    )
    if not places or screened.asks:
        return tried
    started = time.perf_counter()
    with contextlib.suppress(MalformedError):  # the verdict says so
        parse_message(body)
    steps["parse"] = _ms_since(started)
    found = tuple(islice(_places(inspection, ruleset), _MOST_PLACES))
    return msgspec.structs.replace(tried, places=found)


def _places(inspection: Inspection, ruleset: Ruleset) -> Iterator[TrialPlace]:
    rules_of: dict[int, tuple[str, ...]] = {}
    for hit in inspection.everywhere():
        if hit.criterion not in rules_of:
            having = (rule.rule.id for rule in ruleset.rules if hit.criterion in rule.criteria())
            rules_of[hit.criterion] = tuple(islice(having, _MOST_RULES))
        place = hit.place()
        yield TrialPlace(
            rule_ids=rules_of[hit.criterion],
            part=hit.part,
            offset=place.offset,
            length=place.length,
            chain=tuple(one_line(name, CHAIN_CHARACTERS) for name in hit.chain),
            excerpt=one_line(place.excerpt, EXCERPT_CHARACTERS),
        )


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
