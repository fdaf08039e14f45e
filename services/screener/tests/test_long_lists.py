"""Lists of many values: packed they say the same as plain ones, and a revision takes over what the one before has compiled."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postern_core.envelope import Envelope
from postern_core.policy import KeywordCondition, ListKind, NamedList, Rule, ScreeningPolicy, SenderCondition
from postern_core.verdict import Action, Decision
from postern_screener.checks import owners, phrase_shards
from postern_screener.checks.owners import Table
from postern_screener.checks.phrase_shards import Shard, shards
from postern_screener.checks.phrases import Phrases
from postern_screener.checks.values import Values
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

AnEnvelope = Callable[..., Envelope]
WORDS = st.text(alphabet="ab \u00e4", min_size=1, max_size=6).filter(str.strip)
MANY = [random.Random(number).randbytes(6).hex() for number in range(20_000)]
patched_once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(st.binary(max_size=3), max_size=300), st.lists(st.binary(max_size=4), max_size=20))
def test_values_keep_their_numbers(added: list[bytes], asked: list[bytes]) -> None:
    values, plain = Values(), dict[bytes, int]()
    for value in added:
        assert values.add(value) == plain.setdefault(value, len(plain))
    assert list(values) == list(plain)
    assert all(values.find(value) == plain.get(value, -1) for value in (*added, *asked))


@patched_once
@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 3)), max_size=60), st.text(max_size=3))
def test_a_packed_table_says_the_same_as_a_dict(
    monkeypatch: pytest.MonkeyPatch, added: list[tuple[str, int]], asked: str
) -> None:
    monkeypatch.setattr(owners, "_FEW", 5)
    table, plain = Table(), dict[str, set[int]]()
    for value, criterion in sorted(added, key=lambda pair: pair[1]):
        table.add(value, criterion)
        plain.setdefault(value, set()).add(criterion)
    assert len(table) == len(plain)
    assert all(table.get(value) == tuple(sorted(plain.get(value, ()))) for value in (*plain, asked))


@patched_once
@given(st.lists(st.tuples(st.booleans(), st.lists(WORDS, max_size=12)), max_size=4), st.text(alphabet="ab \u00e4.", max_size=40))
def test_phrases_in_several_shards_are_found_as_by_looking_for_each(
    monkeypatch: pytest.MonkeyPatch, wanted: list[tuple[bool, list[str]]], text: str
) -> None:
    monkeypatch.setattr(phrase_shards, "_LEAST", 2)
    monkeypatch.setattr(phrase_shards, "_MOST", 4)
    monkeypatch.setattr(phrase_shards, "_ENDS_ONE_OF", 2)
    phrases = Phrases((owner, whole_word, listed) for owner, (whole_word, listed) in enumerate(wanted))
    text = " ".join(text.split())
    found = list(phrases.find(text.encode()))
    assert found == sorted(set(found))
    by_owner = {
        owner: {phrases.span(number, text.encode()) for number in found if owner in phrases.owners(number)}
        for owner in range(len(wanted))
    }
    expected = {
        owner: {span for phrase in listed if (span := _place(" ".join(phrase.split()), text, whole_word=whole_word))}
        for owner, (whole_word, listed) in enumerate(wanted)
    }
    assert by_owner == expected


def _place(phrase: str, text: str, *, whole_word: bool) -> tuple[int, int] | None:
    """Where it stands first, in octets; None where it does not."""
    for at in range(len(text) - len(phrase) + 1):
        end = at + len(phrase)
        around = text[max(0, at - 1) : at] + text[end : end + 1]
        if text[at:end] == phrase and not (whole_word and any(each.isalnum() for each in around)):
            return len(text[:at].encode()), len(text[:end].encode())
    return None


@pytest.mark.parametrize("changed", [MANY[:100] + MANY[101:], [*MANY[:9000], "one more", *MANY[9000:]], [*MANY, "one more"]])
def test_a_list_with_one_line_changed_is_compiled_but_for_one_shard(changed: list[str]) -> None:
    before, after = Phrases([(0, False, MANY)]), Phrases([(3, True, changed)])
    assert len(before.shards) > 1
    assert len(set(before.shards) - set(after.shards)) <= 1
    assert len(set(after.shards) - set(before.shards)) <= 1
    assert list(after.find(b"it is " + changed[9000].encode())) == [9000]


def test_a_revision_in_which_another_rule_changed_compiles_no_phrase_again(
    an_envelope: AnEnvelope, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(Shard):
        def __init__(self, phrases: list[bytes]) -> None:
            super().__init__(phrases)
            made.append(len(self))

    monkeypatch.setattr(phrase_shards, "Shard", Counted)
    lists = (
        NamedList.of("words", ListKind.PHRASES, MANY),
        NamedList.of("senders", ListKind.SENDERS, (f"{each[::-1]}.example" for each in MANY)),
    )
    words, senders = (
        Rule(id=name, name=name, condition=condition, action=Action.DELETE)
        for name, condition in (("w", KeywordCondition(lists=("words",))), ("s", SenderCondition(lists=("senders",))))
    )
    first = compile_policy(ScreeningPolicy(revision=1, rules=(words,), lists=lists))
    compiled = sum(made)
    second = compile_policy(ScreeningPolicy(revision=2, rules=(senders, words), lists=lists))
    assert sum(made) == compiled == len(MANY)
    # the sandbox's process, which has to compile all of it, gets the time
    assert second.compiled_in_s > second.keywords.compiled_in_s == first.keywords.compiled_in_s > 0
    body = b"Subject: hello\r\nFrom: somebody@%s.example\r\n\r\nit is %s indeed\r\n"
    for ruleset, sender, word, decision in (
        (first, MANY[7][::-1], MANY[9000], Decision.DELETE),
        (second, "friends", MANY[9000], Decision.DELETE),
        (first, MANY[7][::-1], "friends", Decision.PASS),
        (second, MANY[7][::-1], "friends", Decision.DELETE),
        (second, "friends", "friends", Decision.PASS),
    ):
        assert screen(an_envelope(), body % (sender.encode(), word.encode()), ruleset).verdict.decision is decision


def test_nothing_of_a_list_stays_when_no_ruleset_has_it() -> None:
    """Was: hyperscan's binding kept a number for each phrase that was ever compiled, three megabytes for each revision of a long list."""
    values = [each[::-1].encode() for each in MANY[:6000]]
    before = 0
    for _ in range(2):
        before = sys.getallocatedblocks()
        held = list(shards(values))
        del held
        gc.collect()
    assert sys.getallocatedblocks() - before < 1000
