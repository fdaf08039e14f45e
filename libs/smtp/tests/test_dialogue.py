"""The dialogue without a socket: which command is legal when, and every limit's reply."""

from __future__ import annotations

import ssl
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.errors import Reply
from postern_core.policy import GateLimits
from postern_smtp import replies
from postern_smtp.checks import Checks
from postern_smtp.commands import Bdat, Verb
from postern_smtp.dialogue import Answer, Dialogue, Then
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.lines import LineTooLong
from postern_smtp.paths import ForwardPath
from postern_smtp.session import LEGAL, Session, State


def decide(path: ForwardPath) -> str | Reply:
    return path.address if path.domain == "relay.example" else replies.RELAY_DENIED


RULES = GateRules(revision=1, hostname="mx.example", limits=GateLimits(), decide_recipient=decide)
ANON = GateProfile(gate=Gate.ANON, fallback_hostname="fallback.example")


class EverybodyIsIn:
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
    """A dialogue, and the rules that it sees next."""

    def __init__(self, profile: GateProfile = ANON, **limits: object) -> None:
        self.rules: GateRules | None = replace(RULES, limits=GateLimits(**limits))  # type: ignore[arg-type]
        self.unavailable: Reply | None = None
        self.session = Session("192.0.2.1")
        self.dialogue = Dialogue(self.session, profile, lambda: self.rules, lambda: self.unavailable)

    def say(self, line: str, *, more_waits: bool = False) -> Answer:
        return self.dialogue.take(line.encode(), more_waits=more_waits)

    def reply(self, line: str) -> str:
        """Code and enhanced status."""
        return self.say(line).wire[:9].decode().strip()

    def script(self, *lines: str) -> list[str]:
        return [self.reply(line)[:3] for line in lines]

    def message(self, octets: int) -> None:
        """As if a message of that size had come and been stored."""
        self.session.received_bytes += octets
        self.session.transaction = None


def test_a_whole_transaction() -> None:
    talk = Talk()
    assert talk.script("EHLO c.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@relay.example>") == ["250"] * 3
    answer = talk.say("DATA")
    assert (answer.wire[:4], answer.then) == (b"354 ", Then.READ_DATA)
    transaction = talk.session.transaction
    assert transaction is not None
    assert [recipient.address for recipient in transaction.recipients] == ["b@relay.example"]


def test_ehlo_offers_what_the_gate_can_do() -> None:
    assert Talk(max_message_bytes=1000).say("EHLO c").wire.decode().split("\r\n") == [
        "250-mx.example",
        "250-PIPELINING",
        "250-SIZE 1000",
        "250-8BITMIME",
        "250-ENHANCEDSTATUSCODES",
        "250-CHUNKING",
        "250-BINARYMIME",
        "250-DSN",
        "250-SMTPUTF8",
        "250 LIMITS MAILMAX=20 RCPTMAX=100",
        "",
    ]
    talk = Talk(AUTH)
    before = talk.say("EHLO c").wire
    assert b"STARTTLS" in before
    assert b"AUTH" not in before
    talk.session.secured("TLSv1.3 x")
    after = talk.say("EHLO c").wire
    assert b"STARTTLS" not in after
    assert b"AUTH PLAIN LOGIN" in after


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", Verb)
def test_the_table_of_states_is_kept(state: State, verb: Verb) -> None:
    talk = Talk()
    opening = {
        State.START: [],
        State.READY: ["EHLO c"],
        State.MAIL: ["EHLO c", "MAIL FROM:<>"],
        State.RCPT: ["EHLO c", "MAIL FROM:<>", "RCPT TO:<b@relay.example>"],
        State.CHUNKS: ["EHLO c", "MAIL FROM:<>", "RCPT TO:<b@relay.example>", "BDAT 3"],
    }[state]
    talk.script(*opening)
    assert talk.session.state is state
    argument = {
        "EHLO": " c",
        "HELO": " c",
        "MAIL": " FROM:<>",
        "RCPT": " TO:<c@relay.example>",
        "VRFY": " x",
        "AUTH": " PLAIN",
        "BDAT": " 5",
    }.get(verb.value, "")
    answer = talk.say(f"{verb}{argument}")
    code = str(answer.reply)[:3] if answer.reply is not None else answer.wire[:3].decode()
    if verb is Verb.BDAT:
        assert answer.then is Then.READ_CHUNK  # also when it is refused, with `reply`
        assert code == ("" if state in LEGAL[verb] else "503")
    elif verb in (Verb.STARTTLS, Verb.AUTH):
        assert code == "502"  # this gate has neither
    elif state in LEGAL[verb]:
        assert code in ("250", "354", "221", "252", "214")
    else:
        assert code == "503"


