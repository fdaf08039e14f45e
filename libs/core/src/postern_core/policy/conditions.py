"""Conditions: what a rule may ask of a message. Some stand alone, `all`, `any` and `not` join others.

A condition that stands alone is a *criterion*; the screener looks for all criteria of one kind at once, however many rules have them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from postern_core.authentication import Method, Result
from postern_core.envelope import Gate
from postern_core.verdict import Engine

MOST_NESTED: Final = 8  # levels of `all`, `any` and `not` around a criterion


class AttachmentMatch(enum.StrEnum):
    """What an attachment condition compares (OLD-PRODUCT 2.10, 2.12)."""

    NAME = "name"  # the whole file name, caseless
    WILDCARD = "wildcard"  # the whole file name, with * for anything and ? for one character
    EXTENSION = "extension"  # any of its extensions, without the dot, caseless
    DECLARED_TYPE = "declared-type"  # its Content-Type: type/subtype or type/*
    REAL_TYPE = "real-type"  # what the content is: a type or a family of `file_types`
    SIZE = "size"  # decoded size in bytes, greater than
    COUNT = "count"  # attachments in the message, more than
    NESTING = "nesting"  # archives inside archives, deeper than
    ENCRYPTED = "encrypted"  # it, or something in it, is an encrypted archive or Office document
    MACRO = "macro"  # it, or something in it, is a document with macros
    TYPE_MISMATCH = "type-mismatch"  # its extension or declared type is not what the content is
    DECEPTIVE_NAME = "deceptive-name"  # the name is made to look like another one
    UNOPENED = (
        "unopened"  # an archive, or something in it, that was not read: damaged, over a limit, of a kind that is not opened
    )


# of these, what lies in archives counts too where `inside` says so; the others look there, or have nothing to look for, by themselves
MATCHES_INSIDE: Final = frozenset(
    {
        AttachmentMatch.NAME,
        AttachmentMatch.WILDCARD,
        AttachmentMatch.EXTENSION,
        AttachmentMatch.REAL_TYPE,
        AttachmentMatch.SIZE,
        AttachmentMatch.TYPE_MISMATCH,
        AttachmentMatch.DECEPTIVE_NAME,
    }
)
# what each compares with: `values`, `larger_than_bytes`, `more_than`; the others with nothing
MATCHES_VALUES: Final = frozenset(
    {
        AttachmentMatch.NAME,
        AttachmentMatch.WILDCARD,
        AttachmentMatch.EXTENSION,
        AttachmentMatch.DECLARED_TYPE,
        AttachmentMatch.REAL_TYPE,
    }
)
# what can be told of a part's header and size alone
_MATCHES_OUTSIDE: Final = frozenset(
    {
        AttachmentMatch.NAME,
        AttachmentMatch.WILDCARD,
        AttachmentMatch.EXTENSION,
        AttachmentMatch.DECLARED_TYPE,
        AttachmentMatch.SIZE,
        AttachmentMatch.DECEPTIVE_NAME,
    }
)
MATCHES_NUMBER: Final = frozenset({AttachmentMatch.COUNT, AttachmentMatch.NESTING})


class KeywordScope(enum.StrEnum):
    """Where a keyword is looked for (OLD-PRODUCT 2.02)."""

    HEADER = "header"
    BODY = "body"
    BOTH = "both"
    ATTACHMENTS = "attachments"  # what attachments say: texts, attached messages, and what can be read of other files
    ALL = "all"


class HeaderMatch(enum.StrEnum):
    """How a header field is compared."""

    PRESENT = "present"  # it is there, whatever it says
    CONTAINS = "contains"  # any of the phrases, as keywords are compared
    EQUALS = "equals"  # all of it, compared in the same way
    REGEX = "regex"  # any of the regular expressions


class SenderCondition(msgspec.Struct, frozen=True, kw_only=True, tag="sender", omit_defaults=True):
    """Addresses (`a@example.com`), domains (`example.com`) or wildcards (`*.example.com`), any of them, against the
    reverse-path and the addresses of From:."""

    patterns: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()  # names of lists with more of them


class AttachmentCondition(msgspec.Struct, frozen=True, kw_only=True, tag="attachment", omit_defaults=True):
    """One attachment criterion with its values, any of them."""

    match: AttachmentMatch
    values: tuple[str, ...] = ()  # see MATCHES_VALUES
    larger_than_bytes: int = 0  # for size
    more_than: int = 0  # for count and nesting
    inside: bool = False  # what lies in archives counts too (MATCHES_INSIDE)
    lists: tuple[str, ...] = ()  # for name and extension: names of lists with more values

    @property
    def needs_content(self) -> bool:
        """Whether it is looked at only when a rule comes to it, since that may take opening an archive."""
        return self.inside or self.match not in _MATCHES_OUTSIDE


class KeywordCondition(msgspec.Struct, frozen=True, kw_only=True, tag="keyword", omit_defaults=True):
    """Literal phrases, caseless, found also inside longer words unless `whole_word`, and regular expressions: any of them, or at least so
    many different ones in the message as a whole."""

    phrases: tuple[str, ...] = ()
    scope: KeywordScope = KeywordScope.BOTH
    whole_word: bool = False
    expressions: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()  # names of lists with more phrases or expressions
    at_least: int = 1


class HeaderCondition(msgspec.Struct, frozen=True, kw_only=True, tag="header", omit_defaults=True):
    """A field of the message's own header, any of its occurrences."""

    name: str
    match: HeaderMatch = HeaderMatch.PRESENT
    values: tuple[str, ...] = ()  # phrases, or regular expressions
    lists: tuple[str, ...] = ()  # names of lists with more of them


