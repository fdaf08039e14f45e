"""docs/reference/settings.md, made from the settings classes: `make docs` writes it, a test keeps page and code the same."""

from __future__ import annotations

import re
import typing
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Final

from pydantic.fields import FieldInfo

from postern_api.settings import Settings as Api
from postern_core.bus.provision import ProvisionSettings
from postern_core.settings import BusSettings, EnvironmentSettings
from postern_delivery.settings import Settings as Delivery
from postern_ingress_anon.settings import Settings as IngressAnon
from postern_ingress_auth.settings import Settings as IngressAuth
from postern_screener.settings import Settings as Screener

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
_PARTS: Final[tuple[tuple[str, type[EnvironmentSettings], str], ...]] = (
    ("ingress-anon", IngressAnon, "The anonymous gate."),
    ("ingress-auth", IngressAuth, "The authenticated gate."),
    ("screener", Screener, "Rules are policy, not settings."),
    ("delivery", Delivery, "Routes and the retry schedule are policy, not settings."),
    ("api", Api, "The control plane."),
    (
        "provision",
        ProvisionSettings,
        "`python -m postern_core.bus.provision`, which creates streams and consumers before the services start.",
    ),
)
_HEAD: Final = """\
# Settings

Environment variables of each process; what can change while mail flows is policy and belongs to the [API](api.md). Secrets are files. A value
that is wrong ends the process with exit code 78 and a line that names the variable. This page is made from the code by `make docs`.

`postern up` sets all of these itself for its processes; its own are the options of `postern up --help`, each also as a variable
`POSTERN_UP_<OPTION>`. `docker-compose.yml` sets them for its containers and takes the few of [.env.example](../../.env.example).
"""
_NAMES: Final = {int: "number", float: "number", bool: "true or false", Path: "path"}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _section("Every service", BusSettings, "", frozenset())]
    parts += [_section(name, settings, told, _same_as_everywhere(settings)) for name, settings, told in _PARTS]
    return "\n".join(parts)


def _same_as_everywhere(settings: type[EnvironmentSettings]) -> frozenset[str]:
    common = BusSettings.model_fields
    return frozenset(
        name for name, field in settings.model_fields.items() if name in common and field.default == common[name].default
    )


def _section(title: str, settings: type[EnvironmentSettings], told: str, left_out: frozenset[str]) -> str:
    lines = [f"## {title}", *(["", told] if told else []), "", "| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in settings.model_fields.items():
        if name not in left_out:
            lines.append(
                f"| `POSTERN_{name.upper()}` | {_default(field)} | {_kind(field)}{field.description or BusSettings.model_fields[name].description} |"
            )
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.default_factory is not None:
        return "the machine's name"
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if value is None or value == "":
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(field: FieldInfo) -> str:
    """Type and range, as `[number, 1 to 64] `."""
    kind = field.annotation
    if typing.get_origin(kind) is UnionType:
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"[{' or '.join(str(member.value) for member in kind)}] "
    bounds: dict[str, Any] = {
        bound: getattr(item, bound) for item in field.metadata for bound in ("ge", "gt", "le", "lt") if hasattr(item, bound)
    }
    spans = [f"{words} {bounds[bound]}" for bound, words in (("ge", "from"), ("gt", "over"), ("le", "to")) if bound in bounds]
    name = _NAMES.get(typing.get_args(kind)[0] if typing.get_args(kind) else kind, "text")  # type: ignore[arg-type]
    pattern = next((item.pattern for item in field.metadata if getattr(item, "pattern", None)), "")
    if choices := re.fullmatch(r"\^\(([a-z|]+)\)\$", pattern):
        return f"[{choices.group(1).replace('|', ', ')}] "
    if name == "text":
        return ""
    return f"[{', '.join([name, ' '.join(spans)] if spans else [name])}] "


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