def test_before_tls_only_a_few_commands_are_answered() -> None:
    talk = Talk(AUTH, max_errors=None, tls_deadline_commands=100)
    assert talk.script("EHLO c", "HELO c", "NOOP", "RSET") == ["250"] * 4
    for line in ("MAIL FROM:<>", "RCPT TO:<a@b.example>", "DATA", "VRFY x", "HELP", "EXPN x", "FROB", "\x01"):
        assert talk.reply(line) == "530 5.7.0"
    assert talk.reply("AUTH PLAIN AGEAYg==") == "538 5.7.11"[:9]
    assert talk.say("STARTTLS").then is Then.START_TLS
    talk.session.secured("TLSv1.3")
    assert talk.reply("MAIL FROM:<>") == "530 5.7.0"
    assert talk.reply("AUTH PLAIN") == "503 5.5.1"
    assert talk.reply("STARTTLS") == "503 5.5.1"
    talk.say("EHLO c")
    assert talk.reply("MAIL FROM:<>") == "530 5.7.0"
    assert talk.say("AUTH PLAIN").then is Then.AUTHENTICATE
    talk.session.user = "somebody"
    assert talk.reply("AUTH PLAIN") == "503 5.5.1"
    assert talk.script("MAIL FROM:<>", "RCPT TO:<b@relay.example>") == ["250", "250"]


def test_tls_makes_the_session_forget() -> None:
    talk = Talk(replace(ANON, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)))
    talk.script("EHLO secret.example")
    talk.session.secured("TLSv1.3")
    assert talk.session.host == ""
    assert talk.reply("MAIL FROM:<>") == "503 5.5.1"


def test_a_client_that_does_not_start_tls_in_time_is_dropped() -> None:
    talk = Talk(AUTH, tls_deadline_commands=3)
    assert talk.script("NOOP", "NOOP", "NOOP") == ["250"] * 3
    answer = talk.say("NOOP")
    assert (answer.wire[:9], answer.then) == (b"421 4.7.0", Then.CLOSE)
    assert Talk(AUTH, tls_deadline_commands=0).say("STARTTLS").then is Then.START_TLS


def test_without_a_policy_mail_is_deferred() -> None:
    talk = Talk()
    rules, talk.rules = talk.rules, None
    assert talk.dialogue.greeting().wire.startswith(b"220 fallback.example ")
    talk.say("EHLO c")
    assert talk.reply("MAIL FROM:<>") == "451 4.3.5"
    talk.rules = rules
    assert talk.reply("MAIL FROM:<>") == "250 2.1.0"


def test_while_nothing_can_be_stored_mail_is_deferred() -> None:
    talk = Talk()
    talk.script("EHLO c")
    talk.unavailable = replies.UNAVAILABLE
    assert talk.reply("MAIL FROM:<>") == "451 4.3.0"
    talk.unavailable = None
    talk.script("MAIL FROM:<>", "RCPT TO:<b@relay.example>")
    talk.unavailable = replies.UNAVAILABLE
    assert talk.reply("DATA") == "451 4.3.0"
    talk.unavailable = None
    assert talk.reply("DATA")[:3] == "354"


def test_a_transaction_keeps_the_rules_that_it_began_with() -> None:
    talk = Talk()
    talk.script("EHLO c", "MAIL FROM:<>")
    talk.rules = replace(RULES, decide_recipient=lambda _: replies.RELAY_DENIED, limits=GateLimits(max_recipients=1))
    assert talk.script("RCPT TO:<b@relay.example>", "RCPT TO:<c@relay.example>", "RSET", "MAIL FROM:<>") == ["250"] * 4
    assert talk.reply("RCPT TO:<b@relay.example>") == "550 5.7.1"


def test_too_large_by_its_own_word() -> None:
    talk = Talk(max_message_bytes=1000)
    talk.say("EHLO c")
    assert talk.reply("MAIL FROM:<> SIZE=1001") == "552 5.3.4"
    assert talk.reply("MAIL FROM:<> SIZE=1000") == "250 2.1.0"
    talk = Talk(max_message_bytes=None, max_session_bytes=None)
    assert b"250-SIZE\r\n" in talk.say("EHLO c").wire
    assert talk.reply("MAIL FROM:<> SIZE=99999999999999999999") == "250 2.1.0"


def test_a_message_over_the_session_limit_alone_is_refused_for_good() -> None:
    talk = Talk(max_message_bytes=None, max_session_bytes=5000)
    assert b"250-SIZE 5000\r\n" in talk.say("EHLO c").wire
    assert talk.reply("MAIL FROM:<> SIZE=5001") == "552 5.3.4"


