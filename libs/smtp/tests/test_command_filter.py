"""The SMTP filter: what passes, what is a violation, and what the dialogue makes of it."""

from __future__ import annotations

import re
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_core.policy import GateLimits
from postern_core.policy import commands as policy
from postern_core.policy.commands import CommandRule, ListenerCommands, OnViolation, command_table
from postern_smtp import lines, replies
from postern_smtp.command_filter import DEFAULT_FILTER, CommandFilter
from postern_smtp.commands import Bdat, Verb
from postern_smtp.dialogue import Answer, Dialogue, Then
from postern_smtp.filters import Filters
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.lines import LineTooLong
from postern_smtp.session import Session

ANON = GateProfile(gate=Gate.ANON, fallback_hostname="fallback.example")


class EverybodyIsIn:
    mechanisms = ("PLAIN", "LOGIN")
    max_attempts = 3

    async def verify(self, name: str, password: str, client_address: str) -> str | Reply:
        return name


AUTH = GateProfile(
    gate=Gate.AUTH,
    fallback_hostname="fallback.example",
    tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    tls_required=True,
    authenticator=EverybodyIsIn(),
)


class Talk:
    """A dialogue under a filter, with the notices that it told."""

    def __init__(self, *rules: CommandRule, profile: GateProfile = ANON, **what: Any) -> None:
        filters = Filters(commands=CommandFilter(ListenerCommands(rules=rules, **what)))
        self.rules: GateRules | None = GateRules(
            revision=1, hostname="mx.example", limits=GateLimits(), decide_recipient=lambda path: path.address, filters=filters
        )
        self.session = Session("192.0.2.1")
        self.told: list[tuple[NoticeKind, str, dict[str, object]]] = []
        self.dialogue = Dialogue(self.session, profile, lambda: self.rules, lambda: None, self._tell)

    def _tell(self, kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None:
        self.told.append((kind, about, dict(fields)))

    def say(self, line: str | bytes) -> Answer:
        return self.dialogue.take(line.encode() if isinstance(line, str) else line)

    def reply(self, line: str | bytes) -> str:
        return self.say(line).wire[:9].decode().strip()


PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "smtp.md").read_text(encoding="utf-8")


def row(verb: str, octets: int = 512, *, enabled: bool = True) -> CommandRule:
    return CommandRule(verb=verb, max_octets=octets, enabled=enabled)


def test_every_verb_that_we_know_has_a_row() -> None:
    rows = {rule.verb for rule in policy.DEFAULT_COMMANDS}
    asked_for = "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT HELP VRFY EXPN ETRN AUTH STARTTLS *"
    assert rows >= {*Verb, *asked_for.split()}
    assert not rows & policy.NEVER
    assert (policy.octets_cap("MAIL"), policy.octets_cap("AUTH")) == (lines.MAX_COMMAND_OCTETS, lines.MAX_AUTH_OCTETS)


def test_the_table_stands_on_the_page() -> None:
    shown = re.findall(r"^\| `([A-Z*]+)` \| (\d+|off) \| (?:\d+|off) \| ", PAGE, re.MULTILINE)
    assert shown == [(rule.verb, str(rule.max_octets) if rule.enabled else "off") for rule in policy.DEFAULT_COMMANDS]


@pytest.mark.parametrize("rule", [rule for rule in policy.DEFAULT_COMMANDS if rule.enabled])
def test_a_line_may_be_as_long_as_its_row_says_and_no_longer(rule: CommandRule) -> None:
    longest = rule.verb.lower().encode() + b" " + b"x" * (rule.max_octets - len(rule.verb) - 3)
    assert DEFAULT_FILTER.violation(longest) is None
    violation = DEFAULT_FILTER.violation(longest + b"x")
    assert violation is not None
    assert (violation.kind, violation.verb, violation.octets) == (NoticeKind.COMMAND_TOO_LONG, rule.verb, rule.max_octets + 1)


def test_no_row_allows_more_than_the_hard_cap() -> None:
    filter_ = CommandFilter(ListenerCommands(rules=(row("NOOP", 1_000_000), row("AUTH", 1_000_000))))
    for verb, cap in (("NOOP", 2048), ("AUTH", 12288)):
        assert filter_.violation(verb.encode() + b" " + b"x" * (cap - 7)) is None
        assert filter_.violation(verb.encode() + b" " + b"x" * (cap - 6)) is not None
    assert filter_.auth_octets == 12288


