"""The AUTH exchange."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.authentication import Credentials, Exchange


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def run(mechanism: str, initial: str | None, *answers: str) -> Reply | Credentials:
    exchange = Exchange(mechanism)
    step = exchange.start(initial)
    for answer in answers:
        assert isinstance(step, Reply)
        assert step.code == 334
        step = exchange.answer(answer.encode())
    return step


@pytest.mark.parametrize("name", ["user", "user@example.com", "jürgen"])
def test_every_form_of_the_exchange(name: str) -> None:
    expected = Credentials(name, "pass wörd")
    encoded, password = b64(name.encode()), b64("pass wörd".encode())
    plain = b64(f"\0{name}\0pass wörd".encode())
    assert run("PLAIN", plain) == expected
    assert run("PLAIN", None, plain) == expected
    assert run("PLAIN", b64(f"{name}\0{name}\0pass wörd".encode())) == expected
    assert run("LOGIN", None, encoded, password) == expected
    assert run("LOGIN", encoded, password) == expected


@pytest.mark.parametrize(
    ("mechanism", "initial", "answers", "expected"),
    [
        ("CRAM-MD5", None, [], replies.UNKNOWN_MECHANISM),
        ("PLAIN", None, ["*"], replies.AUTH_CANCELLED),
        ("LOGIN", None, ["*"], replies.AUTH_CANCELLED),
        ("LOGIN", None, [b64(b"u"), "*"], replies.AUTH_CANCELLED),
        ("PLAIN", "no base64!", [], replies.BAD_BASE64),
        ("PLAIN", "AGE=AYg==", [], replies.BAD_BASE64),
        ("PLAIN", "=", [], replies.BAD_BASE64),
        ("PLAIN", b64(b"\0user"), [], replies.BAD_BASE64),
        ("PLAIN", b64(b"\0a\0b\0c"), [], replies.BAD_BASE64),
        ("PLAIN", b64(b"other\0user\0pass"), [], replies.BAD_CREDENTIALS),
        ("PLAIN", b64(b"\0\0pass"), [], replies.BAD_CREDENTIALS),
        ("PLAIN", b64(b"\0\xff\0pass"), [], replies.BAD_CREDENTIALS),
        ("PLAIN", b64(b"\0user\0" + b"x" * 2000), [], replies.BAD_CREDENTIALS),
        ("LOGIN", None, [b64(b"u\0v"), b64(b"p")], replies.BAD_CREDENTIALS),
        ("LOGIN", "=", [b64(b"p")], replies.BAD_CREDENTIALS),
    ],
)
def test_what_is_wrong_is_refused(mechanism: str, initial: str | None, answers: list[str], expected: Reply) -> None:
    assert run(mechanism, initial, *answers) is expected


def test_a_password_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Credentials("user", "secret"))


@given(st.sampled_from(["PLAIN", "LOGIN"]), st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_any_answer_leads_to_an_end(mechanism: str, answers: list[bytes]) -> None:
    exchange = Exchange(mechanism)
    step = exchange.start(None)
    for answer in answers:
        if isinstance(step, Credentials) or step.code != 334:
            return
        step = exchange.answer(answer)
    assert isinstance(step, Credentials) or step.code != 334
