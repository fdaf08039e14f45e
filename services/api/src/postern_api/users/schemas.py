"""SMTP users at the HTTP edge. The password is write-only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Name, examples
from postern_api.listeners.accounts import SendingRatesBody
from postern_api.policy.addresses import checked_own_sender
from postern_api.policy.app_passwords import StoredAppPassword
from postern_api.policy.objects import UserObject

MAX_SENDERS = 1000
Senders = Annotated[list[Line], Field(max_length=MAX_SENDERS)]


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
    enabled: Flag = Field(default=True, description="false: he cannot log in.")
    certificates: list[Line] = Field(
        default_factory=list,
        max_length=20,
        description="Names in client certificates by which he may log in (AUTH EXTERNAL): mail addresses, or common names of "
        "certificates without one. Caseless; each is one user's.",
    )
    senders: Senders = Field(
        default=[],
        description="Reverse-paths that are his: addresses, `@domain`, `@*.domain`; any other gets 553 5.7.1. None: as the listener says.",
    )
    rates: SendingRatesBody | None = Field(default=None, description="How much he may send; null: as the listener says.")
    password_set: bool | None = Field(
        default=None, description="As shown; ignored here, so that what was read can be written back."
    )

    def to_object(self) -> UserObject:
        if "/" in self.name or self.name != self.name.strip() or self.name in (".", ".."):
            raise InvalidError("invalid_user_name", "a user name holds no '/' and no blank at either end, and is not '.' or '..'")
        certificates = dict.fromkeys(name.strip().casefold() for name in self.certificates)
        if "" in certificates:
            raise InvalidError("invalid_certificate_name", "a name in a certificate is not empty")
        return UserObject(
            name=self.name,
            enabled=self.enabled,
            certificates=tuple(certificates),
            senders=tuple(dict.fromkeys(checked_own_sender(text) for text in self.senders)),
            rates=self.rates.to_object() if self.rates is not None else None,
        )


class UserView(Body):
    """A user as he is shown."""

    model_config = examples(
        {
            "name": "alice",
            "enabled": True,
            "certificates": ["alice@example.com"],
            "senders": ["alice@example.com", "@news.example.com"],
            "rates": {
                "messages_per_hour": 100,
                "messages_per_day": None,
                "recipients_per_hour": None,
                "recipients_per_day": 2000,
            },
            "password_set": True,
        }
    )

    name: str
    enabled: bool
    certificates: list[str]
    senders: list[str]
    rates: SendingRatesBody | None
    password_set: bool = Field(description="false after a rollback that brought a deleted user back: set a new password.")

    @classmethod
    def of(cls, user: UserObject, *, password_set: bool) -> UserView:
        return cls(
            name=user.name,
            enabled=user.enabled,
            certificates=list(user.certificates),
            senders=[sender if "@" in sender else f"@{sender}" for sender in user.senders],
            rates=SendingRatesBody.of(user.rates) if user.rates is not None else None,
            password_set=password_set,
        )


class AppPasswordBody(Body):
    """A new app-password."""

    model_config = examples({"name": "phone"})

    name: Name = Field(description="What it is for.")


class AppPasswordView(Body):
    """An app-password as it is known afterwards: without its text."""

    model_config = examples(
        {"id": "q3zk5v2h", "name": "phone", "created_at": "2026-03-01T09:30:00Z", "last_used_at": "2026-03-02T07:00:00Z"}
    )

    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None = Field(description="Within an hour; null: never.")

    @classmethod
    def of(cls, stored: StoredAppPassword) -> AppPasswordView:
        return cls(id=stored.id, name=stored.name, created_at=stored.created_at, last_used_at=stored.last_used_at)


class IssuedAppPassword(AppPasswordView):
    """An app-password with its text, which is shown this once."""

    model_config = examples(
        {
            "id": "q3zk5v2h",
            "name": "phone",
            "created_at": "2026-03-01T09:30:00Z",
            "last_used_at": None,
            "password": "q3zk5v2h-(five groups of six characters, shown this once)",
        }
    )

    password: str = Field(repr=False)
