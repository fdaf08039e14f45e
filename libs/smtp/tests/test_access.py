"""Connection control as a pure decision, against the plain reading of the list, and its counters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import AccessAction, AccessEntry, GateLimits, ListenerAccess
from postern_core.policy.networks import parse_address, parse_network
from postern_smtp import replies
from postern_smtp.access import AccessList, is_name
from postern_smtp.admission import Crowd, network_of, overcrowding

ACTIONS = st.sampled_from(AccessAction)
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "2001:db8::1", "2001:db8:1::1"]
NAMES = ["a.example", "b.a.example", "example", "c.example"]
WHOS = [*ADDRESSES, "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/48", *NAMES, "*.example", "*.a.example"]
LISTS = st.builds(
    ListenerAccess,
    entries=st.lists(st.builds(AccessEntry, action=ACTIONS, who=st.sampled_from(WHOS)), max_size=8).map(tuple),
    otherwise=ACTIONS,
)


def fits(who: str, address: str, names: set[str]) -> bool:
    if not is_name(who):
        return parse_address(address) in parse_network(who)
    return who in names or (who.startswith("*.") and any(name.endswith(who[1:]) for name in names))


def read(access: ListenerAccess, address: str, names: set[str]) -> AccessAction:
    return next((entry.action for entry in access.entries if fits(entry.who, address, names)), access.otherwise)


@given(LISTS, st.sampled_from(ADDRESSES), st.sets(st.sampled_from(NAMES)))
def test_the_first_entry_that_fits_decides(access: ListenerAccess, address: str, names: set[str]) -> None:
    compiled = AccessList(access)
    assert compiled.by_names(address, names) is read(access, address, names)
    by_address = compiled.by_address(address)
    assert by_address is None or by_address is read(access, address, names)


@given(LISTS, st.sampled_from(ADDRESSES))
def test_names_are_asked_for_only_when_one_could_decide(access: ListenerAccess, address: str) -> None:
    before = []
    for entry in access.entries:
        if not is_name(entry.who) and fits(entry.who, address, set()):
            break
        before.append(is_name(entry.who))
    assert (AccessList(access).by_address(address) is None) == any(before)


@given(LISTS, st.sampled_from(ADDRESSES))
def test_a_failure_of_dns_turns_away_for_good_only_whom_no_name_could_save(access: ListenerAccess, address: str) -> None:
    decided = next((k for k, entry in enumerate(access.entries) if fits(entry.who, address, set())), len(access.entries))
    first_of = {
        entry.who: entry for entry in reversed(access.entries[:decided])
    }  # an entry behind one for the same name never decides
    saved = [entry for entry in first_of.values() if entry.action is AccessAction.ALLOW]
    if read(access, address, set()) is AccessAction.ALLOW:
        expected = None
    else:
        expected = replies.NAME_UNKNOWN if any(is_name(entry.who) for entry in saved) else replies.ACCESS_DENIED
    assert AccessList(access).without_names(address) is expected


def test_what_is_neither_is_refused() -> None:
    for who in ("192.0.2.1/24", "a*.example", "no host", ""):
        with pytest.raises(ValueError):
            AccessList(ListenerAccess(entries=(AccessEntry(action=AccessAction.DENY, who=who),)))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_a_network_is_what_one_customer_has(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.lists(st.sampled_from([*ADDRESSES, "::ffff:10.0.0.1"]), max_size=20))
def test_who_comes_and_goes_leaves_no_count(addresses: list[str]) -> None:
    crowd = Crowd()
    for address in addresses:
        crowd.add(address)
    assert crowd.total() == len(addresses)
    assert crowd.of_client("10.0.0.1") == addresses.count("10.0.0.1") + addresses.count("::ffff:10.0.0.1")
    for address in reversed(addresses):
        crowd.remove(address)
    assert (crowd.total(), crowd._clients, crowd._networks) == (0, {}, {})


def test_both_limits_count_all_crowds_together() -> None:
    inside, at_the_door = Crowd(), Crowd()
    inside.add("10.0.0.1")
    at_the_door.add("10.0.0.1")
    at_the_door.add("10.0.0.2")
    limits = GateLimits(max_connections_per_client=2, max_connections_per_network=2)
    assert overcrowding(limits, "10.0.0.1", inside) is None
    assert overcrowding(limits, "10.0.0.1", inside, at_the_door) is replies.TOO_MANY_OF_NETWORK
    assert overcrowding(GateLimits(max_connections_per_client=1), "10.0.0.1", inside, at_the_door) is replies.TOO_MANY_OF_YOURS
    assert overcrowding(GateLimits(max_connections_per_client=None), "10.0.0.1", inside, at_the_door) is None
