"""Changes: what a rule may do to mail that goes on, beside its action; and what the verdict tells of them.

A rule's changes are checked here, once for the api (which refuses the rule) and for the screener (which refuses the policy).
Standards: RFC 5322 sections 2.2 and 3.6 (fields, which of them stand once), RFC 2047.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from postern_core.verdict import Action

MOST_CHANGES: Final = 20  # of one rule
MOST_TAG_CHARACTERS: Final = 60
MOST_VALUE_CHARACTERS: Final = 900
MOST_DISCLAIMER_CHARACTERS: Final = 20_000
_NAME: Final = re.compile(r"[!-9;-~]{1,70}")  # RFC 5322 section 2.2
# they say how the message is to be read, where it has been, and whether a rule forwarded or copied it before
_NOT_TOUCHED: Final = re.compile(
    r"content-.*|mime-version|received|return-path|from|resent-.*"
    r"|x-postern-(?:original-recipients|forwarded-by|copied-by)"
)
_ONCE: Final = frozenset({"date", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject"})
_STRUCTURED: Final = _ONCE - {"subject"}  # encoded words may not stand everywhere in them


class TagSubject(msgspec.Struct, frozen=True, kw_only=True, tag="tag-subject"):
    """Put `text` and a blank in front of the subject, unless it stands in there."""

    text: str


class AddHeader(msgspec.Struct, frozen=True, kw_only=True, tag="add-header"):
    """Put a header field on top of the message."""

    name: str
    value: str


class RemoveHeader(msgspec.Struct, frozen=True, kw_only=True, tag="remove-header"):
    """Remove every field of this name from the message's own header."""

    name: str


class StripAttachments(msgspec.Struct, frozen=True, kw_only=True, tag="strip-attachments", omit_defaults=True):
    """Replace attachments by a text that says what was removed: those that made the rule match, or every one."""

    every: bool = False


class AddDisclaimer(msgspec.Struct, frozen=True, kw_only=True, tag="add-disclaimer", omit_defaults=True):
    """Put `text` behind the message's text, and `html` (without it: the text) behind its HTML."""

    text: str
    html: str = ""


class CopyTo(msgspec.Struct, frozen=True, kw_only=True, tag="copy-to"):
    """Send a copy of the message, as it came in, to this address too."""

    address: str


class Notify(msgspec.Struct, frozen=True, kw_only=True, tag="notify", omit_defaults=True):
    """Tell this address, or the postmaster, that the rule matched, and on what. The sender is never told."""

    address: str = ""


Change = TagSubject | AddHeader | RemoveHeader | StripAttachments | AddDisclaimer | CopyTo | Notify


class ChangeKind(enum.StrEnum):
    """Which change it was."""

    TAG_SUBJECT = "tag-subject"
    ADD_HEADER = "add-header"
    REMOVE_HEADER = "remove-header"
    STRIP_ATTACHMENTS = "strip-attachments"
    ADD_DISCLAIMER = "add-disclaimer"
    COPY_TO = "copy-to"
    NOTIFY = "notify"


def check_changes(changes: Sequence[Change], action: Action) -> None:
    """ValueError, with a sentence for an administrator, for what a rule with this action cannot do."""
    if len(changes) > MOST_CHANGES:
        raise ValueError(f"{len(changes)} changes: at most {MOST_CHANGES} are possible")
    if action is Action.CONTINUE and not changes:
        raise ValueError("action continue needs changes: without any the rule would do nothing")
    removed: set[str] = set()
    for change in changes:
        if action in (Action.DELETE, Action.HOLD) and not isinstance(change, CopyTo | Notify):
            raise ValueError(f"action {action} takes copy-to and notify only: nothing goes on that could be changed")
        match change:
            case TagSubject(text=text):
                _check_text("the tag", text, MOST_TAG_CHARACTERS)
            case RemoveHeader(name=name):
                check_field_name(name)
                removed.add(name.lower())
            case AddHeader(name=name, value=value):
                check_field(name, value)
                if name.lower() in _ONCE and name.lower() not in removed:
                    raise ValueError(f"{name} may stand once in a message: remove it before it is added")
            case AddDisclaimer(text=text, html=html):
                _check_disclaimer(text, html)
            case _:
                pass


def check_field_name(name: str) -> None:
    """ValueError for what is no field name, or one that no rule may touch."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header field")
    if _NOT_TOUCHED.fullmatch(name.lower()):
        raise ValueError(f"field {name} cannot be added or removed")


def check_field(name: str, value: str) -> None:
    """ValueError for a field that cannot be put into a message."""
    check_field_name(name)
    _check_text(f"the value of {name}", value, MOST_VALUE_CHARACTERS)
    if name.lower() in _STRUCTURED and not value.isascii():
        raise ValueError(f"the value of {name} must be ASCII")


def _check_text(what: str, text: str, most: int) -> None:
    if not text or text != text.strip():
        raise ValueError(f"{what} is empty, or begins or ends with a blank")
    if len(text) > most:
        raise ValueError(f"{what} has more than {most} characters")
    if not text.isprintable():
        raise ValueError(f"{what} has characters that cannot be printed, or more than one line")
    if any(len(word) > 500 for word in text.split(" ")):
        raise ValueError(f"{what} has a word of more than 500 characters, which cannot be folded")


def _check_disclaimer(text: str, html: str) -> None:
    if not text.strip():
        raise ValueError("the disclaimer has no text")
    for each in (text, html):
        if len(each) > MOST_DISCLAIMER_CHARACTERS:
            raise ValueError(f"the disclaimer has more than {MOST_DISCLAIMER_CHARACTERS} characters")
        if any(not (character.isprintable() or character in "\r\n\t") for character in each):
            raise ValueError("the disclaimer has characters that cannot be printed")
        if any(len(line) > 900 for line in each.splitlines()):
            raise ValueError("the disclaimer has a line of more than 900 characters")
