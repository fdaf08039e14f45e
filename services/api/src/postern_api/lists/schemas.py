"""Named lists at the HTTP edge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from postern_api.fields import Body, Line, examples
from postern_api.policy.list_checks import criteria_of, named_lists
from postern_api.policy.objects import ListObject, Snapshot
from postern_api.rules.values import Lines, checked_values
from postern_core.policy import ListKind

ListName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="1 to 64 of a-z, 0-9, '.', '_' and '-'.")]
_Few = Annotated[list[Line], Field(max_length=10_000)]


class ListBody(Body):
    """A list with all its values."""

    model_config = examples({"name": "bulk-senders", "kind": "senders", "description": "", "values": ["*.bulk.example"]})

    name: ListName
    kind: ListKind = Field(description="What its values are. It stays.")
    description: Line = ""
    values: Lines = Field(default=[], description="In any order; each is kept once.")

    def to_object(self) -> ListObject:
        """InvalidError for a value that is none of its kind."""
        return ListObject(
            name=self.name, kind=self.kind, description=self.description, text="\n".join(checked_values(self.kind, self.values))
        )

    @classmethod
    def of(cls, listed: ListObject) -> ListBody:
        return cls(name=listed.name, kind=listed.kind, description=listed.description, values=listed.values)


class ListSummary(Body):
    """A list without its values."""

    model_config = examples(
        {"name": "bulk-senders", "kind": "senders", "description": "", "values": 1, "used_by": ["r-1a2b3c4d"]}
    )

    name: str
    kind: ListKind
    description: str
    values: int = Field(description="How many.")
    used_by: list[str] = Field(description="Ids of the rules that name it.")

    @classmethod
    def of(cls, listed: ListObject, snapshot: Snapshot) -> ListSummary:
        return cls(
            name=listed.name,
            kind=listed.kind,
            description=listed.description,
            values=listed.text.count("\n") + 1 if listed.text else 0,
            used_by=used_by(snapshot, listed.name),
        )


class ListChangeBody(Body):
    """What is to be different in a list."""

    model_config = examples({"add": ["*.more.example"], "remove": ["*.bulk.example"]})

    add: _Few = Field(default_factory=list, description="Values that may be there already.")
    remove: _Few = Field(default_factory=list, description="Values that need not be there.")


def used_by(snapshot: Snapshot, name: str) -> list[str]:
    """Ids of the rules that name a list, whether they are on or off."""
    return [rule.id for rule in snapshot.rules if any(name in named_lists(criterion) for criterion in criteria_of(rule))]
