"""The reference says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from postern_core.policy.languages import LANGUAGES
from reference import file_types_page
from reference.settings_page import PAGE, page

ROOT = Path(__file__).parents[2]
NAMED_TEST = re.compile(r"`(test_\w+)::(test_\w+)`")
A_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_the_settings_page_is_the_one_that_the_code_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_table_of_file_types_is_the_one_of_the_code() -> None:
    text = file_types_page.PAGE.read_text(encoding="utf-8")
    assert text == file_types_page.page(text), "run `make docs`"


def test_every_test_that_the_coverage_page_names_exists() -> None:
    named = set(NAMED_TEST.findall((ROOT / "docs" / "reference" / "coverage.md").read_text(encoding="utf-8")))
    files = [file for part in ("libs", "services", "tests") for file in (ROOT / part).rglob("test_*.py")]
    there = {(file.stem, name) for file in files for name in A_TEST.findall(file.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert sorted(named - there) == []


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        ROOT / ".ci" / "README.md",
    ]
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_language_that_can_be_told_is_on_the_page() -> None:
    text = file_types_page.PAGE.read_text(encoding="utf-8")
    listed = text.partition("<!-- languages -->")[2].partition("<!-- /languages -->")[0]
    assert listed == ", ".join(f"`{code}` {name}" for code, name in LANGUAGES.items())