def test_a_session_that_has_sent_enough_is_ended() -> None:
    talk = Talk(max_message_bytes=1000, max_session_bytes=1500)
    talk.script("EHLO c", "MAIL FROM:<> SIZE=1000")
    talk.message(1000)
    assert talk.say("MAIL FROM:<> SIZE=501").wire[:9] == b"421 4.7.0"
    assert talk.reply("MAIL FROM:<>") == "250 2.1.0"
    reader = talk.dialogue.data_reader()
    assert reader.feed(b"x" * 501 + b"\r\n.\r\n")
    assert reader.message() is replies.SESSION_TOO_BIG


def test_recipient_101_waits_for_the_next_transaction() -> None:
    talk = Talk(max_errors=0)
    talk.script("EHLO c", "MAIL FROM:<>")
    asked = [talk.reply(f"RCPT TO:<r{n}@relay.example>") for n in range(150)]
    assert asked == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 50
    transaction = talk.session.transaction
    assert transaction is not None
    assert [recipient.n for recipient in transaction.recipients] == list(range(100))


def test_recipients_fit_the_envelope_even_without_a_limit() -> None:
    talk = Talk(max_recipients=None)
    talk.script("EHLO c", "MAIL FROM:<>")
    refused = [n for n in range(6000) if talk.reply(f"RCPT TO:<{'x' * 200}{n}@relay.example>")[:3] != "250"]
    assert refused
    assert refused[0] > 4000
    # short addresses take more room there than their octets
    talk = Talk(max_recipients=None)
    talk.script("EHLO c", "MAIL FROM:<>")
    taken = [f"{n}@relay.example" for n in range(30_000) if talk.reply(f"RCPT TO:<{n}@relay.example>")[:3] == "250"]
    transaction = talk.session.transaction
    assert transaction is not None
    assert len(taken) < 30_000
    assert len(msgspec.json.encode(transaction.recipients)) < 2 * 1024 * 1024


def test_the_mail_after_the_last_message_gets_421() -> None:
    talk = Talk(max_messages=2)
    talk.say("EHLO c")
    for _ in range(2):
        assert talk.reply("MAIL FROM:<>") == "250 2.1.0"
        talk.message(10)
    answer = talk.say("MAIL FROM:<>")
    assert (answer.wire[:9], answer.then) == (b"421 4.7.0", Then.CLOSE)


def test_one_error_too_many_ends_the_session() -> None:
    talk = Talk(max_errors=2)
    assert talk.script("FROB", "NOOP", "DATA", "NOOP") == ["500", "250", "503", "250"]
    answer = talk.say("FROB")
    assert (answer.wire[:9], answer.then) == (b"421 4.7.0", Then.CLOSE)


def test_data_that_nobody_asked_for_is_not_read_as_commands() -> None:
    talk = Talk()
    talk.script("EHLO c", "MAIL FROM:<>", "RCPT TO:<b@elsewhere.example>")
    answer = talk.say("DATA", more_waits=True)
    assert (answer.wire[:9], answer.then) == (b"554 5.5.0", Then.CLOSE)
    # a fault that passes is told as one, and what the client sent behind its DATA is not read either
    talk = Talk()
    talk.script("EHLO c", "MAIL FROM:<>", "RCPT TO:<b@relay.example>")
    talk.unavailable = replies.UNAVAILABLE
    answer = talk.say("DATA", more_waits=True)
    assert (answer.wire[:9], answer.then) == (b"451 4.3.0", Then.CLOSE)


@pytest.mark.parametrize(
    ("gate", "line", "refusal"),
    [
        (ANON, "BDAT 10 LAST", "503 5.5.1"),
        (ANON, "bdat 10", "503 5.5.1"),
        (ANON, "BDAT 10" + " " * 2048, "500 5.5.2"),
        (AUTH, "BDAT 10 LAST", "530 5.7.0"),
    ],
)
def test_a_chunk_that_is_refused_for_whatever_reason_is_to_be_read(gate: GateProfile, line: str, refusal: str) -> None:
    answer = Talk(gate).say(line)
    assert (str(answer.reply)[:9], answer.then, answer.chunk) == (refusal, Then.READ_CHUNK, Bdat(10, last="LAST" in line))
    assert Talk(gate).say("BDAT ten").then is Then.CLOSE


def test_chunks_after_a_refused_one_are_no_message() -> None:
    talk = Talk()
    talk.script("EHLO c", "MAIL FROM:<>", "RCPT TO:<b@relay.example>")
    assert str(talk.say("BDAT 10" + " " * 2048).reply)[:3] == "500"
    assert talk.say("BDAT 5 LAST").then is Then.READ_CHUNK
    assert talk.session.transaction is not None
    assert talk.session.transaction.chunks is not None
    assert talk.session.transaction.chunks.message() is replies.LINE_TOO_LONG


