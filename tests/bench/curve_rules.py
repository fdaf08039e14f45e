"""Curve `rules`: what it costs to compile n keyword patterns, and to screen one message under them. In this process, with the screener's own code."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.growth import Curve, Point
from bench.mix import templates
from bench.rules import phrases
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import new_queue_id
from postern_core.policy import KeywordCondition, KeywordScope, Rule, ScreeningPolicy
from postern_core.verdict import Action
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

PATTERNS = (10, 100, 1000, 10_000, 100_000)
_A_RULE = 100  # phrases
_ENOUGH_S = 1.0  # of screening, for one point


def rules_curves(sizes: Sequence[int] = PATTERNS, *, enough_s: float = _ENOUGH_S) -> list[Curve]:
    """Both curves. Screening takes the messages of the mixed load again and again, whole rounds, for `enough_s` at least."""
    messages = [template.data for template in templates("mixed") if not template.caught]
    envelope = _envelope()
    compiled, screened = [], []
    for size in sizes:
        begun = time.perf_counter()
        ruleset = compile_policy(policy(size))
        took_s = time.perf_counter() - begun
        compiled.append(Point(size, took_s * 1000, f"{took_s * 1000:.0f} ms"))
        rounds, begun, took_s = 0, time.process_time(), 0.0
        while rounds == 0 or took_s < enough_s:
            for message in messages:
                screen(envelope, message, ruleset)
            rounds, took_s = rounds + 1, time.process_time() - begun
        each_ms = took_s * 1000 / rounds / len(messages)
        screened.append(Point(size, each_ms, f"{each_ms:.3f} ms"))
    return [
        Curve(name="rules, compiling", n_is="patterns", cost_is="ms to compile the policy", points=compiled),
        Curve(name="rules, screening", n_is="patterns", cost_is="CPU ms a message (mixed)", points=screened),
    ]


def policy(size: int) -> ScreeningPolicy:
    """`size` phrases that no message of the mixes holds, a hundred a rule."""
    found = phrases(random.Random("scaling"), size)
    rules = (
        Rule(
            id=str(number),
            name=f"rule {number}",
            action=Action.DELETE,
            condition=KeywordCondition(phrases=group, scope=KeywordScope.BODY),
        )
        for number, group in enumerate(iter(lambda: tuple(itertools.islice(found, _A_RULE)), ()))
    )
    return ScreeningPolicy(revision=1, rules=tuple(rules))


def _envelope() -> Envelope:
    return Envelope(
        id=new_queue_id(),
        gate=Gate.ANON,
        reverse_path="sender@origin.example",
        recipients=(Recipient(n=0, address="recipient@relay.example"),),
        size_bytes=0,
        accepted_at=datetime.now(UTC),
        client=Client(address="127.0.0.1"),
    )
