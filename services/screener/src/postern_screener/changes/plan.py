"""From the changes that rules ask for to the edits of one message, and to what the verdict tells of each. Pure: the same message and rules give the
same edits, octet for octet, so that a message that is screened again is a copy of itself.

Changes of all rules are made together: header changes in their order, what is to be removed, then the disclaimers in what is left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postern_core.changes import (
    AddDisclaimer,
    AddHeader,
    Change,
    ChangeKind,
    CopyTo,
    Notify,
    RemoveHeader,
    StripAttachments,
    TagSubject,
)
from postern_core.envelope import Envelope
from postern_core.policy import Rule, RuleMode
from postern_core.verdict import ChangeMade
from postern_screener.changes.disclaimer import disclaim, plain_text
from postern_screener.changes.edits import Edit
from postern_screener.changes.header import HeaderChanges
from postern_screener.changes.layout import Layout, UncertainError
from postern_screener.changes.strip import Stripped, attachments, edits_of, strip
from postern_screener.message_tree import Message
from postern_screener.unscannable import UNSCANNABLE_FIELD, UNSCANNED_FIELD

COPIED_BY_FIELD: Final = "X-Postern-Copied-By"
_KINDS: Final[dict[type[Change], ChangeKind]] = {
    TagSubject: ChangeKind.TAG_SUBJECT,
    AddHeader: ChangeKind.ADD_HEADER,
    RemoveHeader: ChangeKind.REMOVE_HEADER,
    StripAttachments: ChangeKind.STRIP_ATTACHMENTS,
    AddDisclaimer: ChangeKind.ADD_DISCLAIMER,
    CopyTo: ChangeKind.COPY_TO,
    Notify: ChangeKind.NOTIFY,
}
_OWN_FIELDS: Final = (UNSCANNABLE_FIELD, UNSCANNED_FIELD)
_PART: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A rule that matched, and the parts in which the reasons for that stand."""

    rule: Rule
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done. With `uncertain`, why it cannot be done safely, there are no edits: the message must not go on as it is."""

    edits: tuple[Edit, ...]
    made: tuple[ChangeMade, ...]
    uncertain: str = ""


def plan(
    envelope: Envelope, body: bytes, message: Message | None, wanted: Sequence[Wanted], *, goes_on: bool, postmaster: str
) -> Plan:
    """The plan for one message. `goes_on`: it passes or is forwarded; if not, only copies and notices are made."""
    work = _Work(envelope, body, message, postmaster)
    if goes_on and message is not None:
        work.drop(forged(message))  # first: what a rule puts on top is the administrator's
    uncertain: list[str] = []
    for each in wanted:
        for change in each.rule.changes:
            try:
                work.take(each, change, goes_on=goes_on)
            except UncertainError as error:  # copies and notices that follow are made all the same
                uncertain.append(str(error))
    try:
        edits = work.edits() if not uncertain else []
    except UncertainError as error:
        uncertain.append(str(error))
    if uncertain:
        return Plan((), tuple(map(_undone, work.made)), uncertain[0])
    return Plan(tuple(edits), tuple(work.made))


def forged(message: Message) -> list[str]:
    """The names of fields in its header by which Postern says what it could not screen: it has said nothing yet, so the sender has."""
    return [name for name in _OWN_FIELDS if name.lower() in message.fields]


def _undone(made: ChangeMade) -> ChangeMade:
    if made.kind in (ChangeKind.COPY_TO, ChangeKind.NOTIFY):
        return made
    return _told(made, detail="the message was held instead", skipped=True)


class _Work:
    """A message while its changes are collected. Each part of the message is looked at when a change first asks for it."""

    def __init__(self, envelope: Envelope, body: bytes, message: Message | None, postmaster: str) -> None:
        self._envelope = envelope
        self._body = body
        self._message = message
        self._postmaster = postmaster
        self.made: list[ChangeMade] = []
        self._header: HeaderChanges | None = None
        self._layout: Layout | None = None
        self._stripped: dict[int, Stripped] = {}
        self._disclaimers: list[tuple[int, AddDisclaimer]] = []  # with the place in `made` of each

    def drop(self, names: Sequence[str]) -> None:
        """Remove these fields, where the header can be read surely. Where it cannot they stay, below ours: mail is not held for that."""
        if not names:
            return
        with contextlib.suppress(UncertainError):
            header = self._own_header()
            for name in names:
                detail = f"{header.make(RemoveHeader(name=name))}: not written by this Postern"
                self.made.append(ChangeMade(kind=ChangeKind.REMOVE_HEADER, detail=detail))

    def take(self, wanted: Wanted, change: Change, *, goes_on: bool) -> None:
        """Note one change. UncertainError when it cannot be made safely."""
        rule = wanted.rule
        told = ChangeMade(kind=_KINDS[type(change)], rule_id=rule.id, rule_name=rule.name)
        if rule.mode is RuleMode.MONITOR:
            address = change.address if isinstance(change, CopyTo | Notify) else ""
            self.made.append(_told(told, monitored=True, address=address))
            return
        match change:
            case CopyTo(address=address):
                self.made.append(self._copy(told, address))
            case Notify(address=address):
                self.made.append(self._notice(told, address))
            case _ if not goes_on:
                self.made.append(_told(told, skipped=True, detail="the message does not go on"))
            case TagSubject() | AddHeader() | RemoveHeader():
                self.made.append(_told(told, detail=self._own_header().make(change)))
            case StripAttachments(every=every):
                self._strip(told, wanted, every=every)
            case AddDisclaimer():
                self._disclaimers.append((len(self.made), change))
                self.made.append(told)

    def edits(self) -> list[Edit]:
        """What was collected, as edits."""
        edits = [] if self._header is None else self._header.edits()
        root_text = next((each for each in self._stripped.values() if each.node is self._root()), None)
        if root_text is not None and self._disclaimers:
            # all that is left is a text of ours
            self._told_disclaimers(root_text.node.path, "")
            return edits + edits_of(root_text, plain_text([change for _, change in self._disclaimers]))
        for each in self._stripped.values():
            edits += edits_of(each)
        if self._disclaimers:
            edits += self._disclaimed()
        return edits

    def _disclaimed(self) -> Sequence[Edit]:
        try:
            layout, message = self._located()
        except UncertainError as error:
            # a disclaimer is not worth a message: it goes on without
            self._told_disclaimers("", str(error))
            return ()
        gone = [each.node for each in self._stripped.values()]
        changes = [change for _, change in self._disclaimers]
        found = disclaim(layout, message, changes, self._envelope.body_type, f"=_postern_{self._envelope.id}", gone)
        self._told_disclaimers(" ".join(found.parts), found.skipped)
        return found.edits

    def _told_disclaimers(self, part: str, skipped: str) -> None:
        for at, _ in self._disclaimers:
            self.made[at] = _told(self.made[at], part=part, detail=skipped, skipped=bool(skipped))

    def _strip(self, told: ChangeMade, wanted: Wanted, *, every: bool) -> None:
        if not every and self._message is not None and not _attachments_at(self._message, wanted.places):
            self.made.append(_told(told, skipped=True, detail="no attachment made the rule match"))
            return
        layout, message = self._located()
        paths = attachments(message, layout) if every else _attachments_at(message, wanted.places)
        found = strip(layout, message, paths, wanted.rule.name)
        for each in found:
            if any(other.node.start <= each.node.start < other.node.end for other in self._stripped.values()):
                self.made.append(_told(told, part=each.node.path, skipped=True, detail="another rule removed it"))
                continue
            # an earlier rule may have removed something in it
            self._stripped = {k: other for k, other in self._stripped.items() if not each.node.start <= k < each.node.end}
            self._stripped[each.node.start] = each
            broken = " (the signature is broken by that)" * _is_signed(each)
            self.made.append(_told(told, part=each.node.path, detail=each.detail + broken))
        if not found:
            self.made.append(_told(told, skipped=True, detail="no attachment"))

    def _copy(self, told: ChangeMade, address: str) -> ChangeMade:
        told = _told(told, address=address)
        if any(
            made.kind == told.kind and not made.skipped and made.address.casefold() == address.casefold()
            for made in self._active()
        ):
            return _told(told, skipped=True, detail="another rule sends that copy")
        values = self._message.fields.get(COPIED_BY_FIELD.lower(), ()) if self._message is not None else ()
        if told.rule_id in (value.strip() for value in values):
            return _told(told, skipped=True, detail="it is such a copy")
        return told

    def _notice(self, told: ChangeMade, address: str) -> ChangeMade:
        told = _told(told, address=address or self._postmaster)
        return told if told.address else _told(told, skipped=True, detail="nobody knows who the postmaster is")

    def _active(self) -> list[ChangeMade]:
        return [made for made in self.made if not made.monitored]

    def _own_header(self) -> HeaderChanges:
        if self._header is None:
            self._header = HeaderChanges(self._body, {} if self._message is None else self._message.fields)
        return self._header

    def _located(self) -> tuple[Layout, Message]:
        if self._message is None:
            raise UncertainError("the message does not parse")
        if self._layout is None:
            layout = Layout(self._body)
            layout.agrees_with(self._message)
            self._layout = layout
        return self._layout, self._message

    def _root(self) -> object:
        return None if self._layout is None else self._layout.root


def _attachments_at(message: Message, places: Sequence[str]) -> list[str]:
    """The attachments in which these places lie: a part, or the attached message or the like around it."""
    parts = {part.path: part for part in message.parts}
    found: dict[str, None] = {}
    for place in places:
        match = _PART.match(place)
        path = match.group() if match else ""
        while path and not (path in parts and parts[path].is_attachment):
            path = path.rpartition(".")[0]
        if path:
            found[path] = None
    return list(found)


def _is_signed(stripped: Stripped) -> bool:
    parent = stripped.node.parent
    while parent is not None and parent.media_type != "multipart/signed":
        parent = parent.parent
    return parent is not None


def _told(
    made: ChangeMade, *, part: str = "", address: str = "", detail: str = "", skipped: bool = False, monitored: bool = False
) -> ChangeMade:
    return ChangeMade(
        kind=made.kind,
        rule_id=made.rule_id,
        rule_name=made.rule_name,
        part=part or made.part,
        address=address or made.address,
        detail=(detail or made.detail)[:500],
        skipped=skipped or made.skipped,
        monitored=monitored or made.monitored,
    )
