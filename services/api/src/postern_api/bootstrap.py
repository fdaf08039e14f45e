"""The first revision: from the bootstrap file, or empty but valid. Applied once, when there is no revision yet.

The file holds bodies of the REST objects, checked as they would be there. Without it the policy has a hostname and nothing else: until a
default route exists nothing is published, and the gates answer 451 4.3.5.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from postern_api.alerts.objects import AlertPolicy
from postern_api.alerts.schemas import AlertsBody
from postern_api.domains.schemas import DomainBody
from postern_api.errors import ApiError
from postern_api.general.schemas import SettingsBody
from postern_api.listeners.parts import PARTS, GateName
from postern_api.policy.credentials import CredentialChange, RoutePassword, new_password
from postern_api.policy.editing import Editor
from postern_api.policy.objects import GeneralSettings, Snapshot
from postern_api.policy.repository import PolicyRepository
from postern_api.routes import service as routes
from postern_api.routes.schemas import RouteBody
from postern_api.rule_sets.schemas import RuleSetBody
from postern_api.rule_sets.service import rule_set_from
from postern_api.rules import service as rules
from postern_api.rules.schemas import RuleBody
from postern_api.schedule.schemas import ScheduleBody
from postern_api.unscannable.schemas import UnscannableBody
from postern_api.users.schemas import UserBody
from postern_core.credentials import RouteSecret
from postern_core.errors import ConfigurationError
from postern_core.policy import RetrySchedule, UnscannablePolicy


class BootstrapFile(BaseModel):
    """What the file may hold. Every list and object may be absent."""

    model_config = ConfigDict(extra="forbid")

    hostname: str = ""
    settings: SettingsBody | None = None
    domains: list[DomainBody] = Field(default=[])
    routes: list[RouteBody] = Field(default=[])
    rules: list[RuleBody] = Field(default=[])
    rule_sets: list[RuleSetBody] = Field(default=[])
    users: list[UserBody] = Field(default=[])
    listeners: dict[GateName, dict[str, JsonValue]] = Field(default={})  # a body for each part that is not to have its defaults
    schedule: ScheduleBody | None = None
    alerts: AlertsBody | None = None
    unscannable: UnscannableBody | None = None


async def bootstrap(editor: Editor, repository: PolicyRepository, file: Path | None, hostname: str) -> None:
    """Make revision 1 unless there is one. ConfigurationError for a file that is no policy; TransientError while a smart host's
    password cannot be stored."""
    if await repository.newest() is not None:
        return
    try:
        if file is None:
            await editor.first("settings", _empty(hostname), [])
            return
        parsed = BootstrapFile.model_validate_json(file.read_text(encoding="utf-8"))
        snapshot, credentials = await _first(parsed, hostname)
        await editor.first("bootstrap file", snapshot, credentials)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise ConfigurationError(f"POSTERN_BOOTSTRAP_FILE: {problems}") from None
    except (ApiError, ValueError) as error:
        raise ConfigurationError(f"POSTERN_BOOTSTRAP_FILE: {error}") from error


def _empty(hostname: str) -> Snapshot:
    try:
        return Snapshot(settings=SettingsBody(hostname=hostname).to_object())
    except ApiError:  # what the machine calls itself may be no domain name
        return Snapshot(settings=GeneralSettings(hostname="localhost"))


async def _first(parsed: BootstrapFile, hostname: str) -> tuple[Snapshot, list[CredentialChange]]:
    general = parsed.settings or SettingsBody(hostname=parsed.hostname or hostname)
    if parsed.settings is not None and parsed.hostname not in ("", parsed.settings.hostname):
        raise ValueError("hostname and settings.hostname differ")
    snapshot = Snapshot(
        settings=general.to_object(),
        domains=tuple(body.to_object() for body in parsed.domains),
        rules=tuple(rules.rule_from(body, rules.checked_rule_id(body.id or rules.new_rule_id())) for body in parsed.rules),
        rule_sets=tuple(map(rule_set_from, parsed.rule_sets)),
        users=tuple(body.to_object() for body in parsed.users),
        schedule=parsed.schedule.to_object() if parsed.schedule else RetrySchedule(),
        alerts=parsed.alerts.to_object() if parsed.alerts else AlertPolicy(),
        unscannable=parsed.unscannable.to_object() if parsed.unscannable else UnscannablePolicy(),
    )
    parts = {part.name: part for part in PARTS}
    for gate, bodies in parsed.listeners.items():
        for name, body in bodies.items():
            if name not in parts:
                raise ValueError(f"listeners.{gate}: there is no part {name!r}; there are {', '.join(parts)}")
            snapshot = parts[name].write(snapshot, gate, parts[name].body.model_validate(body).to_object())
    credentials: list[CredentialChange] = []
    for route_body in parsed.routes:
        route = route_body.to_object()
        snapshot = routes.add(snapshot, route)
        if route.user and not route_body.password:
            raise ValueError(f"route {route.name}: user {route.user!r} needs a password")
        if route_body.password:
            credentials.append(RoutePassword(route.name, RouteSecret(user=route.user, password=route_body.password)))
    for user_body in parsed.users:
        if not user_body.password:
            raise ValueError(f"user {user_body.name!r} needs a password")
        credentials.append(await new_password(user_body.name, user_body.password))
    return snapshot, credentials
