"""What the session log is told of commands, and what it is never told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.policy import GateLimits
from postern_core.session_log import SessionRecord
from postern_smtp import replies
from postern_smtp.dialogue import Dialogue, Then, say
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.journal import Journal
from postern_smtp.lines import LineTooLong
from postern_smtp.session import Session


class Nobody:
    mechanisms = ("PLAIN", "LOGIN")
    max_attempts = 3

    async def verify(self, name: str, password: str, client_address: str) -> str:
        return name


class Talk:
    """A dialogue whose session log is kept, with a clock that goes on by a quarter of a second whenever it is looked at."""

    def __init__(self) -> None:
        rules = GateRules(revision=1, hostname="mx.example", limits=GateLimits(), decide_recipient=lambda path: path.address)
        profile = GateProfile(gate=Gate.ANON, fallback_hostname="x", authenticator=Nobody())
        self.session = Session("192.0.2.1", id="s-1", server_address="192.0.2.9:25", user="ann")
        self.told: list[SessionRecord] = []
        self.at = 0.0
        self._dialogue = Dialogue(self.session, profile, lambda: rules, lambda: None)
        self._journal = Journal(self.session, self.told.append, self.now)

    def now(self) -> float:
        self.at += 0.25
        return self.at

    def say(self, line: bytes | LineTooLong) -> Then:
        self._journal.begun(line)
        answer = self._dialogue.take(line)
        self._journal.replied(answer)
        return answer.then

    def data(self, octets: int) -> None:
        self.session.received_bytes += octets
        self._journal.replied(say(replies.queued("01j9zq3v5k7wexamp1e0000000")))  # type: ignore[arg-type]
        self._journal.replied(say(replies.SHUTTING_DOWN))  # of the session, not of the command


def test_each_command_is_one_record_with_its_last_reply() -> None:
    talk = Talk()
    for line in (
        b"EHLO client.example",
        b"mail FROM:<x@sender.example> SIZE=5",
        b"RCPT TO:<nobody>",
        b"RCPT TO:<a@relay.example>",
    ):
        talk.say(line)
    assert talk.say(b"DATA") is Then.READ_DATA
    talk.data(1000)
    assert [(each.n, each.verb, each.argument, each.code, each.received_bytes, each.taken_ms) for each in talk.told] == [
        (1, "EHLO", "client.example", 250, 21, 250),
        (2, "MAIL", "FROM:<x@sender.example> SIZE=5", 250, 37, 250),
        (3, "RCPT", "TO:<nobody>", 501, 18, 250),
        (4, "RCPT", "TO:<a@relay.example>", 250, 27, 250),
        (5, "DATA", "01j9zq3v5k7wexamp1e0000000", 250, 1006, 250),
    ]
    assert {(each.session, each.client, each.server, each.user) for each in talk.told} == {
        ("s-1", "192.0.2.1", "192.0.2.9:25", "ann")
    }
    assert talk.told[-1].host == "client.example"


def test_no_credentials_and_no_text_of_what_is_no_command_are_told() -> None:
    """Also a client that is out of step sends its password: as a command of its own."""
    talk = Talk()
    for line in (
        b"AUTH PLAIN AGFubgBzZWNyZXQ=",
        b"AUTH c2VjcmV0",
        b"c2VjcmV0",
        b"secret word of a message",
        b"NOOP secret",
        b"HELP secret",
        LineTooLong(b"NOOP xxxx", 20_000),
    ):
        talk.say(line)
        if talk.told[-1:] == [] or talk.told[-1].n != talk.session.commands:
            talk.data(0)  # the exchange ends
    told = [(each.verb, each.argument) for each in talk.told]
    assert told == [("AUTH", "PLAIN"), ("AUTH", ""), *[("UNKNOWN", "")] * 2, ("NOOP", ""), ("HELP", ""), ("UNKNOWN", "")]


@given(
    st.lists(
        st.binary(max_size=600) | st.sampled_from([b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<\x00\xff\x1b>", b"DATA"]), max_size=20
    )
)
def test_whatever_comes_a_record_is_short_and_printable(lines: list[bytes]) -> None:
    talk = Talk()
    for line in lines:
        talk.say(line)
    for record in talk.told:
        assert record.argument.isprintable()
        assert len(record.argument) <= 512
