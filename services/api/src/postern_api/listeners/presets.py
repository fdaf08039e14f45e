"""Presets: limits and SMTP filter of a gate, taken together. A preset is applied as if both parts were replaced by hand.

`isa2000` has the values of ISA Server 2000 and the IIS 6 SMTP service (RFC 821's arithmetic: a bare verb and CRLF are 6 octets, `MAIL FROM:` and a
path of 256 are 266). Where those had no limit (connections, errors of a session), it keeps ours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

import msgspec
from pydantic import Field

from postern_api.fields import Body, examples
from postern_api.listeners.commands import CommandsBody
from postern_api.listeners.parts import GateName
from postern_api.listeners.schemas import LimitsBody
from postern_api.policy.objects import Snapshot
from postern_core.policy import GateLimits
from postern_core.policy.commands import CommandRule, ListenerCommands, OnViolation, differing

_BARE = ("DATA", "RSET", "QUIT", "NOOP", "HELP")


def _isa2000(*, mail_octets: int) -> ListenerCommands:
    lengths = {"HELO": 71, "EHLO": 71, "MAIL": mail_octets, "RCPT": 266, "VRFY": 255, "EXPN": 255, "AUTH": 1024, "STARTTLS": 10}
    lengths |= dict.fromkeys(_BARE, 6)
    return ListenerCommands(
        rules=differing(
            [
                *(CommandRule(verb=verb, max_octets=octets) for verb, octets in lengths.items()),
                CommandRule(verb="BDAT", enabled=False),
            ]
        ),
        on_too_long=OnViolation.CLOSE,
        on_disabled=OnViolation.CLOSE,
    )


class PresetName(enum.StrEnum):
    """Those that there are."""

    STANDARD = "standard"
    ISA2000 = "isa2000"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class Preset:
    """One of them; the gate with AUTH may have another filter."""

    about: str
    limits: GateLimits
    anon: ListenerCommands = field(default_factory=ListenerCommands)
    auth: ListenerCommands = field(default_factory=ListenerCommands)

    def applied(self, snapshot: Snapshot, gate: GateName) -> Snapshot:
        commands: ListenerCommands = getattr(self, gate.value)
        listener = msgspec.structs.replace(getattr(snapshot, f"{gate}_listener"), commands=commands)
        return msgspec.structs.replace(snapshot, **{gate.value: self.limits, f"{gate}_listener": listener})


PRESETS: Final = {
    PresetName.STANDARD: Preset("As a gate comes: command lines as RFC 5321 and its extensions ask for.", GateLimits()),
    PresetName.ISA2000: Preset(
        "ISA Server 2000 and IIS 6. Its 15 hops and its short HELO refuse honest mail of today.",
        GateLimits(max_hops=15),
        anon=_isa2000(mail_octets=266),
        auth=_isa2000(mail_octets=266 + 1024),  # what AUTH adds to MAIL FROM (OLD-PRODUCT 1.08)
    ),
    PresetName.LARGE: Preset(
        "As standard, for mail of up to 50 MiB and many recipients. See POSTERN_MEMORY_BYTES.",
        GateLimits(max_message_bytes=50 * 2**20, max_session_bytes=500 * 2**20, max_messages=1000, max_recipients=1000),
    ),
}


class PresetParts(Body):
    """What a preset makes of one gate."""

    limits: LimitsBody
    commands: CommandsBody


class PresetBody(Body):
    """A preset, with the parts that it replaces."""

    model_config = examples(
        {
            "name": "isa2000",
            "about": "ISA Server 2000 and IIS 6.",
            "gates": {"anon": {"limits": {"max_hops": 15}, "commands": {"rules": [{"verb": "NOOP", "max_octets": 6}]}}},
        }
    )

    name: PresetName
    about: str
    gates: dict[GateName, PresetParts]

    @classmethod
    def of(cls, name: PresetName) -> PresetBody:
        preset = PRESETS[name]
        parts = {
            gate: PresetParts(limits=LimitsBody.of(preset.limits), commands=CommandsBody.of(getattr(preset, gate.value)))
            for gate in GateName
        }
        return cls(name=name, about=preset.about, gates=parts)


class PresetChoice(Body):
    """Which preset to apply."""

    model_config = examples({"preset": "isa2000"})

    preset: PresetName = Field(description="GET /presets has what each sets.")
