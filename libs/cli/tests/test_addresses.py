"""Addresses of an embedded stack."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_cli.addresses import (
    Addresses,
    join_address,
    reachable,
    read_remembered,
    remember,
    settle_addresses,
    split_address,
)
from postern_core.errors import ConfigurationError

ANY = "127.0.0.1:0"
FREE = Addresses(**dict.fromkeys(asdict(Addresses()), ANY))


def test_every_port_0_becomes_a_port_of_its_own() -> None:
    settled = settle_addresses(FREE)
    ports = [split_address(address)[1] for _, address in settled.named()]
    assert len(set(ports)) == len(ports)
    assert 0 not in ports


def test_the_ports_of_the_last_start_come_back_unless_they_are_taken(tmp_path: Path) -> None:
    first = settle_addresses(FREE)
    remember(tmp_path / "addresses.json", first)
    assert settle_addresses(FREE, read_remembered(tmp_path / "addresses.json")) == first
    host, port = split_address(first.anon)
    with socket.create_server((host, port)):
        second = settle_addresses(FREE, first)
    assert second.anon != first.anon
    assert replace(second, anon=first.anon) == first


def test_a_port_that_is_wanted_by_name_is_not_given_away_as_a_free_one() -> None:
    first = settle_addresses(FREE)
    wanted = replace(FREE, nats=first.anon)
    settled = settle_addresses(wanted, first)
    assert settled.nats == first.anon
    assert settled.anon != first.anon


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"--auth-starttls {address}: cannot listen there: Address already in use"):
            settle_addresses(replace(FREE, auth_starttls=address))


def test_one_port_for_two_parts_is_refused() -> None:
    twice = settle_addresses(FREE).anon
    with pytest.raises(ConfigurationError, match="cannot listen there"):
        settle_addresses(replace(FREE, anon=twice, api=twice))


@pytest.mark.parametrize("address", ["", "2525", "localhost", ":2525", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:25"])
def test_nonsense_is_refused_with_the_option_that_has_it(address: str) -> None:
    with pytest.raises(ConfigurationError, match="--smart-host"):
        settle_addresses(replace(FREE, smart_host=address))


def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--anon 192\.0\.2\.1:2525"):
        settle_addresses(replace(FREE, anon="192.0.2.1:2525"))


def test_ipv6_is_written_in_brackets() -> None:
    assert split_address("[::1]:2525") == ("::1", 2525)
    assert join_address("::1", 2525) == "[::1]:2525"


def test_what_listens_everywhere_is_reached_on_loopback() -> None:
    assert reachable("0.0.0.0:2525") == "127.0.0.1:2525"
    assert reachable("[::]:2525") == "[::1]:2525"
    assert reachable("192.0.2.1:2525") == "192.0.2.1:2525"


@given(st.ip_addresses().map(str), st.integers(0, 65535))
def test_join_then_split_is_identity(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}x", json.dumps({"unknown": ANY}), json.dumps({"anon": "nonsense"}), '{"anon": 5}']
)
def test_a_damaged_memory_is_forgotten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "addresses.json"
    path.write_text(content)
    assert read_remembered(path) is None
