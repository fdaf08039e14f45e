"""Inspection alone: what `screen` costs of CPU for each message under the rules of the benchmark, in this process and on one core.

A loop of plain Python, which nothing in the repository can make slower, is timed beside it: their ratio is the same on fast and slow
machines, more or less, and says whether inspection has become slower.
"""

from __future__ import annotations

import time
from statistics import median

import msgspec

from bench.mix import templates
from bench.rules import Rules, rules
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    KeywordScope,
    RelayDomain,
    Rule,
    ScreeningPolicy,
    SenderCondition,
)
from postern_core.verdict import Action, Decision
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.screening import screen

_STEPS = 200_000


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """CPU in milliseconds: a message of this mix in each round, and the loop of plain Python right before."""

    mix: str
    ms_per_message: list[float]
    loop_ms: list[float]

    @property
    def ms(self) -> float:
        return median(self.ms_per_message)

    @property
    def per_loop(self) -> float:
        """How many messages are screened in the time of the loop."""
        return median(loop / ms for loop, ms in zip(self.loop_ms, self.ms_per_message, strict=True))


def screening_policy(made: Rules) -> ScreeningPolicy:
    """The rules of the benchmark as an administrator would have them: one for each sender and extension, the phrases a hundred a rule."""
    conditions: list[SenderCondition | AttachmentCondition | KeywordCondition] = []
    conditions += [SenderCondition(patterns=(sender,)) for sender in (*made.addresses, *made.domains)]
    conditions += [AttachmentCondition(match=AttachmentMatch.EXTENSION, values=(extension,)) for extension in made.extensions]
    conditions += [KeywordCondition(phrases=group, scope=KeywordScope.BODY) for group in made.phrase_groups()]
    listed = tuple(
        Rule(id=f"bench-{number}", name=f"bench {number}", condition=condition, action=Action.DELETE)
        for number, condition in enumerate(conditions)
    )
    return ScreeningPolicy(revision=1, rules=listed, relay_domains=(RelayDomain(pattern="relay.example"),))


def inspect(mix: str, rounds: int, seconds: float) -> Inspection:
    """`rounds` times about `seconds` of the templates of this mix. RuntimeError when a verdict is not the one that a template is made for."""
    ruleset = compile_policy(screening_policy(rules()))
    bodies = [template.data for template in templates(mix)]
    envelope = envelope_of(50_000)
    for template in templates(mix):
        wanted = Decision.DELETE if template.caught else Decision.PASS
        if (decision := screen(envelope, template.data, ruleset).verdict.decision) is not wanted:
            raise RuntimeError(f"a message of {mix} got {decision}, not {wanted}")
    spent_s, times = 0.0, 0
    while spent_s < seconds:
        spent_s += _screening_s(envelope, bodies, ruleset)
        times += 1
    ms_per_message, loop_ms = [], []
    for _ in range(rounds):
        loop_ms.append(round(loop_s() * 1000, 4))
        spent_s = sum(_screening_s(envelope, bodies, ruleset) for _ in range(times))
        ms_per_message.append(round(spent_s * 1000 / times / len(bodies), 4))
    return Inspection(mix=mix, ms_per_message=ms_per_message, loop_ms=loop_ms)


def _screening_s(envelope: Envelope, bodies: list[bytes], ruleset: Ruleset) -> float:
    begun = time.process_time()
    for body in bodies:
        screen(envelope, body, ruleset)
    return time.process_time() - begun


def loop_s() -> float:
    """CPU seconds of a fixed piece of plain Python: the kind of work that a parser does."""
    begun = time.process_time()
    counted: dict[str, int] = {}
    for step in range(_STEPS):
        word = str(step % 977)
        counted[word] = counted.get(word, 0) + len(word)
    assert len(counted) == 977
    return time.process_time() - begun


def envelope_of(size_bytes: int) -> Envelope:
    """One message at the anonymous gate, with one recipient."""
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="sender@origin.example",
        recipients=(Recipient(n=0, address="recipient@relay.example"),),
        size_bytes=size_bytes,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )
