"""The SMTP filter of one gate: which commands it takes, and how long each may be (OLD-PRODUCT 1.03–1.09, 1.20–1.30).

A row for each verb; a listener's policy holds those that are not as `DEFAULT_COMMANDS` has them, and those of further verbs. The row `*` stands for
every verb without one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import msgspec

# hard caps on what a row may allow, CRLF included
MAX_COMMAND_OCTETS: Final = 2048
MAX_AUTH_OCTETS: Final = 12288  # RFC 4954 section 4
OTHERS: Final = "*"  # every verb that has no row
# a server that turns the connection round gives mail to whoever asks for it: never a row of a filter (OLD-PRODUCT 1.09)
NEVER: Final = frozenset({"TURN", "ATRN"})

_PLAIN_OCTETS: Final = 512  # RFC 5321 section 4.5.3.1.4


class OnViolation(enum.StrEnum):
    """What follows when a command is too long, disabled or unknown. It counts as an error in any case."""

    REPLY = "reply"  # 500 or 502
    CLOSE = "close"  # 421, and the connection ends


class CommandRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row."""

    verb: str  # in capitals
    enabled: bool = True
    max_octets: int = _PLAIN_OCTETS  # the whole line, with its verb and CRLF


class ListenerCommands(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filter of one gate. `rules` in place of, and beside, the rows of DEFAULT_COMMANDS."""

    rules: tuple[CommandRule, ...] = ()
    on_too_long: OnViolation = OnViolation.REPLY
    on_disabled: OnViolation = OnViolation.REPLY
    on_unknown: OnViolation = OnViolation.REPLY


DEFAULT_COMMANDS: Final = (
    CommandRule(verb="HELO"),
    CommandRule(verb="EHLO"),
    # a path of 512 octets, and what SIZE, BODY, SMTPUTF8, REQUIRETLS, AUTH=, RET, ENVID, NOTIFY and ORCPT add
    CommandRule(verb="MAIL", max_octets=MAX_COMMAND_OCTETS),
    CommandRule(verb="RCPT", max_octets=MAX_COMMAND_OCTETS),
    CommandRule(verb="DATA"),
    CommandRule(verb="BDAT"),
    CommandRule(verb="RSET"),
    CommandRule(verb="NOOP"),
    CommandRule(verb="QUIT"),
    CommandRule(verb="HELP"),
    CommandRule(verb="VRFY"),  # its answer tells nothing
    CommandRule(verb="EXPN", enabled=False),
    CommandRule(verb="ETRN", enabled=False),
    CommandRule(verb="AUTH", max_octets=MAX_AUTH_OCTETS),  # each further line of the exchange, too
    CommandRule(verb="STARTTLS"),
    CommandRule(verb=OTHERS, enabled=False),
)


def command_table(rules: Iterable[CommandRule]) -> tuple[CommandRule, ...]:
    """The whole table of a filter with these rows: the defaults in their order, each replaced by its row if there is one, then the others."""
    given = {rule.verb: rule for rule in rules}
    ours = {rule.verb: given.pop(rule.verb, rule) for rule in DEFAULT_COMMANDS}
    return (*ours.values(), *given.values())


def differing(rules: Iterable[CommandRule]) -> tuple[CommandRule, ...]:
    """Those of `rules` that the policy has to keep, in the order of the table."""
    return tuple(rule for rule in command_table(rules) if rule not in DEFAULT_COMMANDS)


def octets_cap(verb: str) -> int:
    """What a row for `verb` may allow at most."""
    return MAX_AUTH_OCTETS if verb == "AUTH" else MAX_COMMAND_OCTETS
