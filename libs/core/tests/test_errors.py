"""Replies and the two kinds of mail error: a contradiction cannot be built."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.errors import MailError, PermanentError, Reply, TransientError

codes = st.integers(-10, 700)
statuses = st.builds(lambda a, b, c: f"{a}.{b}.{c}", st.integers(0, 9), st.integers(0, 9999), st.integers(0, 9999)) | st.text(
    max_size=8
)
CLASSES: dict[type[MailError], int] = {TransientError: 4, PermanentError: 5}


@given(codes, statuses)
def test_a_reply_exists_only_where_code_and_enhanced_status_agree(code: int, status: str) -> None:
    try:
        reply = Reply(code, status, "text")
    except ValueError:
        return
    assert 200 <= reply.code <= 599
    if status:
        digits = status.split(".")
        assert len(digits) == 3
        assert all(part.isascii() and part.isdigit() and len(part) <= 3 for part in digits)
        assert digits[0] == str(code)[0]
        assert digits[0] in "245"


@given(st.sampled_from(sorted(CLASSES, key=str)), codes, statuses)
def test_an_error_exists_only_where_its_class_agrees_with_its_code(kind: type[MailError], code: int, status: str) -> None:
    try:
        error = kind(code, status, "text")
    except ValueError:
        return
    assert error.reply.code // 100 == CLASSES[kind]


@given(st.sampled_from([(451, "4.3.0"), (452, "4.3.1"), (550, "5.7.1"), (250, "2.0.0"), (354, ""), (220, "")]))
def test_what_agrees_can_be_built(fits: tuple[int, str]) -> None:
    assert str(Reply(*fits, "text")).startswith(str(fits[0]))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (451, "5.3.0"),
        (550, "4.7.1"),
        (250, "4.0.0"),
        (354, "3.0.0"),
        (451, "4.3"),
        (451, "4.3.0 "),
        (451, "4.٣.0"),
        (451, "4.1000.0"),
        (199, ""),
        (600, ""),
    ],
)
def test_a_contradiction_is_refused(code: int, status: str) -> None:
    with pytest.raises(ValueError, match="reply code"):
        Reply(code, status, "text")


@pytest.mark.parametrize("text", ["two\r\nlines", "bell \a", "grüße", "nul \0", "tab\t", "del \x7f"])
def test_a_text_that_is_no_line_of_printable_ascii_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Reply(250, "2.0.0", text)


@given(st.integers(200, 599), st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_reply_is_one_line_on_the_wire(code: int, text: str) -> None:
    line = Reply(code, "", text).line()
    assert line == f"{code} {text}\r\n".encode("ascii")
    assert line.count(b"\r") == line.count(b"\n") == 1


@pytest.mark.parametrize("kind", [TransientError, PermanentError])
def test_the_base_and_the_other_class_cannot_carry_a_code(kind: type[MailError]) -> None:
    other = {TransientError: 550, PermanentError: 451}[kind]
    with pytest.raises(ValueError, match=f"{kind.__name__} cannot carry"):
        kind(other, "", "text")
    with pytest.raises(ValueError, match="MailError cannot carry"):
        MailError(451, "4.3.0", "text")


def test_the_reason_is_for_the_log_and_not_in_the_reply() -> None:
    error = TransientError(451, "4.3.0", "try again later", reason="stream INTAKE on host nats-2 is away")
    assert str(error.reply) == "451 4.3.0 try again later"
    assert b"nats-2" not in error.reply.line()
    assert error.reason == "stream INTAKE on host nats-2 is away"
    assert TransientError(451, "4.3.0", "try again later").reason == "try again later"