class RecipientCondition(msgspec.Struct, frozen=True, kw_only=True, tag="recipient"):
    """The forward-path is covered by any of the patterns (`policy.address_patterns`): it holds for each recipient by himself."""

    patterns: tuple[str, ...]


class Weekday(enum.StrEnum):
    """In the order of `datetime.weekday`."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


class ScheduleCondition(msgspec.Struct, frozen=True, kw_only=True, tag="schedule", omit_defaults=True):
    """The message was accepted at such a time, in minutes since midnight of that day by the clocks of `timezone`. From `begin` up to and
    without `end`; where that is not later, over midnight, and the day is the one on which it began."""

    timezone: str  # IANA name, "Europe/Vienna"
    days: tuple[Weekday, ...] = tuple(Weekday)
    begin: int = 0
    end: int = 1440


class DirectionCondition(msgspec.Struct, frozen=True, kw_only=True, tag="direction"):
    """The message came in at one of these gates."""

    gates: tuple[Gate, ...]


class ClientCondition(msgspec.Struct, frozen=True, kw_only=True, tag="client", omit_defaults=True):
    """The client's address lies in one of the networks (addresses or CIDR)."""

    networks: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


class UserCondition(msgspec.Struct, frozen=True, kw_only=True, tag="user", omit_defaults=True):
    """One of these users sent it, caseless; without names: any user."""

    names: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


class SizeCondition(msgspec.Struct, frozen=True, kw_only=True, tag="message-size"):
    """The whole message, as accepted, is larger than this."""

    larger_than_bytes: int


class MalformedCondition(msgspec.Struct, frozen=True, kw_only=True, tag="malformed"):
    """Readers may take the message for different ones (docs/reference/screening.md lists the defects)."""


class VirusCondition(msgspec.Struct, frozen=True, kw_only=True, tag="virus", omit_defaults=True):
    """ClamAV found a virus whose name matches any of these wildcards (`*` and `?`, caseless); without names: any virus."""

    names: tuple[str, ...] = ()


class SpamCondition(msgspec.Struct, frozen=True, kw_only=True, tag="spam", omit_defaults=True):
    """rspamd gave at least this score, or one of these actions."""

    at_least: float | None = None
    actions: tuple[str, ...] = ()  # as rspamd names them: `add header`, `reject` …