def test_a_command_that_is_too_long_is_refused_counted_and_told() -> None:
    talk = Talk(row("NOOP", 6))
    assert talk.reply("NOOP") == "250 2.0.0"
    assert talk.reply("NOOP x") == "500 5.5.2"
    assert talk.told == [(NoticeKind.COMMAND_TOO_LONG, "192.0.2.1", {"verb": "NOOP", "octets": 8})]
    assert talk.session.errors == 1


def test_octets_count_not_characters() -> None:
    talk = Talk(row("NOOP", 10))
    assert talk.reply("NOOP ääa") == "500 5.5.2"
    assert talk.told[0][2]["octets"] == 12


def test_a_line_that_was_not_even_kept_is_told_with_its_verb_and_length() -> None:
    talk = Talk()
    answer = talk.dialogue.take(LineTooLong(b"RCPT TO:<xxxxxxxxxxxxxxx", 70_000))
    assert answer.wire[:9] == b"500 5.5.2"
    assert talk.told == [(NoticeKind.COMMAND_TOO_LONG, "192.0.2.1", {"verb": "RCPT", "octets": 70_000})]


def test_a_disabled_command_is_refused_counted_and_told() -> None:
    talk = Talk(row("VRFY", enabled=False))
    assert [talk.reply(line) for line in ("VRFY x", "EXPN x", "ETRN x.example")] == ["502 5.5.1"] * 3
    assert [(kind, fields["verb"]) for kind, _, fields in talk.told] == [
        (NoticeKind.COMMAND_DISABLED, verb) for verb in ("VRFY", "EXPN", "ETRN")
    ]
    assert talk.session.errors == 3


@pytest.mark.parametrize(
    ("line", "reply", "verb"),
    [
        (b"FROB x", "500 5.5.2", "FROB"),
        (b"TURN", "502 5.5.1", "TURN"),
        (b"", "500 5.5.2", ""),
        (b" MAIL FROM:<>", "500 5.5.2", ""),
        (b"MAIL\tFROM:<>", "501 5.5.2", "MAIL?FROM:<>"),
        (b"\x16\x03\x01\x02", "501 5.5.2", "????"),
        (b"\x16\x03\x01\xff", "500 5.5.2", "????"),
        (b"G" * 60, "500 5.5.2", "G" * 20),
    ],
)
def test_an_unknown_command_is_answered_as_ever_and_told(line: bytes, reply: str, verb: str) -> None:
    talk = Talk()
    assert talk.reply(line) == reply
    assert talk.told == [(NoticeKind.COMMAND_UNKNOWN, "192.0.2.1", {"verb": verb, "octets": len(line) + 2})]
    assert talk.session.errors == 1


def test_unknown_commands_are_no_violation_where_the_policy_says_so_but_for_their_length() -> None:
    talk = Talk(row("*", 20), row("X-EXPS", 10, enabled=False))
    assert talk.reply("FROB") == "500 5.5.2"
    assert talk.told == []
    assert talk.reply("FROB " + "x" * 20) == "500 5.5.2"
    assert talk.reply("X-EXPS") == "502 5.5.1"
    assert [kind for kind, _, _ in talk.told] == [NoticeKind.COMMAND_TOO_LONG, NoticeKind.COMMAND_DISABLED]


@pytest.mark.parametrize(
    ("line", "what"), [("NOOP " + "x" * 600, "on_too_long"), ("EXPN x", "on_disabled"), ("FROB", "on_unknown")]
)
def test_a_violation_ends_the_connection_where_the_policy_says_so(line: str, what: str) -> None:
    for profile in (ANON, AUTH):
        talk = Talk(profile=profile, **{what: OnViolation.CLOSE})
        answer = talk.say(line)
        assert (answer.wire[:9], answer.then) == (b"421 4.7.0", Then.CLOSE)
        assert len(talk.told) == talk.session.errors == 1


def test_violations_use_up_the_errors_of_a_session() -> None:
    talk = Talk()
    assert [talk.reply("EXPN x") for _ in range(11)] == ["502 5.5.1"] * 10 + ["421 4.7.0"]


def test_before_tls_violations_get_the_answer_of_all_else_and_are_told() -> None:
    talk = Talk(row("NOOP", 6), profile=AUTH)
    assert [talk.reply(line) for line in ("NOOP x", "EXPN x", "FROB")] == ["530 5.7.0"] * 3
    assert [kind for kind, _, _ in talk.told] == [
        NoticeKind.COMMAND_TOO_LONG,
        NoticeKind.COMMAND_DISABLED,
        NoticeKind.COMMAND_UNKNOWN,
    ]
    talk.session.secured("TLSv1.3 x")
    assert [talk.reply(line) for line in ("NOOP x", "EXPN x", "FROB")] == ["500 5.5.2", "502 5.5.1", "500 5.5.2"]


