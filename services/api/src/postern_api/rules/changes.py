"""Changes at the HTTP edge: what each may hold, and the way to the policy's own and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line
from postern_api.policy.addresses import checked_address
from postern_core.changes import (
    MOST_CHANGES,
    MOST_DISCLAIMER_CHARACTERS,
    AddDisclaimer,
    AddHeader,
    Change,
    CopyTo,
    Notify,
    RemoveHeader,
    StripAttachments,
    TagSubject,
    check_changes,
)
from postern_core.verdict import Action

_Text = Annotated[str, Field(max_length=MOST_DISCLAIMER_CHARACTERS)]


class TagSubjectBody(Body):
    """Put a text and a blank in front of the subject, unless it stands in there already."""

    type: Literal["tag-subject"]
    text: Line


class AddHeaderBody(Body):
    """Put a header field on top of the message."""

    type: Literal["add-header"]
    name: Line
    value: Line


class RemoveHeaderBody(Body):
    """Remove every field of this name from the message's own header."""

    type: Literal["remove-header"]
    name: Line


class StripAttachmentsBody(Body):
    """Replace attachments by a text with name, type, size and SHA-256 of what was removed, and the rule's name."""

    type: Literal["strip-attachments"]
    every: Flag = Field(default=False, description="Every attachment, not only those that made the rule match.")


class AddDisclaimerBody(Body):
    """Put a text behind the message's text, and behind its HTML. Signed and encrypted mail gets none."""

    type: Literal["add-disclaimer"]
    text: _Text
    html: _Text = Field(default="", description="For HTML, as it is to stand there; without it the text.")


class CopyToBody(Body):
    """Send a copy of the message, as it came in, to this address too."""

    type: Literal["copy-to"]
    address: Line


class NotifyBody(Body):
    """Send a notice that the rule matched: to this address, without one to the postmaster. The sender is never told."""

    type: Literal["notify"]
    address: Line = ""


ChangeBody = Annotated[
    TagSubjectBody | AddHeaderBody | RemoveHeaderBody | StripAttachmentsBody | AddDisclaimerBody | CopyToBody | NotifyBody,
    Field(discriminator="type"),
]
Changes = Annotated[list[ChangeBody], Field(max_length=MOST_CHANGES)]


def checked_changes(bodies: Sequence[ChangeBody], action: Action) -> tuple[Change, ...]:
    """InvalidError for what a rule with this action cannot do."""
    changes = tuple(_change(body) for body in bodies)
    try:
        check_changes(changes, action)
    except ValueError as error:
        raise InvalidError("invalid_changes", str(error)) from error
    return changes


def _change(body: ChangeBody) -> Change:
    match body:
        case TagSubjectBody(text=text):
            return TagSubject(text=text.strip())
        case AddHeaderBody(name=name, value=value):
            return AddHeader(name=name.strip(), value=value.strip())
        case RemoveHeaderBody(name=name):
            return RemoveHeader(name=name.strip())
        case StripAttachmentsBody(every=every):
            return StripAttachments(every=every)
        case AddDisclaimerBody(text=text, html=html):
            return AddDisclaimer(text=text, html=html)
        case CopyToBody(address=address):
            return CopyTo(address=checked_address(address))
        case NotifyBody(address=address):
            return Notify(address=checked_address(address) if address else "")


def shown_change(change: Change) -> ChangeBody:
    """A change as the API shows it."""
    match change:
        case TagSubject(text=text):
            return TagSubjectBody(type="tag-subject", text=text)
        case AddHeader(name=name, value=value):
            return AddHeaderBody(type="add-header", name=name, value=value)
        case RemoveHeader(name=name):
            return RemoveHeaderBody(type="remove-header", name=name)
        case StripAttachments(every=every):
            return StripAttachmentsBody(type="strip-attachments", every=every)
        case AddDisclaimer(text=text, html=html):
            return AddDisclaimerBody(type="add-disclaimer", text=text, html=html)
        case CopyTo(address=address):
            return CopyToBody(type="copy-to", address=address)
        case Notify(address=address):
            return NotifyBody(type="notify", address=address)
