"""Tokens at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from postern_api.fields import Body, Name, examples
from postern_api.tokens.repository import Token
from postern_api.tokens.scopes import Scope


class TokenBody(Body):
    """A new token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "night shift", "scope": "operator"}]})

    name: Name = Field(description="Whose it is: stands in the audit log.")
    scope: Scope = Field(
        description="`auditor` reads all but the content of mail; `operator` also works on queue and quarantine; `admin` everything."
    )


class TokenView(Body):
    """A token as it is known afterwards: without its text."""

    model_config = examples(
        {
            "id": "t-0a1b2c3d4e5f",
            "name": "night shift",
            "scope": "operator",
            "created_at": "2026-03-01T09:30:00Z",
            "created_by": "admin-token-file (t-f5e4d3c2b1a0)",
        }
    )

    id: str
    name: str
    scope: Scope
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, token: Token) -> TokenView:
        return cls(id=token.id, name=token.name, scope=token.scope, created_at=token.created_at, created_by=token.created_by)


class IssuedToken(TokenView):
    """A token with its text, which is shown this once."""

    model_config = examples(
        {
            "id": "t-0a1b2c3d4e5f",
            "name": "night shift",
            "scope": "operator",
            "created_at": "2026-03-01T09:30:00Z",
            "created_by": "admin-token-file (t-f5e4d3c2b1a0)",
            "token": "postern_(43 characters, shown this once)",
        }
    )

    token: str