class YaraCondition(msgspec.Struct, frozen=True, kw_only=True, tag="yara", omit_defaults=True):
    """A YARA rule with one of these names, or one of these tags, matched; without either: any rule."""

    rules: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class CharsetCondition(msgspec.Struct, frozen=True, kw_only=True, tag="charset"):
    """A text of the message says that it is in one of these charsets, or looks as if it were."""

    charsets: tuple[str, ...]


class Script(enum.StrEnum):
    """Writing systems, after Unicode's property Script; Han, kana and Hangul each by itself."""

    ARABIC = "arabic"
    ARMENIAN = "armenian"
    BENGALI = "bengali"
    CYRILLIC = "cyrillic"
    DEVANAGARI = "devanagari"
    ETHIOPIC = "ethiopic"
    GEORGIAN = "georgian"
    GREEK = "greek"
    HAN = "han"
    HANGUL = "hangul"
    HEBREW = "hebrew"
    KANA = "kana"  # Hiragana and Katakana
    KHMER = "khmer"
    LATIN = "latin"
    TAMIL = "tamil"
    THAI = "thai"


class ScriptCondition(msgspec.Struct, frozen=True, kw_only=True, tag="script", omit_defaults=True):
    """Of the letters in the message's texts and its subject, more than so many percent are of these scripts, taken together."""

    scripts: tuple[Script, ...]
    more_than_percent: float = 30.0


class LanguageCondition(msgspec.Struct, frozen=True, kw_only=True, tag="language"):
    """The message's text is, for the greater part and without doubt, in one of these languages (`policy.languages`)."""

    languages: tuple[str, ...]  # ISO 639-1


class AuthenticationCondition(msgspec.Struct, frozen=True, kw_only=True, tag="authentication"):
    """By our own gate's evaluation, a method came to one of these results. Where the gate evaluates nothing, it never holds."""

    method: Method
    results: tuple[Result, ...]


class AllOf(msgspec.Struct, frozen=True, kw_only=True, tag="all"):
    """Every one of them."""

    of: tuple[Condition, ...]


class AnyOf(msgspec.Struct, frozen=True, kw_only=True, tag="any"):
    """At least one of them."""

    of: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, kw_only=True, tag="not"):
    """The opposite."""

    of: Condition


Criterion = (
    SenderCondition
    | AttachmentCondition
    | KeywordCondition
    | RecipientCondition
    | ScheduleCondition
    | DirectionCondition
    | ClientCondition
    | UserCondition
    | SizeCondition
    | MalformedCondition
    | VirusCondition
    | SpamCondition
    | YaraCondition
    | HeaderCondition
    | CharsetCondition
    | ScriptCondition
    | LanguageCondition
    | AuthenticationCondition
)
Condition = Criterion | AllOf | AnyOf | Not


ENGINE_OF: Final[dict[type[Criterion], Engine]] = {
    VirusCondition: Engine.CLAMD,
    SpamCondition: Engine.RSPAMD,
    YaraCondition: Engine.YARA,
}  # whom to ask about a criterion; the others are judged without


def criteria(condition: Condition) -> Iterator[Criterion]:
    """The criteria in a condition, in the order in which they are written."""
    match condition:
        case AllOf(of=parts) | AnyOf(of=parts):
            for part in parts:
                yield from criteria(part)
        case Not(of=part):
            yield from criteria(part)
        case _:
            yield condition


def nesting(condition: Condition) -> int:
    """Levels of `all`, `any` and `not` in a condition; 0 for a criterion."""
    match condition:
        case AllOf(of=parts) | AnyOf(of=parts):
            return 1 + max((nesting(part) for part in parts), default=0)
        case Not(of=part):
            return 1 + nesting(part)
        case _:
            return 0


def checked_zone(name: str) -> ZoneInfo:
    """The time zone of this name (IANA). ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(f"{name!r} is no time zone: write it as in Europe/Vienna or UTC") from error
