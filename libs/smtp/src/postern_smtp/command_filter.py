"""The SMTP filter: each command line against the table of the policy, before anything else looks at it. Pure.

A line that is longer than its verb may be, or whose verb is disabled or unknown, is a *violation*: it is answered with 500 or 502, or ends
the connection with 421, as the policy says; it counts as an error of the session, and is told as an intrusion. What the octets of a
verb are is decided here without decoding anything; a line that passes is parsed by commands.py. What is disabled is not announced either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_core.policy.commands import OTHERS, CommandRule, ListenerCommands, OnViolation, command_table, octets_cap
from postern_smtp import replies
from postern_smtp.lines import LineTooLong

_SHOWN_OCTETS: Final = 20  # of an unknown verb
# what EHLO announces → the verb that it is about
_ANNOUNCES: Final = {
    "STARTTLS": "STARTTLS",
    "AUTH": "AUTH",
    "CHUNKING": "BDAT",
    "BINARYMIME": "BDAT",
    "ETRN": "ETRN",
    "VRFY": "VRFY",
    "EXPN": "EXPN",
    "HELP": "HELP",
}


class Violation(msgspec.Struct, frozen=True):
    """A command that the filter does not let pass."""

    kind: NoticeKind
    verb: str  # printable
    octets: int
    closes: bool
    reply: Reply | None  # None: what the dialogue says of such a command anyway


class CommandFilter:
    """One policy revision's, for one gate."""

    def __init__(self, policy: ListenerCommands) -> None:
        self._policy = policy
        self._rules = {rule.verb.encode("ascii"): _capped(rule) for rule in command_table(policy.rules)}
        self._others = self._rules.pop(OTHERS.encode("ascii"))
        self._allowed = {verb: rule.max_octets for verb, rule in self._rules.items() if rule.enabled}
        self.auth_octets = self._rules[b"AUTH"].max_octets  # of each further line of an AUTH exchange

    def violation(self, line: bytes | LineTooLong) -> Violation | None:
        """What is wrong with a line (without its CRLF); None when it may pass."""
        if isinstance(line, LineTooLong):
            return self._violation(line.start, line.octets)
        octets = len(line) + 2
        if octets <= self._allowed.get(line.partition(b" ")[0].upper(), 0):
            return None
        return self._violation(line, octets)

    def auth_violation(self, line: bytes | LineTooLong) -> Violation | None:
        """The same for a further line of an AUTH exchange, which has no verb."""
        octets = line.octets if isinstance(line, LineTooLong) else len(line) + 2
        if octets <= self.auth_octets:
            return None
        return self._violated(NoticeKind.COMMAND_TOO_LONG, "AUTH", octets, self._policy.on_too_long, replies.AUTH_LINE_TOO_LONG)

    def announced(self, extensions: Iterable[str]) -> list[str]:
        """Those of `extensions` (as EHLO shows them) whose commands are enabled."""
        return [line for line in extensions if self._is_enabled(_ANNOUNCES.get(line.partition(" ")[0]))]

    def _is_enabled(self, verb: str | None) -> bool:
        return verb is None or verb.encode("ascii") in self._allowed

    def _violation(self, line: bytes, octets: int) -> Violation | None:
        word = line.partition(b" ")[0].upper()
        rule: CommandRule = self._rules.get(word, self._others)
        shown = rule.verb if rule is not self._others else _shown(word)
        if octets > rule.max_octets:
            return self._violated(NoticeKind.COMMAND_TOO_LONG, shown, octets, self._policy.on_too_long, replies.LINE_TOO_LONG)
        if rule.enabled:
            return None
        if rule is self._others:
            return self._violated(NoticeKind.COMMAND_UNKNOWN, shown, octets, self._policy.on_unknown, None)
        return self._violated(NoticeKind.COMMAND_DISABLED, shown, octets, self._policy.on_disabled, replies.NOT_IMPLEMENTED)

    @staticmethod
    def _violated(kind: NoticeKind, verb: str, octets: int, what: OnViolation, reply: Reply | None) -> Violation:
        if what is OnViolation.CLOSE:
            refusal = replies.TOO_LONG_CLOSING if kind is NoticeKind.COMMAND_TOO_LONG else replies.NOT_ALLOWED_CLOSING
            return Violation(kind, verb, octets, True, refusal)
        return Violation(kind, verb, octets, False, reply)


def _capped(rule: CommandRule) -> CommandRule:
    return msgspec.structs.replace(rule, max_octets=min(rule.max_octets, octets_cap(rule.verb)))


def _shown(word: bytes) -> str:
    text = word[:_SHOWN_OCTETS].decode("latin-1")
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)


DEFAULT_FILTER: Final = CommandFilter(ListenerCommands())
