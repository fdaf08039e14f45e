"""Writes the table of file types in docs/reference/screening.md. Run as `python -m reference.file_types_page`, in `tests`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postern_core.policy.file_types import FILE_TYPES, Family

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "screening.md"
_BEGIN: Final = "<!-- file types -->\n"
_END: Final = "<!-- /file types -->"


def table() -> str:
    """The table: a row for each family."""
    rows = ["| family | types |", "| --- | --- |"]
    for family in Family:
        names = [
            f"`{one.name}`" + (f" ({one.within})" if one.within else "") for one in FILE_TYPES.values() if one.family is family
        ]
        rows.append(f"| `{family.value}` | {', '.join(names)} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with the table of now."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


def write() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
