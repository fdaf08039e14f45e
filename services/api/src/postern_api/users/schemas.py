"""SMTP users at the HTTP edge. The password is write-only."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Name, examples
from postern_api.policy.objects import UserObject


class UserBody(Body):
    """A user who may relay through the authenticated gate."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "alice", "password": "correct horse battery staple", "enabled": True}]}
    )

    name: Name = Field(description="Caseless; no '/', and no blank at either end.")
    password: str | None = Field(
        default=None,
        max_length=1024,
        repr=False,
        description="At least 8 characters; never shown again. Absent when a user is changed: it stays as it is.",
    )
    enabled: Flag = Field(default=True, description="false: the password is refused.")
    password_set: bool | None = Field(
        default=None, description="As shown; ignored here, so that what was read can be written back."
    )

    def to_object(self) -> UserObject:
        if "/" in self.name or self.name != self.name.strip() or self.name in (".", ".."):
            raise InvalidError("invalid_user_name", "a user name holds no '/' and no blank at either end, and is not '.' or '..'")
        return UserObject(name=self.name, enabled=self.enabled)


class UserView(Body):
    """A user as he is shown."""

    model_config = examples({"name": "alice", "enabled": True, "password_set": True})

    name: str
    enabled: bool
    password_set: bool = Field(description="false after a rollback that brought a deleted user back: set a new password.")
