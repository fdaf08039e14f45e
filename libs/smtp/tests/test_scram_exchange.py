"""SCRAM-SHA-256 and EXTERNAL in the AUTH exchange, against a client that was written apart from it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.scram_client import ScramClient
from postern_core.errors import Reply
from postern_core.scram import Verifier, verifier_of
from postern_smtp import replies
from postern_smtp.authentication import Certified, Exchange, Proof, Step, VerifierWanted
from postern_smtp.gate import Login

OFFERED = ("PLAIN", "SCRAM-SHA-256", "EXTERNAL")
VERIFIER = verifier_of("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4096)
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def said(step: Step) -> bytes:
    """What the server says in a challenge."""
    assert isinstance(step, Reply)
    assert step.code == 334
    return base64.b64decode(step.text)


def begun(first: bytes, *, initial: bool = True) -> tuple[Exchange, Step]:
    exchange = Exchange("SCRAM-SHA-256", OFFERED, lambda: NONCE)
    if initial:
        return exchange, exchange.start(b64(first))
    assert said(exchange.start(None)) == b""
    return exchange, exchange.answer(b64(first).encode())


@pytest.mark.parametrize("initial", [True, False])
def test_the_exchange_of_rfc_7677(initial: bool) -> None:
    exchange, step = begun(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", initial=initial)
    assert step == VerifierWanted("user")
    assert said(exchange.resume(VERIFIER)) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert exchange.answer(b64(final).encode()) == Proof("user", is_right=True)
    assert said(exchange.resume(Login("user"))) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert exchange.answer(b"") is replies.AUTHENTICATED
    assert exchange.login == Login("user")


@pytest.mark.parametrize("gs2", ["n,,", "y,,", "n,a=a=2Cb=3Dc,"])
def test_every_header_without_channel_binding_and_a_name_with_escapes(gs2: str) -> None:
    client = ScramClient("a,b=c", "pencil", gs2=gs2)
    exchange, step = begun(client.first())
    assert step == VerifierWanted("a,b=c")
    assert exchange.answer(b64(client.final(said(exchange.resume(VERIFIER)))).encode()) == Proof("a,b=c", is_right=True)
    assert client.accepts(said(exchange.resume(Login("Somebody"))))
    assert exchange.answer(b"") is replies.AUTHENTICATED


def test_a_wrong_password_proves_nothing() -> None:
    client = ScramClient("user", "pen")
    exchange, _ = begun(client.first())
    assert exchange.answer(b64(client.final(said(exchange.resume(VERIFIER)))).encode()) == Proof("user", is_right=False)
    assert exchange.resume(replies.BAD_CREDENTIALS) is replies.BAD_CREDENTIALS
    assert exchange.login is None


def test_names_are_prepared() -> None:
    assert begun("n,,n=ju\u0308rgen,r=x".encode())[1] == VerifierWanted("j\u00fcrgen")


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", replies.BAD_BASE64),
        (b"n,,", replies.BAD_BASE64),
        (b"n,,r=x,n=user", replies.BAD_BASE64),
        (b"n,,n=user", replies.BAD_BASE64),
        (b"n,,n=,r=x", replies.BAD_BASE64),
        (b"n,,n=user,r=", replies.BAD_BASE64),
        (b"n,,n=user,r=\xc3\xa4", replies.BAD_BASE64),
        (b"n,,n=us\0er,r=x", replies.BAD_BASE64),
        (b"n,,n=us\xffer,r=x", replies.BAD_BASE64),
        (b"x,,n=user,r=x", replies.BAD_BASE64),
        (b"n,,n=user,r=x,junk", replies.BAD_BASE64),
        (b"p=tls-exporter,,n=user,r=x", replies.BAD_CREDENTIALS),
        (b"n,,m=new,n=user,r=x", replies.BAD_CREDENTIALS),
        (b"n,a=other,n=user,r=x", replies.BAD_CREDENTIALS),
        (b"n,,n=us=er,r=x", replies.BAD_CREDENTIALS),
        (b"n,,n=us=2cer,r=x", replies.BAD_CREDENTIALS),
        (b"n,,n=us\x07er,r=x", replies.BAD_CREDENTIALS),
        (b"n,,n=" + b"u" * 256 + b",r=x", replies.BAD_CREDENTIALS),
    ],
)
def test_a_first_message_that_is_wrong_is_refused(first: bytes, expected: Reply) -> None:
    assert begun(first)[1] is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b"c=biws", b"c=eSws", replies.BAD_CREDENTIALS),  # "y,,": what was said of channel binding was changed on the way
        (b"c=biws", b"c=biw", replies.BAD_BASE64),
        (b"r=abc", b"r=abd", replies.BAD_CREDENTIALS),
        (NONCE.encode(), b"", replies.BAD_CREDENTIALS),
        (NONCE.encode(), NONCE.encode() + b"x", replies.BAD_CREDENTIALS),
        (b",p=", b",q=", replies.BAD_BASE64),
        (b",p=", b",p=!", replies.BAD_BASE64),
        (b",p=", b",p=\xff", replies.BAD_BASE64),
    ],
)
def test_a_final_message_that_is_wrong_is_refused(before: bytes, after: bytes, expected: Reply) -> None:
    client = ScramClient("user", "pencil", nonce="abc")
    exchange, _ = begun(client.first())
    final = client.final(said(exchange.resume(VERIFIER)))
    assert before in final
    assert exchange.answer(b64(final.replace(before, after)).encode()) is expected
    assert exchange.login is None


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize(("line", "expected"), [(b"*", replies.AUTH_CANCELLED), (b"%%", replies.BAD_BASE64)])
def test_it_can_be_cancelled_and_broken_at_every_step(steps: int, line: bytes, expected: Reply) -> None:
    client = ScramClient("user", "pencil")
    exchange = Exchange("SCRAM-SHA-256", OFFERED)
    step: Step = exchange.start(None)
    if steps > 0:
        step = exchange.answer(b64(client.first()).encode())
    if steps > 1:
        step = exchange.resume(VERIFIER)
    if steps > 2:
        exchange.answer(b64(client.final(said(step))).encode())
        exchange.resume(Login("user"))
    assert exchange.answer(line) is expected


def test_the_last_answer_is_empty() -> None:
    client = ScramClient("user", "pencil")
    exchange, _ = begun(client.first())
    exchange.answer(b64(client.final(said(exchange.resume(VERIFIER)))).encode())
    exchange.resume(Login("user"))
    assert exchange.answer(b64(b"more").encode()) is replies.BAD_BASE64


def test_no_two_exchanges_have_the_same_nonce() -> None:
    nonces = set()
    for _ in range(50):
        exchange = Exchange("SCRAM-SHA-256", OFFERED)
        exchange.start(b64(b"n,,n=user,r=x"))
        nonces.add(said(exchange.resume(VERIFIER)).split(b",")[0])
    assert len(nonces) == 50


@pytest.mark.parametrize(("initial", "user"), [("=", ""), (b64(b"bob"), "bob"), (b64("j\u00f6".encode()), "j\u00f6")])
def test_external_with_and_without_a_name(initial: str, user: str) -> None:
    exchange = Exchange("EXTERNAL", OFFERED)
    assert exchange.start(initial) == Certified(user)
    assert exchange.resume(Login("Bob")) is replies.AUTHENTICATED
    assert exchange.login == Login("Bob")
    waiting = Exchange("EXTERNAL", OFFERED)
    assert said(waiting.start(None)) == b""
    assert waiting.answer(b"" if initial == "=" else initial.encode()) == Certified(user)


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        ("*", replies.BAD_BASE64),
        (b64(b"a\0b"), replies.BAD_CREDENTIALS),
        (b64(b"\xff"), replies.BAD_CREDENTIALS),
        (b64(b"a" * 256), replies.BAD_CREDENTIALS),
    ],
)
def test_external_with_something_else_is_refused(initial: str, expected: Reply) -> None:
    assert Exchange("EXTERNAL", OFFERED).start(initial) is expected


@pytest.mark.parametrize("mechanism", ["LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"])
def test_what_is_not_offered_is_refused(mechanism: str) -> None:
    assert Exchange(mechanism, OFFERED).start(None) is replies.UNKNOWN_MECHANISM


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"n,,n=user,r=x", b"c=biws,r=x,p=AA=="])), min_size=4, max_size=4)
)
def test_any_answer_leads_to_an_end_and_none_but_a_proof_to_a_login(answers: list[bytes]) -> None:
    exchange = Exchange("SCRAM-SHA-256", OFFERED)
    step = exchange.start(None)
    for answer in answers:
        if isinstance(step, VerifierWanted):
            step = exchange.resume(Verifier(b"s" * 16, 4096, b"k" * 32, b"k" * 32))
        if isinstance(step, Proof):
            assert not step.is_right
            step = exchange.resume(replies.BAD_CREDENTIALS)
        if isinstance(step, Reply) and step.code != 334:
            break
        step = exchange.answer(b64(answer).encode())
    assert exchange.login is None
