"""The SMTP filter at the HTTP edge: the whole table, of which the policy keeps the rows that are not as they come."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from pydantic import Field, JsonValue

from postern_api.errors import ConflictError, InvalidError
from postern_api.fields import Body, Flag, Line, Whole, examples
from postern_core.policy.commands import (
    NEVER,
    OTHERS,
    CommandRule,
    ListenerCommands,
    OnViolation,
    command_table,
    differing,
    octets_cap,
)

_VERB: Final = re.compile(r"[A-Z][A-Z0-9-]{2,19}")
_MOST_ROWS: Final = 200
_EXAMPLE: Final[dict[str, JsonValue]] = {"verb": "NOOP", "enabled": True, "max_octets": 6}


class CommandRuleBody(Body):
    """One verb."""

    model_config = examples(_EXAMPLE, {"verb": OTHERS, "enabled": False})

    verb: Line = Field(description="In any case; `*` stands for every verb that has no row.")
    enabled: Flag = Field(
        default=True,
        description="Disabled: 502 5.5.1, and EHLO does not announce it. For `*`: whether an unknown verb is no violation.",
    )
    max_octets: Whole = Field(default=512, description="Of the whole line, with its verb and CRLF.")

    def to_object(self) -> CommandRule:
        verb = self.verb.strip().upper()
        if verb in NEVER:
            raise InvalidError("invalid_command", f"{verb} is refused always, and has no row")
        if verb != OTHERS and not _VERB.fullmatch(verb):
            raise InvalidError("invalid_command", f"{self.verb!r} is no verb")
        least, most = len(verb) + 2, octets_cap(verb)
        if not least <= self.max_octets <= most:
            raise InvalidError("invalid_command", f"{verb}: max_octets is {self.max_octets}, from {least} to {most} are possible")
        return CommandRule(verb=verb, enabled=self.enabled, max_octets=self.max_octets)


class CommandsBody(Body):
    """Which commands the gate takes, how long each may be, and what follows when one is not. A verb of Postern's own that has no row in a
    request keeps its default; another verb without one falls under `*`."""

    model_config = examples({"rules": [_EXAMPLE], "on_too_long": "close", "on_disabled": "reply", "on_unknown": "reply"})

    rules: Annotated[list[CommandRuleBody], Field(max_length=_MOST_ROWS)] = Field(default=[], description="A row for each verb.")
    on_too_long: OnViolation = Field(default=OnViolation.REPLY, description="`reply`: 500 5.5.2; `close`: 421 and the end.")
    on_disabled: OnViolation = Field(default=OnViolation.REPLY, description="`reply`: 502 5.5.1; `close`: 421 and the end.")
    on_unknown: OnViolation = Field(default=OnViolation.REPLY, description="`reply`: 500 5.5.2; `close`: 421 and the end.")

    def to_object(self) -> ListenerCommands:
        """InvalidError for a row that cannot be, ConflictError for a verb with two."""
        rules = tuple(body.to_object() for body in self.rules)
        if len({rule.verb for rule in rules}) != len(rules):
            raise ConflictError("command_exists", "a verb has two rows")
        return ListenerCommands(
            rules=differing(rules),
            on_too_long=self.on_too_long,
            on_disabled=self.on_disabled,
            on_unknown=self.on_unknown,
        )

    @classmethod
    def of(cls, commands: ListenerCommands) -> CommandsBody:
        return cls(
            rules=[CommandRuleBody(**msgspec.structs.asdict(rule)) for rule in command_table(commands.rules)],
            on_too_long=commands.on_too_long,
            on_disabled=commands.on_disabled,
            on_unknown=commands.on_unknown,
        )
