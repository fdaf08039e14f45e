"""Revisions at the HTTP edge. No secret is in any of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from postern_api.fields import Body, examples


class RevisionHeadView(Body):
    """A revision without its objects."""

    number: int
    at: datetime
    author: str
    comment: str


class RevisionPage(Body):
    """Newest first. For the next page, send the last number as `before`."""

    model_config = examples(
        {
            "newest": 42,
            "live": 42,
            "revisions": [
                {"number": 42, "at": "2026-03-01T09:30:00Z", "author": "admin-token-file (t-0a1b2c3d4e5f)", "comment": "a merger"}
            ],
        }
    )

    newest: int
    live: int = Field(description="The newest one known to be on the bus; 0: none.")
    revisions: list[RevisionHeadView]


class RevisionView(RevisionHeadView):
    """A revision with all its objects."""

    model_config = examples(
        {
            "number": 42,
            "at": "2026-03-01T09:30:00Z",
            "author": "admin-token-file (t-0a1b2c3d4e5f)",
            "comment": "a merger",
            "snapshot": {"settings": {"hostname": "mx.example.com"}, "domains": [{"pattern": "example.com"}]},
        }
    )

    snapshot: dict[str, Any]


class DifferenceView(Body):
    """One object that was added (`before` null), removed (`after` null) or changed."""

    object: str = Field(examples=["rules/r-1a2b3c4d"])
    before: Any
    after: Any


class DiffView(Body):
    """What differs between two revisions."""

    model_config = examples(
        {
            "before": 41,
            "after": 42,
            "differences": [{"object": "domains/b.example", "before": None, "after": {"pattern": "b.example"}}],
        }
    )

    before: int
    after: int
    differences: list[DifferenceView]


class RolledBack(Body):
    """The new revision, whose objects are those of an older one."""

    model_config = examples({"revision": 43, "restored": 41, "warnings": []})

    revision: int
    restored: int
    warnings: list[str] = Field(description="Passwords that no revision holds, and that have to be set again.")
