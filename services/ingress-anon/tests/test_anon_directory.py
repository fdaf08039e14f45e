"""Mailboxes that a directory knows: a real slapd, asked by the real gate; it may want a password, be away, or be somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixtures.broker import Broker
from fixtures.directory import BASE_DN, PASSWORD, READER_DN, Slapd
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.envelope import Gate
from postern_core.policy import GatePolicy, ListenerPolicy, ListenerVerification, Recipients, RelayDomain, WhenUnavailable
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.directory_settings import LdapServer, checked_filter, escaped, filter_for, parse_uris
from postern_ingress_anon.settings import Settings
from postern_ingress_anon.verification import Asked, verification_checks

IN_DIRECTORY = (RelayDomain(pattern="relay.example", recipients=Recipients.DIRECTORY),)
UNKNOWN, AWAY = "550 5.1.1 no such mailbox", "451 4.4.3 cannot look the recipient up"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Slapd]:
    with Slapd(tmp_path / "slapd") as running:
        yield running


@pytest.fixture
def closed_directory(tmp_path: Path) -> Iterator[Slapd]:
    """It wants a password, inside TLS."""
    with Slapd(tmp_path / "slapd", needs_password=True) as running:
        yield running


@asynccontextmanager
async def gate_that_asks(broker: Broker, **ldap: object) -> AsyncIterator[GateUnderTest]:
    changed = {"listen": "127.0.0.1:0", "drain_s": 6, "ldap_base_dn": BASE_DN, **ldap}
    settings = Settings(**broker.settings("ingress-anon").model_dump() | changed)
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        await gate.policy(IN_DIRECTORY)
        yield gate


async def reply_to(gate: GateUnderTest, address: str) -> str:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    reply = await wire.say(f"RCPT TO:<{address}>")
    await wire.expect("QUIT", "221")
    return reply


async def knows_ann(gate: GateUnderTest) -> None:
    assert (await reply_to(gate, "ann@relay.example")).startswith("250")
    assert (await reply_to(gate, "gone@relay.example")).startswith(UNKNOWN)


async def test_the_directory_says_who_exists(broker: Broker, directory: Slapd) -> None:
    async with gate_that_asks(broker, ldap_uri=directory.tls_uri, ldap_ca_file=directory.ca_file) as gate:
        await knows_ann(gate)
        assert (await reply_to(gate, "ANN.two@Relay.example")).startswith("250")
        assert (await reply_to(gate, "postmaster@relay.example")).startswith("250")
        # what would be a wildcard or a filter of its own is looked for as it stands
        for address in ("*@relay.example", "a*@relay.example", "ann)(mail=*@relay.example", "\\2a@relay.example"):
            assert (await reply_to(gate, f'"{address.partition("@")[0]}"@relay.example')).startswith("550 5.1.1")
        assert (await reply_to(gate, '"o\'hara(x)*y"@relay.example')).startswith("250")


async def test_tls_is_started_and_the_password_is_sent_inside(broker: Broker, closed_directory: Slapd, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n", encoding="utf-8")
    ldap = {
        "ldap_uri": closed_directory.plain_uri,
        "ldap_ca_file": closed_directory.ca_file,
        "ldap_bind_dn": READER_DN,
        "ldap_password_file": password,
    }
    async with gate_that_asks(broker, **ldap) as gate:
        await knows_ann(gate)
    password.write_text("wrong", encoding="utf-8")
    async with gate_that_asks(broker, **ldap) as gate:
        assert (await reply_to(gate, "ann@relay.example")).startswith(AWAY)


async def test_a_stranger_with_another_certificate_is_not_believed(broker: Broker, directory: Slapd, tmp_path: Path) -> None:
    with Slapd(tmp_path / "other", names=("elsewhere.example",)) as other:
        for uri, ca_file in (
            (other.tls_uri, other.ca_file),  # it has another name
            (other.plain_uri, other.ca_file),
            (directory.tls_uri, other.ca_file),  # nobody vouches for it
            (directory.plain_uri, other.ca_file),
        ):
            async with gate_that_asks(broker, ldap_uri=uri, ldap_ca_file=ca_file) as gate:
                assert (await reply_to(gate, "ann@relay.example")).startswith(AWAY)


@pytest.mark.parametrize(
    "wrong", [{"ldap_base_dn": "dc=nowhere,dc=example"}, {"ldap_base_dn": "no dn"}, {"ldap_filter": "(!(&(mail={address}))"}]
)
async def test_a_directory_that_is_asked_wrongly_bounces_nobody(broker: Broker, directory: Slapd, wrong: dict[str, str]) -> None:
    if "ldap_filter" in wrong:
        with pytest.raises(ValidationError, match="parentheses"):
            Settings(**broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0"} | wrong)
        wrong = {"ldap_filter": "(mail=={address}~)(x)"}
    async with gate_that_asks(broker, ldap_uri=directory.tls_uri, ldap_ca_file=directory.ca_file, **wrong) as gate:
        assert (await reply_to(gate, "ann@relay.example")).startswith(AWAY)


async def test_a_directory_that_is_away_defers_or_accepts_and_is_found_again(broker: Broker, directory: Slapd) -> None:
    async with gate_that_asks(broker, ldap_uri=directory.tls_uri, ldap_ca_file=directory.ca_file) as gate:
        await knows_ann(gate)
        directory.stop()
        assert (await reply_to(gate, "ann@relay.example")).startswith("250")  # remembered
        assert (await reply_to(gate, "ann.two@relay.example")).startswith(AWAY)
        accepting = ListenerPolicy(verification=ListenerVerification(when_unavailable=WhenUnavailable.ACCEPT))
        await gate.policy(IN_DIRECTORY, listener=accepting)
        assert (await reply_to(gate, "anybody@relay.example")).startswith("250")
    directory.start()
    async with gate_that_asks(broker, ldap_uri=directory.tls_uri, ldap_ca_file=directory.ca_file) as gate:
        await knows_ann(gate)
        directory.stop()
        directory.start()
        assert (await reply_to(gate, "ann.two@relay.example")).startswith("250")  # the connection that was kept is dead


async def test_a_directory_that_hangs_costs_its_time_out(broker: Broker, directory: Slapd) -> None:
    ldap = {"ldap_uri": directory.tls_uri, "ldap_ca_file": directory.ca_file, "ldap_timeout_s": 1}
    async with gate_that_asks(broker, **ldap) as gate:
        await knows_ann(gate)
        directory.hang()
        assert (await reply_to(gate, "ann.two@relay.example")).startswith(AWAY)


async def test_the_next_server_is_asked_where_one_is_away(broker: Broker, directory: Slapd, tmp_path: Path) -> None:
    with Slapd(tmp_path / "other") as other:
        other.stop()
        uri = f"{other.tls_uri} {directory.tls_uri}"
        async with gate_that_asks(broker, ldap_uri=uri, ldap_ca_file=directory.ca_file) as gate:
            await knows_ann(gate)


def test_a_policy_that_wants_a_directory_is_refused_where_there_is_none() -> None:
    policy = GatePolicy(revision=1, hostname="mx.example", relay_domains=IN_DIRECTORY)
    with pytest.raises(ValueError, match="POSTERN_LDAP_URI"):
        verification_checks(policy, "mx.example", Asked.nobody_yet())


@given(st.text(max_size=60))
def test_nothing_in_an_address_means_anything_to_a_filter(address: str) -> None:
    made = filter_for("(&(mail={address})(uid={local_part})(o={domain}))", address)
    assert set(escaped(address)).isdisjoint("()*\0{}")
    assert made.count("(") == made.count(")") == 4
    unescaped = bytes.fromhex(
        "".join(f"{c:02x}" if (c := ord(p[0])) and len(p) == 1 else p[1:] for p in _pieces(escaped(address)))
    )
    assert unescaped == address.encode("utf-8", "replace")


def _pieces(text: str) -> list[str]:
    pieces, k = [], 0
    while k < len(text):
        size = 3 if text[k] == "\\" else 1
        pieces.append(text[k : k + size])
        k += size
    return pieces


def test_uris() -> None:
    assert parse_uris("ldaps://a.example ldap://[::1]:1389") == (
        LdapServer("a.example", 636, implicit_tls=True),
        LdapServer("::1", 1389, implicit_tls=False),
    )
    for wrong in ("http://a", "ldap://", "a.example", "ldap://u:p@a", "ldap://a/dc=x", "ldap://a:99999"):
        with pytest.raises(ValueError, match=r"ldap|Port"):
            parse_uris(wrong)


def test_filters_that_ask_nothing_are_refused() -> None:
    for wrong in ("(objectClass=*)", "mail={address}", "(mail={address}", "(mail={address}))("):
        with pytest.raises(ValueError, match="filter"):
            checked_filter(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ldap_uri": "ldap://a", "ldap_start_tls": False, "ldap_bind_dn": "cn=x", "ldap_password_file": __file__},
        {"ldap_bind_dn": "cn=x"},
        {"ldap_password_file": __file__},
    ],
)
def test_a_password_goes_through_tls_only_and_with_a_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="POSTERN_LDAP"):
        Settings(**wrong)  # type: ignore[arg-type]
