"""Regular expressions that administrators write: what compiles, and what is said of what does not."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from postern_core.expressions import Complaint, compile_expressions, complaint_about


def asked(*expressions: str) -> Complaint:
    """As the api asks: of the program."""
    command = [sys.executable, "-m", "postern_core.expressions"]
    answer = subprocess.run(command, input=msgspec.json.encode(expressions), stdout=subprocess.PIPE, check=True, timeout=60)
    return msgspec.json.decode(answer.stdout, type=Complaint)


def test_what_compiles_is_not_complained_of() -> None:
    assert asked() == Complaint()
    assert asked(r"\bv[i1]agra\b", "^from: .*bulk", "straße|über", r"\p{Cyrillic}{5}", "(a{1,500}){1,50}b") == Complaint()


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(", "Missing close parenthesis"),
        (r"(a)\1", "Back-references"),
        ("(?=a)b", "Zero-width"),
        ("a*", "empty buffer"),
        ("[b-a]", "range"),
        ("a{9,1}", ""),
    ],
)
def test_the_first_that_does_not_is_named(expression: str, why: str) -> None:
    complaint = asked("well", expression, "(")
    assert complaint.index == 1
    assert why.lower() in complaint.error.lower()
    with pytest.raises(ValueError, match=r"\w"):
        compile_expressions([expression])


def test_all_of_them_together_may_be_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postern_core.expressions.MAX_DATABASE_BYTES", 1000)
    assert "together" in complaint_about(["abc", "def+"]).error
