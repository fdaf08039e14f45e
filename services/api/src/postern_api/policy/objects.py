"""The editable policy objects, and the snapshot of all of them that a revision keeps.

Frozen; in canonical form (normalised domains and addresses). No secret stands here.
"""

from __future__ import annotations

import msgspec

from postern_api.alerts.objects import AlertPolicy
from postern_core.changes import Change
from postern_core.envelope import Gate
from postern_core.policy import (
    Condition,
    Engines,
    GateLimits,
    ListenerPolicy,
    ListKind,
    NextHop,
    RecipientList,
    RelayDomain,
    RetrySchedule,
    RouteTls,
    ScheduleCondition,
    SendingRates,
    UnscannablePolicy,
)
from postern_core.verdict import Action


class RouteObject(msgspec.Struct, frozen=True, kw_only=True):
    """A route as it is edited; its password is in KV SECRETS."""

    name: str
    smart_hosts: tuple[NextHop, ...]
    tls: RouteTls = RouteTls.OPPORTUNISTIC
    user: str = ""
    use_helo: bool = False
    default: bool = False
    max_connections: int = 20
    max_messages_per_connection: int | None = 20
    max_recipients: int = 100
    timeout_s: float = 600.0


class RuleObject(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it is edited. Their order is the snapshot's."""

    id: str
    name: str
    condition: Condition
    action: Action
    enabled: bool = True
    monitor: bool = False  # it only records what it would do
    unless: Condition | None = None
    forward_to: str = ""
    rule_set: str = ""  # its name; "": for all mail
    changes: tuple[Change, ...] = ()


class RuleSetObject(msgspec.Struct, frozen=True, kw_only=True):
    """For what mail the rules in it are: each condition that is given narrows it. A rule in a set that is off, or monitors, goes no further."""

    name: str
    gates: tuple[Gate, ...] = ()  # none: both
    recipients: tuple[str, ...] = ()  # patterns; none: everybody
    schedule: ScheduleCondition | None = None  # None: always
    enabled: bool = True
    monitor: bool = False
    note: str = ""


class ListObject(msgspec.Struct, frozen=True, kw_only=True):
    """A named list as it is edited; its values as text, one a line, as the policy has them."""

    name: str
    kind: ListKind
    text: str = ""
    description: str = ""

    @property
    def values(self) -> list[str]:
        return self.text.split("\n") if self.text else []


class UserObject(msgspec.Struct, frozen=True, kw_only=True):
    """An SMTP user; his passwords' hashes are in tables smtp_credentials and app_passwords, and in KV USERS."""

    name: str
    enabled: bool = True
    certificates: tuple[str, ...] = ()  # names in client certificates that are his, lower case
    senders: tuple[str, ...] = ()  # addresses, domains, `*.domain`
    rates: SendingRates | None = None  # None: the listener's


class GeneralSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What concerns the relay as a whole."""

    hostname: str
    postmaster: str = ""
    ndr_copy_to: str = ""
    max_deliveries: int = 4
    screening_timeout_s: float = 10.0
    excerpts: bool = True  # of what matched are stored
    archive: bool = False  # of what was screened, for rehearsals


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All policy objects at one revision."""

    settings: GeneralSettings
    domains: tuple[RelayDomain, ...] = ()
    routes: tuple[RouteObject, ...] = ()
    rules: tuple[RuleObject, ...] = ()
    rule_sets: tuple[RuleSetObject, ...] = ()
    lists: tuple[ListObject, ...] = ()
    users: tuple[UserObject, ...] = ()
    anon: GateLimits = GateLimits()
    auth: GateLimits = GateLimits()
    anon_listener: ListenerPolicy = ListenerPolicy()
    auth_listener: ListenerPolicy = ListenerPolicy()
    schedule: RetrySchedule = RetrySchedule()
    alerts: AlertPolicy = AlertPolicy()
    engines: Engines = Engines()
    recipient_lists: tuple[RecipientList, ...] = ()  # at most one for a domain
    unscannable: UnscannablePolicy = UnscannablePolicy()

    @property
    def default_route(self) -> str:
        """Name of the default route, "" while there is none."""
        return next((route.name for route in self.routes if route.default), "")


def encode_snapshot(snapshot: Snapshot) -> str:
    """As table revisions keeps it."""
    return msgspec.json.encode(snapshot).decode()


def decode_snapshot(text: str) -> Snapshot:
    """ValueError (msgspec.DecodeError) for what `encode_snapshot` did not make."""
    return msgspec.json.decode(text, type=Snapshot)
