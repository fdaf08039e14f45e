"""Names: every one that a client might show, and what hides an extension does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.file_names import compared_names, normalise_name
from postern_screener.filenames import candidate_names, extensions, parameter


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("attachment; filename=a.exe", ["a.exe"]),
        ('attachment; filename="a b.exe"', ["a b.exe"]),
        ("attachment; filename=a b.exe", ["a b.exe"]),
        ('attachment; filename="a;b.exe"; size=3', ["a;b.exe"]),
        ('attachment; filename="a\\"b.exe"', ['a"b.exe']),
        ('attachment; filename="C:\\temp\\a.exe"', ["C:\\temp\\a.exe", "C:tempa.exe"]),
        ("attachment; FILENAME = a.exe", ["a.exe"]),
        ("attachment; filename=a.txt; filename=b.exe", ["a.txt", "b.exe"]),
        ("attachment; filename*=utf-8'en'a%2Eexe; filename=b.txt", ["b.txt", "a.exe"]),
        ("attachment; filename*=iso-8859-1''caf%E9.exe", ["café.exe"]),
        ("attachment; filename*=unknown-charset''a%2Eexe", ["a.exe"]),
        ("attachment; filename*=a%2Eexe", ["a.exe"]),
        ("attachment; filename*1=xe; filename*0=a.e", ["a.exe"]),
        ("attachment; filename*0*=utf-8''a%20; filename*1=b.exe", ["a b.exe"]),
        ("attachment; filename*0*=utf-8''a; filename*1=%41.exe", ["a%41.exe"]),
        ("attachment; filename*0=a.exe; filename=b.txt", ["b.txt", "a.exe"]),
        ("application/octet-stream; file=a.exe", ["a.exe"]),
        ('attachment; filename="a";b.exe"', ["a", "a;b.exe"]),
        ("attachment filename=a.exe", ["a.exe"]),
        ("filename=a.exe", ["a.exe"]),
        ("attachment; filename:a.exe", ["a.exe"]),
        ("attachment; (c) filename=a.exe", ["a.exe"]),
        ("attachment; filename (c) = a.exe", ["a.exe"]),
        ('attachment; filename="a.e\\xe"', ["a.e\\xe", "a.exe"]),
        ("attachment; filename==?utf-8?b?YS5leGU=?=", ["=?utf-8?b?YS5leGU=?=", "a.exe"]),
        ("attachment; filename*=utf-8''=?utf-8?q?a.e=78e?=", ["=?utf-8?q?a.e=78e?=", "a.exe"]),
        ("attachment", []),
        ('attachment; filename=""', []),
    ],
)
def test_every_name_is_collected(field: str, names: list[str]) -> None:
    assert candidate_names([field]) == names


def test_names_of_both_fields_are_collected() -> None:
    assert candidate_names(["attachment; filename=a.txt", "x/y; name=b.exe"]) == ["a.txt", "b.exe"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.exe", ["exe"]),
        ("A.EXE", ["exe"]),
        ("a.exe. . ", ["exe"]),
        ("a.pdf                .exe", ["exe", "pdf"]),
        ("a.exe.txt", ["txt", "exe"]),
        ("a.exe::$DATA", ["exe"]),
        ("a.e\x00xe", ["exe"]),
        ("a\u202efdp.exe", ["exe"]),
        ("a．exe", ["exe"]),
        ("a.ｅｘｅ", ["exe"]),
        ("..\\dir.d/a.exe", ["exe"]),
        ("a.e\u200bxe", ["exe"]),
        ("dir/a.exe/", ["exe"]),
        ('a.exe"', ["exe"]),
        ("<a.exe>", ["exe"]),
        ("a.exe?", ["exe"]),
        ("'a.exe'", ["exe"]),
        (".exe", ["exe"]),
        ("exe", []),
        ("a.tar.gz", ["gz", "tar"]),
    ],
)
def test_extensions_are_those_that_the_file_would_have(name: str, found: list[str]) -> None:
    assert extensions(normalise_name(name)) == found


@given(st.text())
def test_normalising_a_name_twice_changes_nothing_more(name: str) -> None:
    once = normalise_name(name)
    assert normalise_name(once).rstrip(". ") == once or ":" in once or "/" in once or "\\" in once


@given(st.text(max_size=300))
def test_any_field_value_is_read(value: str) -> None:
    candidate_names([value, "attachment; filename" + value])
    parameter("text/plain;" + value, "charset")


def test_a_parameter_is_found_in_either_form() -> None:
    assert parameter('text/plain; CharSet="utf-8"', "charset") == "utf-8"
    assert parameter("text/plain; charset*=us-ascii''utf-8", "charset") == "utf-8"
    assert parameter("text/plain", "charset") == ""


@pytest.mark.parametrize("name", ["x:a.exe", "report: a.exe", "a.exe:x.txt", "C:a.exe", "a.exe::$DATA", "x\uff1aa.exe"])
def test_no_side_of_a_colon_hides_an_extension(name: str) -> None:
    assert "exe" in {extension for compared in compared_names(name) for extension in extensions(compared)}


@pytest.mark.parametrize(
    "unit", ["\u0315\u0300", "name=", "name(", 'name="', ";", '"', "\\", "=?", "=?a?q?", "=?a?q?b?=", ":", "name "]
)
def test_hostile_fields_take_linear_time(unit: str) -> None:
    names = candidate_names(["attachment; filename=" + unit * 100_000])  # the test's time-out is the assertion
    for name in names:
        compared_names(name)
