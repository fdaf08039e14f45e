"""/tokens"""

from __future__ import annotations

from postern_api.access import Administrator, guarded_router
from postern_api.context import InContext
from postern_api.errors import declared
from postern_api.fields import Identity
from postern_api.tokens.schemas import IssuedToken, TokenBody, TokenView

router = guarded_router("/tokens", "tokens")


@router.get("", responses=declared())
async def list_tokens(context: InContext, _: Administrator) -> list[TokenView]:
    """All tokens, without their text."""
    return [TokenView.of(token) for token in await context.token_repository.all()]


@router.post("", status_code=201, responses=declared())
async def issue_token(body: TokenBody, context: InContext, who: Administrator) -> IssuedToken:
    """Issue a token. Its text is in this answer and nowhere else: only a digest is kept."""
    token, text = await context.tokens.issue(body.name, body.scope, who.name)
    return IssuedToken(**TokenView.of(token).model_dump(), token=text)


@router.delete("/{token_id}", status_code=204, responses=declared(404, 409))
async def revoke_token(token_id: Identity, context: InContext, who: Administrator) -> None:
    """Revoke a token, at once. The last administrator's cannot be."""
    await context.tokens.revoke(token_id, who.name)