def test_what_is_disabled_is_not_announced() -> None:
    talk = Talk(row("STARTTLS", enabled=False), row("AUTH", enabled=False), profile=AUTH)
    assert b"STARTTLS" not in talk.say("EHLO c").wire
    assert b"SIZE" in talk.say("EHLO c").wire
    talk.session.secured("TLSv1.3 x")
    assert b"AUTH" not in talk.say("EHLO c").wire
    without_bdat = CommandFilter(ListenerCommands(rules=(row("BDAT", enabled=False),)))
    assert without_bdat.announced(["SIZE 1", "CHUNKING", "BINARYMIME", "AUTH PLAIN"]) == ["SIZE 1", "AUTH PLAIN"]


def test_the_chunk_behind_a_bdat_that_is_not_taken_is_thrown_away() -> None:
    for rule in (row("BDAT", enabled=False), row("BDAT", 8)):
        answer = Talk(rule).say("BDAT 10 LAST")
        assert answer.reply in (replies.LINE_TOO_LONG, replies.NOT_IMPLEMENTED)
        assert (answer.then, answer.chunk) == (Then.READ_CHUNK, Bdat(10, last=True))


def test_behind_a_bdat_that_was_too_long_to_keep_nobody_knows_where_the_next_command_begins() -> None:
    answer = Talk(row("BDAT")).dialogue.take(LineTooLong(b"BDAT 10 LAST", 20_000))
    assert (answer.wire[:3], answer.then) == (b"500", Then.CLOSE)


def test_the_row_of_auth_holds_for_each_line_of_the_exchange() -> None:
    talk = Talk(row("AUTH", 20))
    assert talk.dialogue.auth_line_refusal(b"x" * 18) is None
    assert talk.dialogue.auth_line_refusal(b"x" * 19) is replies.AUTH_LINE_TOO_LONG
    assert talk.told == [(NoticeKind.COMMAND_TOO_LONG, "192.0.2.1", {"verb": "AUTH", "octets": 21})]
    talk = Talk(on_too_long=OnViolation.CLOSE)
    refusal = talk.dialogue.auth_line_refusal(LineTooLong(b"xx", 12289))
    assert refusal is not None
    assert refusal.code == 421


def test_without_a_policy_the_defaults_hold() -> None:
    talk = Talk(row("NOOP", 6))
    talk.rules = None
    assert talk.reply("NOOP x") == "250 2.0.0"
    assert talk.reply("NOOP " + "x" * 600) == "500 5.5.2"


def test_a_transaction_keeps_the_filter_that_it_began_with() -> None:
    talk, stricter = Talk(), Talk(row("NOOP", 6))
    assert [talk.reply(line)[:3] for line in ("EHLO c", "MAIL FROM:<>")] == ["250"] * 2
    assert talk.rules is not None
    assert stricter.rules is not None
    talk.rules = replace(talk.rules, filters=stricter.rules.filters)
    assert [talk.reply(line)[:3] for line in ("NOOP x", "RSET", "NOOP x")] == ["250", "250", "500"]


rules = st.builds(
    CommandRule,
    verb=st.sampled_from([rule.verb for rule in policy.DEFAULT_COMMANDS] + ["FROB"]),
    enabled=st.booleans(),
    max_octets=st.integers(3, 20_000),
)


@given(
    st.lists(rules, max_size=5, unique_by=lambda rule: rule.verb),
    st.binary(max_size=40) | st.sampled_from(list(Verb)).map(str.encode),
    st.integers(0, 13_000),
)
def test_nothing_passes_but_what_an_enabled_row_allows(given_rules: list[CommandRule], start: bytes, more: int) -> None:
    line = start.replace(b"\r\n", b"") + b" " + b"x" * more
    table = {rule.verb: rule for rule in command_table(given_rules)}
    word = line.partition(b" ")[0].upper().decode("latin-1")
    rule = table.get(word, table["*"]) if word != "*" else table["*"]
    allowed = rule.enabled and len(line) + 2 <= min(rule.max_octets, policy.octets_cap(rule.verb))
    violation = CommandFilter(ListenerCommands(rules=tuple(given_rules))).violation(line)
    assert (violation is None) is allowed
    assert violation is None or (violation.verb.isprintable() and violation.octets == len(line) + 2)