def test_commands_that_bring_no_mail_become_errors_after_a_hundred_in_a_row() -> None:
    talk = Talk(max_errors=2)
    for _ in range(2):
        assert talk.script(*["RSET", "NOOP", "EHLO c", "VRFY x"] * 24) == ["250", "250", "250", "252"] * 24
        assert talk.script("MAIL FROM:<>", "RSET") == ["250", "250"]
    assert talk.script(*["NOOP"] * 101) == ["250"] * 101
    assert talk.say("NOOP").wire[:9] == b"421 4.7.0"
    talk = Talk(max_errors=None)
    assert talk.script("EHLO c", *["NOOP"] * 500) == ["250"] * 501


def test_a_line_without_end_counts_as_a_command_before_tls() -> None:
    talk = Talk(AUTH, tls_deadline_commands=2)
    assert talk.dialogue.take(LineTooLong(b"X", 20_000)).wire[:9] == b"530 5.7.0"
    assert talk.reply("NOOP")[:3] == "250"
    assert talk.dialogue.take(LineTooLong(b"X", 20_000)).wire[:9] == b"421 4.7.0"
    assert Talk().dialogue.take(LineTooLong(b"X", 20_000)).wire[:9] == b"500 5.5.2"


lines = st.sampled_from(
    [
        "EHLO c",
        "HELO c",
        "MAIL FROM:<a@b.example>",
        "RCPT TO:<a@relay.example>",
        "RCPT TO:<a@b.example>",
        "RSET",
        "NOOP",
        "FROB",
        "DATA",
        "STARTTLS",
        "AUTH LOGIN",
    ]
)


@given(st.lists(lines, max_size=40), st.sampled_from([ANON, AUTH]))
def test_data_is_asked_for_only_with_a_sender_and_a_recipient(script: list[str], profile: GateProfile) -> None:
    talk = Talk(profile, max_errors=None, tls_deadline_commands=1000)
    for line in script:
        if talk.say(line).then is Then.READ_DATA:
            assert not profile.tls_required
            transaction = talk.session.transaction
            assert transaction is not None
            assert transaction.recipients
            assert all(recipient.domain == "relay.example" for recipient in transaction.recipients)
            talk.message(1)


async def refuse(*_: object) -> Reply | None:
    return replies.RELAY_DENIED


async def pass_on(*_: object) -> Reply | None:
    return None


async def ask(talk: Talk, line: str) -> str:
    """As the connection does it: asks, and says what comes of the answer."""
    answer = talk.say(line)
    assert answer.then is Then.CHECK
    assert answer.question is not None
    assert answer.wire == b""  # nothing is said before the answer is known
    return talk.dialogue.checked(answer.question, await answer.question.refusal()).wire[:9].decode()


async def test_what_a_check_refuses_never_happened_and_counts_as_an_error() -> None:
    talk = Talk(max_errors=2)
    assert talk.rules is not None
    talk.say("EHLO c")
    passing, refusing = talk.rules, replace(talk.rules, checks=Checks(sender=(pass_on, refuse)))
    talk.rules = refusing
    assert await ask(talk, "MAIL FROM:<a@x.example>") == "550 5.7.1"
    assert (talk.session.state, talk.session.transactions, talk.session.errors) == (State.READY, 0, 1)
    talk.rules = replace(passing, checks=Checks(sender=(pass_on,), recipient=(refuse,)))
    assert await ask(talk, "MAIL FROM:<a@x.example>") == "250 2.1.0"
    assert (talk.session.state, talk.session.transactions) == (State.MAIL, 1)
    assert await ask(talk, "RCPT TO:<b@relay.example>") == "550 5.7.1"
    assert talk.session.state is State.MAIL
    assert await ask(talk, "RCPT TO:<b@relay.example>") == "421 4.7.0"  # one error too many


async def test_the_first_check_that_refuses_is_the_last_that_is_asked() -> None:
    asked: list[str] = []

    async def first(*_: object) -> Reply | None:
        asked.append("first")
        return replies.RELAY_DENIED

    async def second(*_: object) -> Reply | None:
        asked.append("second")
        return None

    talk = Talk()
    assert talk.rules is not None
    talk.rules = replace(talk.rules, checks=Checks(connection=(first, second)))
    opening = talk.dialogue.opening()
    assert opening is not None
    assert await opening.refusal() is replies.RELAY_DENIED
    assert asked == ["first"]


async def test_nobody_is_asked_about_what_the_policy_alone_refuses() -> None:
    talk = Talk(max_recipients=0)
    assert talk.rules is not None
    talk.say("EHLO c")
    talk.say("MAIL FROM:<a@x.example>")
    talk.rules = replace(talk.rules, checks=Checks(recipient=(pass_on,)))
    talk.say("RSET")
    talk.say("MAIL FROM:<a@x.example>")
    assert talk.reply("RCPT TO:<b@other.example>") == "550 5.7.1"
    assert talk.reply("RCPT TO:<b@relay.example>") == "452 4.5.3"
