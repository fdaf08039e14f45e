"""/revisions"""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Path, Query

from postern_api.access import Reader, guarded_router
from postern_api.changing import PolicyChange
from postern_api.context import Context, InContext
from postern_api.errors import NotFoundError, declared, declared_change
from postern_api.fields import Limit
from postern_api.policy.differences import differences
from postern_api.policy.repository import Revision
from postern_api.revisions import service
from postern_api.revisions.schemas import DifferenceView, DiffView, RevisionHeadView, RevisionPage, RevisionView, RolledBack

router = guarded_router("/revisions", "revisions")

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


async def _found(context: Context, number: int) -> Revision:
    revision = await context.policy.get(number)
    if revision is None:
        raise NotFoundError("revision", str(number))
    return revision


@router.get("", responses=declared())
async def list_revisions(
    context: InContext, _: Reader, before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None, limit: Limit = 100
) -> RevisionPage:
    """Revisions, newest first: who made them, when and why."""
    heads = await context.policy.heads(before=before, limit=limit)
    newest = (await context.editor.current()).number
    views = [RevisionHeadView(number=head.number, at=head.at, author=head.author, comment=head.comment) for head in heads]
    return RevisionPage(newest=newest, live=context.publisher.live, revisions=views)


@router.get("/{number}", responses=declared(404))
async def get_revision(number: Number, context: InContext, _: Reader) -> RevisionView:
    """One revision with all its objects."""
    found = await _found(context, number)
    return RevisionView(
        number=found.number,
        at=found.at,
        author=found.author,
        comment=found.comment,
        snapshot=msgspec.to_builtins(found.snapshot),
    )


@router.get("/{before}/diff/{after}", responses=declared(404))
async def diff_revisions(before: Number, after: Number, context: InContext, _: Reader) -> DiffView:
    """What differs between two revisions, object by object."""
    old, new = await _found(context, before), await _found(context, after)
    found = [
        DifferenceView(object=each.object, before=each.before, after=each.after)
        for each in differences(old.snapshot, new.snapshot)
    ]
    return DiffView(before=before, after=after, differences=found)


@router.post("/{number}/rollback", responses=declared_change(404))
async def roll_back(number: Number, change: PolicyChange) -> RolledBack:
    """Make a new revision with the objects of an older one. Passwords stay as they are now: no revision holds them."""
    found = await _found(change.context, number)
    applied = await change.apply("policy.rolled_back", f"revisions/{number}", lambda _: found.snapshot)
    policy = change.context.policy
    warnings = service.warnings(applied.snapshot, await policy.route_users(), await policy.password_hashes())
    return RolledBack(revision=applied.revision, restored=number, warnings=warnings)
