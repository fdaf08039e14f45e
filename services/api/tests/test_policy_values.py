"""Addresses, hosts, differences and compiled sections, without a bus."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_api.errors import ApiError, ConflictError, InvalidError
from postern_api.policy.addresses import checked_address, checked_host, checked_sender_pattern, shown_host
from postern_api.policy.checks import check
from postern_api.policy.compiling import compile_policy
from postern_api.policy.differences import differences
from postern_api.policy.objects import GeneralSettings, RouteObject, RuleObject, Snapshot, decode_snapshot, encode_snapshot
from postern_api.quarantine.endpoints import header_fields
from postern_core.policy import KeywordCondition, NextHop, RelayDomain, RouteTls, decode_section, encode_section
from postern_core.verdict import Action

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
LOCAL = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[A-Za-z0-9]{1,5})?", fullmatch=True)


def a_route(name: str = "main", **more: object) -> RouteObject:
    return msgspec.convert({"name": name, "smart_hosts": [{"host": "h.example"}], "default": True} | more, RouteObject)


def a_snapshot(**more: object) -> Snapshot:
    return msgspec.structs.replace(Snapshot(settings=GeneralSettings(hostname="mx.example"), routes=(a_route(),)), **more)


@given(LOCAL, DOMAIN)
def test_an_address_is_kept_but_for_the_case_of_its_domain(local: str, domain: str) -> None:
    assert checked_address(f" {local}@{domain.upper()} ") == f"{local}@{domain}"
    assert checked_address(checked_address(f"{local}@{domain}")) == f"{local}@{domain}"


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        found = checked_address(text)
    except InvalidError:
        return
    assert checked_address(found) == found
    assert found.isprintable() or not any(c in found for c in "\r\n\0 <>")


@pytest.mark.parametrize(
    "text", ["", "a", "@", "a@", "@b", "a b@c", "a@b@c", "<a@b>", "a\r\n@b", ".a@b", "a..b@c", '"a"@b', "a@[1.2.3.4]"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidError):
        checked_address(text)


@given(st.ip_addresses())
def test_an_ip_address_is_shown_in_brackets(address: object) -> None:
    assert checked_host(shown_host(str(address))) == str(address)
    assert checked_host(str(address)) == str(address)
    assert shown_host(str(address)).startswith("[")


def test_sender_patterns() -> None:
    assert checked_sender_pattern("A@B.Example") == "A@b.example"
    assert checked_sender_pattern("*.B.Example") == "*.b.example"


@given(st.lists(DOMAIN, unique=True, max_size=5), st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_snapshots_and_sections_survive_storage(domains: list[str], phrases: list[str]) -> None:
    rules = tuple(
        RuleObject(id=f"r-{k}", name="n", condition=KeywordCondition(phrases=(phrase,)), action=Action.HOLD, enabled=k % 2 == 0)
        for k, phrase in enumerate(phrases)
    )
    snapshot = a_snapshot(domains=tuple(RelayDomain(pattern=domain) for domain in domains), rules=rules)
    check(snapshot)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
    compiled = compile_policy(snapshot, 7)
    assert compiled is not None
    for _, section in compiled.sections:
        assert decode_section(encode_section(section), type(section)) == section
        assert section.revision == 7
    assert [rule.id for rule in compiled.screening.rules] == [rule.id for rule in rules if rule.enabled]
    assert differences(snapshot, snapshot) == []


def test_without_a_default_route_there_is_no_policy() -> None:
    assert compile_policy(Snapshot(settings=GeneralSettings(hostname="h")), 1) is None


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"routes": (a_route(default=False),)}, ConflictError, "default_route_required"),
        ({"routes": (a_route(), a_route("b"))}, ConflictError, "two_default_routes"),
        ({"routes": (a_route(), a_route(default=False))}, ConflictError, "route_exists"),
        ({"domains": (RelayDomain(pattern="a", route="b"),)}, InvalidError, "unknown_route"),
        ({"domains": (RelayDomain(pattern="a"), RelayDomain(pattern="a"))}, ConflictError, "domain_exists"),
    ],
)
def test_what_cannot_stand_together(change: dict[str, object], kind: type[ApiError], name: str) -> None:
    with pytest.raises(kind) as refused:
        check(a_snapshot(**change))
    assert refused.value.name == name


def test_too_many_phrases_are_refused_unless_disabled() -> None:
    condition = KeywordCondition(phrases=tuple(map(str, range(100_001))))
    rule = RuleObject(id="r", name="n", condition=condition, action=Action.HOLD)
    with pytest.raises(InvalidError, match="too_many"):
        check(a_snapshot(rules=(rule,)))
    check(a_snapshot(rules=(msgspec.structs.replace(rule, enabled=False),)))


def test_a_route_with_a_user_asks_for_auth() -> None:
    compiled = compile_policy(a_snapshot(routes=(a_route(user="u", tls="verify"),)), 1)
    assert compiled is not None
    (route,) = compiled.delivery.routes
    assert (route.auth, route.tls, route.next_hops) == (True, RouteTls.VERIFY, (NextHop(host="h.example"),))


@given(st.binary(max_size=300))
def test_any_bytes_have_header_fields(message: bytes) -> None:
    assert isinstance(header_fields(message), list)


def test_header_fields_are_shown_folded_and_in_order() -> None:
    message = b"A: 1\r\n 2\r\nB:\xff\r\nno field\r\nC: 3\r\n\r\nD: 4\r\n"
    assert header_fields(message) == [("A", "1\n 2"), ("B", "\ufffd")]
    assert header_fields(b"A: 1\n\nB: 2\n") == [("A", "1")]
