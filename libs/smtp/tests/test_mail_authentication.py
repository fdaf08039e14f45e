"""The parsers of mail authentication: nothing in a message or in DNS makes them raise, and they take time in proportion to the octets."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_smtp.mail_authentication import fields
from postern_smtp.mail_authentication.arc import check_arc, parse_seal
from postern_smtp.mail_authentication.dkim import parse_key, parse_signature
from postern_smtp.mail_authentication.dmarc import Asked, author_domain, parse_dmarc
from postern_smtp.mail_authentication.fields import HeaderField, canonical_body, parse_signed, parse_tags
from postern_smtp.mail_authentication.results import Result
from postern_smtp.mail_authentication.spf_record import Macros, SpfSyntaxError, expand, parse_record
from postern_smtp.mail_authentication.stamp import authserv_id, without_forged
from postern_smtp.resolver import Resolver

ADDRESS = ipaddress.ip_address("192.0.2.3")
LINES = st.lists(st.sampled_from([b"", b" ", b"\t", b"a", b" a  b\t ", b"a b", b" \t "]), max_size=12)
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.text('abdhisvxlq=;: \t\r\n"\\()<>@.%{}/-~?+*1', max_size=200).map(str.encode),
)


def relaxed(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4, word for word."""
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def simple(body: bytes) -> bytes:
    """RFC 6376 section 3.4.3."""
    while body.endswith(b"\r\n"):
        body = body.removesuffix(b"\r\n")
    return body + b"\r\n"


@pytest.mark.parametrize("block", [1, 3, 128 * 1024])
@given(lines=LINES)
def test_the_canonical_body_does_not_depend_on_the_blocks(block: int, lines: list[bytes]) -> None:
    body = b"\r\n".join(lines)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fields, "_BLOCK_OCTETS", block)
        assert b"".join(canonical_body(memoryview(body), is_relaxed=True)) == relaxed(body)
        assert b"".join(canonical_body(memoryview(body), is_relaxed=False)) == simple(body)


@given(text=HOSTILE)
def test_nothing_makes_a_parser_raise(text: bytes) -> None:
    field = HeaderField(b"dkim-signature", b"DKIM-Signature: " + text)
    parse_tags(text)
    parse_signature(field, 0.0)
    parse_signature(field, 0.0, is_arc=True)
    whole = HeaderField(b"x", b"X: v=1; a=rsa-sha256; d=a.example; s=s; h=from; b=AAAA; bh=AAAA")
    signature = parse_signature(whole, 0.0)
    assert signature is not None
    parse_key(text, signature)
    parse_key(b"v=DKIM1; p=" + text, signature)
    parse_dmarc(text)
    parse_dmarc(b"v=DMARC1;" + text)
    authserv_id(text)
    author_domain(parse_signed(b"From: " + text.replace(b"\r\n", b"") + b"\r\n\r\nbody"))
    parse_signed(text)
    macros = Macros(ADDRESS, "a@b.example", "helo.example", "b.example")
    with suppress(SpfSyntaxError):
        parse_record(b"v=spf1 " + text)
    expand(text.decode("latin-1"), macros)


@given(message=HOSTILE)
async def test_no_chain_makes_arc_raise(message: bytes) -> None:
    resolver = Resolver([("127.0.0.1", 1)])
    chain = b"ARC-Seal: i=1; " + message.replace(b"\r\n\r\n", b"") + b"\r\nFrom: a@b.example\r\n\r\n"
    assert (await check_arc(parse_signed(chain), resolver, 0.0)).result is Result.FAIL


@pytest.mark.parametrize(
    ("cv", "first", "expected"),
    [(b"none", True, True), (b"pass", False, True), (b"pass", True, False), (b"none", False, False), (b"fail", False, False)],
)
def test_a_seal_says_that_all_before_it_was_whole(cv: bytes, first: bool, expected: bool) -> None:
    field = HeaderField(b"arc-seal", b"ARC-Seal: i=1; a=rsa-sha256; d=a.example; s=s; b=AAAA; cv=" + cv)
    assert (parse_seal(field, first=first) is not None) is expected


@pytest.mark.parametrize(
    ("macro", "expected"),
    [  # RFC 7208 section 7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%%%_%-", "% %20"),
        ("%{S}", "strong-bad%40email.example.com"),
    ],
)
def test_spf_macros_are_those_of_the_rfc(macro: str, expected: str) -> None:
    macros = Macros(ADDRESS, "strong-bad@email.example.com", "helo.example", "email.example.com")
    assert expand(macro, macros) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"v=DMARC1; p=reject;;", Asked.REJECT),
        (b"v=DMARC1;p=Quarantine; nonsense; rua=mailto:a@b.example", Asked.QUARANTINE),
        (b"v=DMARC1; p=reject; pct=0", Asked.QUARANTINE),
        (b"v=DMARC1; p=reject; pct=10", Asked.REJECT),
        (b"v=DMARC1; p=bogus; rua=mailto:a@b.example", Asked.NONE),
        (b"v=DMARC1; p=bogus", None),
        (b"p=reject; v=DMARC1", None),
        (b"v=DMARC2; p=reject", None),
        (b"", None),
    ],
)
def test_dmarc_records_are_read_with_their_faults(record: bytes, expected: Asked | None) -> None:
    found = parse_dmarc(record)
    assert (found.policy if found else None) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Ann <ann@Sender.example>", "sender.example"),
        (b'"ann@bank.example" <ann@sender.example>', "sender.example"),
        (b'"a@b"@sender.example', "sender.example"),
        (b"a@sender.example, b@sender.example", "sender.example"),
        (b"a@sender.example, b@other.example", None),
        (b"sender.example", None),
        (b"", None),
        (b"undisclosed:;", None),
        ("ann@bücher.example".encode(), "xn--bcher-kva.example"),
    ],
)
def test_the_author_is_who_stands_in_from(value: bytes, expected: str | None) -> None:
    assert author_domain(parse_signed(b"From: " + value + b"\r\n\r\n")) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"X: a\r\n" + b" a\r\n" * 50_000,
        b"Authentication-Results: " + b"(" * 2_000_000 + b"\r\n",
        b"Authentication-Results: (x\r\n" * 50_000,
        b"authentication-results" + b" " * 2_000_000,
        b"X: a\r\n" * 300_000,
    ],
    ids=range(5),
)
def test_a_hostile_header_costs_no_more_than_its_octets(header: bytes) -> None:
    """Quadratic work on any of these runs into the time-out of the test."""
    without_forged(header + b"\r\nbody", frozenset({"mx.example"}))
    parse_signed(header + b"\r\nbody")
    canonical = canonical_body(memoryview(b" " * 2_000_000 + b"x\r\n"), is_relaxed=True)
    assert b"".join(canonical) == b" x\r\n"
