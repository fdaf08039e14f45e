"""File names as they are compared, in mail and in rules: what hides an extension is removed. The api refuses by this what the screener could not use. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from postern_core.policy.conditions import AttachmentMatch
from postern_core.unicode_forms import caseless

_NOT_IN_FILE_NAMES: Final = str.maketrans("", "", '"<>|?*')  # Windows takes none of them: clients leave them out


def normalise_name(name: str) -> str:
    """`name` as it is compared: without directories, controls, direction marks, an NTFS stream and trailing dots and blanks; caseless.

    What Windows would store it under (`a.exe.` and `a.exe::$DATA` are a.exe), full-width forms taken as plain ones.
    """
    return compared_names(name)[0]


def compared_names(name: str) -> tuple[str, ...]:
    """`normalise_name`, and after it what else the file may be called where a colon stands in the name: some clients write what is
    behind it (`x:a.exe`), others put another character in its place."""
    text = caseless(name)
    if not (text.isascii() and text.isprintable()):
        # categories C*: controls, format (U+202E among them), surrogates, private use, unassigned
        text = "".join(character for character in text if unicodedata.category(character)[0] != "C")
    text = re.split(r"[/\\]", text.rstrip("/\\. "))[-1].translate(_NOT_IN_FILE_NAMES)
    pieces = [piece for piece in text.split(":") if piece] if ":" in text else [text]
    return tuple(_trim(piece) for piece in pieces) or ("",)


def _trim(name: str) -> str:
    return name.strip().strip("'").rstrip(". '")


def compared_value(match: AttachmentMatch, value: str) -> str:
    """A value of a rule about names in the form in which it is compared. ValueError for one of which nothing is left: it could match no file."""
    if match is AttachmentMatch.WILDCARD:
        # the stretches between stars and question marks in one form of letters
        compared = "".join(piece if piece in ("*", "?") else caseless(piece) for piece in re.split(r"([*?])", value))
    else:
        compared = normalise_name(value)
        if match is not AttachmentMatch.NAME:
            compared = compared.removeprefix("*").lstrip(".")
    if not compared.strip("."):
        raise ValueError(f"{value!r} is no file {match.value}: nothing that a file is called by is in it")
    return compared
