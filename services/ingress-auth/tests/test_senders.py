"""Whose reverse-path is whose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_ingress_auth.senders import SenderList

LIST = SenderList(("Ann@example.com", '"a b"@example.com', "example.org", "*.example.net"))
NAMES = st.text("abc.", min_size=1, max_size=6).map(lambda text: text.strip(".") or "a")


@pytest.mark.parametrize(
    ("address", "is_his"),
    [
        ("ann@example.com", True),
        ("ANN@example.com", True),
        ('"a b"@example.com', True),
        ("x.ann@example.com", False),
        ("ann@example.com.evil.example", False),
        ("ann@sub.example.com", False),
        ("anybody@example.org", True),
        ('"ann@example.com"@evil.example', False),
        ("anybody@sub.example.org", False),
        ("anybody@example.net", False),
        ("anybody@a.b.example.net", True),
        ("anybody@evilexample.net", False),
        ("anybody@[192.0.2.1]", False),
    ],
)
def test_a_list_holds_what_it_says_and_no_more(address: str, is_his: bool) -> None:
    assert LIST.holds(address) is is_his
    assert not SenderList(()).holds(address)


@given(st.lists(NAMES, max_size=4), NAMES, NAMES)
def test_what_a_list_of_addresses_holds_is_in_it(domains: list[str], local: str, domain: str) -> None:
    addresses = {f"{local}@{each}" for each in domains}
    assert SenderList(addresses).holds(f"{local}@{domain}") is (f"{local}@{domain}" in addresses)
