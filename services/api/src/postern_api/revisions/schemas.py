"""Revisions at the HTTP edge. No secret is in any of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from postern_api.fields import Body


class RevisionHeadView(Body):
    """A revision without its objects."""

    number: int
    at: datetime
    author: str
    comment: str


class RevisionPage(Body):
    """Newest first. For the next page, send the last number as `before`."""

    newest: int
    live: int = Field(description="The newest one known to be on the bus; 0: none.")
    revisions: list[RevisionHeadView]


class RevisionView(RevisionHeadView):
    """A revision with all its objects."""

    snapshot: dict[str, Any]


class DifferenceView(Body):
    """One object that was added (`before` null), removed (`after` null) or changed."""

    object: str = Field(examples=["rules/r-1a2b3c4d"])
    before: Any
    after: Any


class DiffView(Body):
    """What differs between two revisions."""

    before: int
    after: int
    differences: list[DifferenceView]


class RolledBack(Body):
    """The new revision, whose objects are those of an older one."""

    revision: int
    restored: int
    warnings: list[str] = Field(description="Passwords that no revision holds, and that have to be set again.")
