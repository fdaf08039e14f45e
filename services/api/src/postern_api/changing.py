"""What the endpoints of the policy have in common: who, from which revision, with which comment, and the answer's headers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Response

from postern_api.access import Administrator, Reader
from postern_api.context import Context, InContext
from postern_api.errors import InvalidError
from postern_api.policy.credentials import CredentialChange
from postern_api.policy.editing import Applied, Edit, Intent
from postern_api.policy.objects import Snapshot


@dataclass(frozen=True, slots=True)
class Change:
    """One change about to be made."""

    context: Context
    response: Response
    actor: str
    comment: str
    expected: int | None

    async def apply(self, action: str, target: str, edit: Edit, credentials: Sequence[CredentialChange] = ()) -> Applied:
        """Make it; the answer says which revision is in force, and 202 when that is saved but not on the bus yet."""
        intent = Intent(self.actor, action, target, self.comment, self.expected)
        applied = await self.context.editor.change(intent, edit, credentials)
        self.response.headers["Postern-Revision"] = str(applied.revision)
        self.response.headers["Postern-Live"] = "true" if applied.live else "false"
        if not applied.live:
            self.response.status_code = 202
        return applied


def _change(
    context: InContext,
    who: Administrator,
    response: Response,
    if_match: Annotated[
        str | None,
        Header(description="Make the change only if this is the newest revision, else 412 (a number).", examples=["42"]),
    ] = None,
    postern_comment: Annotated[str | None, Header(max_length=500, description="Why: kept with the revision.")] = None,
) -> Change:
    return Change(context, response, who.name, _comment(postern_comment or ""), _revision(if_match))


async def _current(context: InContext, response: Response, _: Reader) -> Snapshot:
    newest = await context.editor.current()
    response.headers["Postern-Revision"] = str(newest.number)  # for If-Match
    return newest.snapshot


def _comment(text: str) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        text = text.encode("latin-1").decode()  # a field's bytes come to us as Latin-1 (RFC 9110 section 5.5), people write UTF-8
    if not text.isprintable():
        raise InvalidError("invalid_comment", "Postern-Comment holds control characters")
    return text


def _revision(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidError("invalid_if_match", "If-Match takes the number of a revision")
    return int(text)


PolicyChange = Annotated[Change, Depends(_change)]
CurrentPolicy = Annotated[Snapshot, Depends(_current)]
