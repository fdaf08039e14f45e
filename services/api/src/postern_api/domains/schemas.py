"""Relay domains at the HTTP edge."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from postern_api.fields import Body, Flag, Line, examples
from postern_api.policy.addresses import checked_pattern
from postern_core.policy import RecipientList, Recipients, RelayDomain

_Few = Annotated[list[str], Field(max_length=10_000)]


class DomainBody(Body):
    """A domain under the administrator's control."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pattern": "example.com", "route": "", "accept": True}, {"pattern": "*.example.com"}]}
    )

    pattern: Line = Field(description="`example.com`, or `*.example.com` for every name below it (and not example.com itself).")
    route: Line = Field(default="", description="The route that its mail takes; empty: the default route.")
    accept: Flag = Field(default=True, description="Take mail for it from anybody; false: the entry only routes.")

    recipients: Recipients = Field(
        default=Recipients.ANY,
        description="Which mailboxes there are: any; those in its list; those that its smart host (callout) or the directory knows. Others get 550 5.1.1.",
    )

    def to_object(self) -> RelayDomain:
        return RelayDomain(
            pattern=checked_pattern(self.pattern), route=self.route, accept=self.accept, recipients=self.recipients
        )

    @classmethod
    def of(cls, domain: RelayDomain) -> DomainBody:
        return cls(pattern=domain.pattern, route=domain.route, accept=domain.accept, recipients=domain.recipients)


class RecipientListBody(Body):
    """All mailboxes of a domain; its postmaster is always one."""

    model_config = examples({"addresses": ["ann@example.com", "bob@example.com"], "case_sensitive": False})

    addresses: list[str] = Field(description="`local-part@domain`, in any order.")
    case_sensitive: Flag = Field(default=False, description="Local-parts that differ by case are different mailboxes.")

    @classmethod
    def of_text(cls, text: str) -> RecipientListBody:
        """One a line; empty lines, and those that begin with #, are nothing."""
        lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
        return cls(addresses=[line for line in lines if line and not line.startswith("#")])

    @classmethod
    def of(cls, listed: RecipientList) -> RecipientListBody:
        return cls(addresses=list(listed.addresses), case_sensitive=listed.case_sensitive)


class RecipientSummary(Body):
    """A list, without its addresses."""

    model_config = examples({"domain": "example.com", "addresses": 2})

    domain: Line
    addresses: int = Field(description="How many mailboxes stand in it.")


class RecipientChangeBody(Body):
    """What is to be different in a list."""

    model_config = examples({"add": ["carol@example.com"], "remove": ["bob@example.com"]})

    add: _Few = Field(default_factory=list, description="Mailboxes that may be there already.")
    remove: _Few = Field(default_factory=list, description="Mailboxes that need not be there.")
