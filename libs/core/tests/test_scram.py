"""SCRAM-SHA-256: what is kept of a password, against the vector of RFC 7677 section 3 and RFC 4013's examples."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.saslprep import saslprep
from postern_core.scram import ITERATIONS, MIN_ITERATIONS, SALT_OCTETS, Verifier, decoy, parse_verifier, verifier_of

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
AUTH_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


def test_the_vector_of_rfc_7677() -> None:
    verifier = verifier_of("pencil", salt=SALT, iterations=4096)
    assert verifier.proves(PROOF, AUTH_MESSAGE)
    assert base64.b64encode(verifier.signature(AUTH_MESSAGE)) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert not verifier.proves(PROOF, AUTH_MESSAGE + b"x")
    assert not verifier.proves(PROOF[:-1], AUTH_MESSAGE)
    assert not verifier_of("pencils", salt=SALT, iterations=4096).proves(PROOF, AUTH_MESSAGE)


def test_what_is_kept_says_no_password_and_no_key_when_it_is_shown() -> None:
    verifier = verifier_of("pencil", iterations=MIN_ITERATIONS)
    assert repr(verifier) == f"Verifier(salt={verifier.salt!r}, iterations=4096)"


@given(st.binary(min_size=1, max_size=64), st.integers(MIN_ITERATIONS, 10**8), st.binary(min_size=32, max_size=32))
def test_a_verifier_written_and_read_is_the_same(salt: bytes, iterations: int, key: bytes) -> None:
    verifier = Verifier(salt, iterations, key, key[::-1])
    assert parse_verifier(verifier.text()) == verifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-1$4096:AA==$AA==:AA==",
        "SCRAM-SHA-256$4096:AA==$AA==:AA==",  # keys of one octet
        "SCRAM-SHA-256$x:AA==$AA==:AA==",
        "SCRAM-SHA-256$4096:A$AA==:AA==",
        verifier_of("pencil", salt=SALT, iterations=4095).text(),
        verifier_of("pencil", salt=SALT, iterations=4096).text() + "\n",
    ],
)
def test_anything_else_is_no_verifier(text: str) -> None:
    with pytest.raises(ValueError, match="no SCRAM-SHA-256 verifier"):
        parse_verifier(text)


def test_a_decoy_is_like_a_user_and_nothing_proves_anything_to_it() -> None:
    secret = b"s" * 32
    real, first, again = verifier_of("pencil"), decoy(secret, "Nobody"), decoy(secret, "nobody")
    assert (first.salt, first.iterations) == (again.salt, again.iterations)
    assert first.salt != decoy(secret, "somebody").salt != decoy(b"t" * 32, "somebody").salt
    assert (len(real.salt), real.iterations) == (len(first.salt), first.iterations) == (SALT_OCTETS, ITERATIONS)
    assert not first.proves(PROOF, AUTH_MESSAGE)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("user", "user"),
        ("USER", "USER"),
        ("I\u00adX", "IX"),  # RFC 4013 section 3, as the next two
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("wo\u0308rd", "w\u00f6rd"),
        ("\U0001f511", "\U0001f511"),  # later than Unicode 3.2: see the module
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
    ],
)
def test_prepared_text(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["", "\u00ad", "\u0007", "a\tb", "\u0627\u0031", "\u0627a\u0628", "\ue000", "\ufffd"])
def test_text_that_cannot_be_prepared(text: str) -> None:
    with pytest.raises(ValueError):
        saslprep(text)


@given(st.text(max_size=20))
def test_prepared_text_stays_as_it_is(text: str) -> None:
    try:
        prepared = saslprep(text)
    except ValueError:
        return
    assert saslprep(prepared) == prepared
