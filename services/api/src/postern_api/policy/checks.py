"""What must hold between the objects of a snapshot. Each object has been checked by itself before (its own service).

The api has no pattern compiler: what a phrase costs is bounded here by its length and number, and the screener has the last word
(it keeps the last good revision and says why in its status).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from postern_api.errors import ConflictError, InvalidError
from postern_api.policy.list_checks import check_lists
from postern_api.policy.objects import Snapshot
from postern_core.policy import ENGINE_OF, DmarcAction, GateLimits, ListenerPolicy, Recipients, Switch, TlsUse
from postern_core.policy.conditions import criteria

MAX_DOMAINS: Final = 100_000
MAX_RECIPIENTS: Final = 100_000  # in the lists of all domains together
MAX_YARA_FILES: Final = 100
MAX_YARA_FILE_BYTES: Final = 1024 * 1024
MAX_YARA_BYTES: Final = 4 * 1024 * 1024  # of all files together
MAX_ROUTES: Final = 200
MAX_RULES: Final = 10_000
MAX_RULE_SETS: Final = 1_000


def check(snapshot: Snapshot) -> None:
    """InvalidError or ConflictError when the snapshot cannot be a policy."""
    _count("domains", len(snapshot.domains), MAX_DOMAINS)
    _count("routes", len(snapshot.routes), MAX_ROUTES)
    _count("rules", len(snapshot.rules), MAX_RULES)
    _unique("domain", (domain.pattern for domain in snapshot.domains))
    _unique("route", (route.name for route in snapshot.routes))
    _unique("user", (user.name.casefold() for user in snapshot.users))
    _unique("certificate", (name for user in snapshot.users for name in user.certificates))
    _unique("rule", (rule.id for rule in snapshot.rules))
    _rule_sets(snapshot)
    _routes(snapshot)
    _count("recipients in lists", sum(len(each.addresses) for each in snapshot.recipient_lists), MAX_RECIPIENTS)
    _callouts(snapshot)
    check_lists(snapshot)
    for gate, limits in (("anon", snapshot.anon), ("auth", snapshot.auth)):
        _limits(gate, limits)
    _security(snapshot.auth_listener)
    _gates(snapshot.anon_listener, snapshot.auth_listener)
    _engines(snapshot)


def _engines(snapshot: Snapshot) -> None:
    """A rule that asks an engine that is off would let pass what it was written against."""
    engines = snapshot.engines
    for rule in snapshot.rules:
        for condition in (rule.condition, rule.unless) if rule.enabled else ():
            for criterion in criteria(condition) if condition is not None else ():
                engine = ENGINE_OF.get(type(criterion))
                if engine is not None and engine not in engines.enabled:
                    raise ConflictError(
                        "engine_off", f"rule {rule.name!r} asks {engine.value}, which is off (/engines/{engine.value})"
                    )
    files = engines.yara.files
    _unique("yara_file", (file.name for file in files))
    _count("YARA files", len(files), MAX_YARA_FILES)
    _count("bytes of YARA rules", sum(len(file.source.encode()) for file in files), MAX_YARA_BYTES)
    if engines.yara.enabled and engines.yara.timeout_s >= snapshot.settings.screening_timeout_s:
        raise InvalidError("yara_timeout", "timeout_s of YARA must be below screening_timeout_s, which ends the whole inspection")


def _gates(anon: ListenerPolicy, auth: ListenerPolicy) -> None:
    """What one of the gates would not do is refused there, and not kept as if it were in force."""
    greeting = auth.greeting
    wrong = (
        (auth.relaying.networks, "auth: users relay there; networks that may relay belong to the anonymous gate"),
        (not anon.relaying.users, "anon: there are no users at this gate"),
        (
            anon.addresses.default_domain,
            "anon: an address without a domain is refused there; completing it belongs to the other gate",
        ),
        (
            any(bind.tls for bind in anon.binds.binds),
            "anon: TLS from the first octet is for ports of the authenticated gate; clients of this one use STARTTLS",
        ),
        (auth.dns_lists.lists, "auth: users are known by their passwords; lists in DNS are asked at the anonymous gate"),
        (
            {greeting.hello_syntax, greeting.hello_own, greeting.hello_resolves} != {Switch.OFF},
            "auth: what a user's program calls itself says nothing; HELO is looked at at the anonymous gate",
        ),
        (auth.greylisting.enabled, "auth: users are known by their passwords; greylisting belongs to the anonymous gate"),
        (
            auth.mail_authentication.dmarc is not DmarcAction.NONE,
            "auth: mail of users is not from elsewhere; DMARC is followed at the anonymous gate",
        ),
    )
    for is_wrong, why in wrong:
        if is_wrong:
            raise InvalidError("wrong_gate", why)


def _security(authenticated: ListenerPolicy) -> None:
    """What the authenticated gate could not work by. What depends on its files, it says itself (`policy_error` in its status)."""
    if not authenticated.authentication.mechanisms:
        raise InvalidError("mechanism_missing", "auth: without a mechanism nobody could authenticate")
    if authenticated.tls.use is TlsUse.OFF:
        raise InvalidError("tls_needed", "auth: TLS cannot be off, since AUTH goes inside TLS only")


def _routes(snapshot: Snapshot) -> None:
    names = {route.name for route in snapshot.routes}
    for domain in snapshot.domains:
        if domain.route and domain.route not in names:
            raise InvalidError("unknown_route", f"domain {domain.pattern} takes route {domain.route!r}, which does not exist")
    defaults = [route.name for route in snapshot.routes if route.default]
    if len(defaults) > 1:
        raise ConflictError("two_default_routes", f"only one of {', '.join(defaults)} can be the default route")
    if snapshot.routes and not defaults:
        raise ConflictError("default_route_required", "one route must be the default; make another one the default first")


def _rule_sets(snapshot: Snapshot) -> None:
    _count("rule sets", len(snapshot.rule_sets), MAX_RULE_SETS)
    _unique("rule_set", (each.name for each in snapshot.rule_sets))
    names = {each.name for each in snapshot.rule_sets}
    for rule in snapshot.rules:
        if rule.rule_set and rule.rule_set not in names:
            raise InvalidError("unknown_rule_set", f"rule {rule.name!r} is in rule set {rule.rule_set!r}, which does not exist")


def _callouts(snapshot: Snapshot) -> None:
    routes = {route.name: route for route in snapshot.routes}
    for domain in snapshot.domains:
        route = routes.get(domain.route or snapshot.default_route)
        if domain.recipients is Recipients.CALLOUT and route is not None and route.user:
            raise InvalidError(
                "callout_needs_password",
                f"domain {domain.pattern} asks route {route.name!r} for its recipients, which has a user: passwords are delivery's alone",
            )


def _limits(gate: str, limits: GateLimits) -> None:
    message, session = limits.max_message_bytes, limits.max_session_bytes
    if session is not None and message is not None and session < message:
        raise InvalidError(
            "session_below_message", f"{gate}: max_session_bytes is below max_message_bytes, so that none would fit"
        )


def _unique(noun: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConflictError(f"{noun}_exists", f"there is a {noun} {twice[0]!r} already")


def _count(what: str, number: int, most: int) -> None:
    if number > most:
        raise InvalidError("too_many", f"{number} {what}: at most {most} are possible")
