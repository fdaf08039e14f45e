"""SASLprep (RFC 4013): names and passwords in the one form in which they are compared, whatever keyboard they came from. Pure.

Known gap: Unicode 3.2, as the RFC asks for. What was assigned later (emoji among them) is taken as it is, also where strings are stored:
section 2.5 would refuse it there, and with it the password that somebody chose.
"""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

_PROHIBITED: Final = (  # section 2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """`text` prepared. ValueError when it holds what is prohibited, mixes directions, or nothing of it is left."""
    if text.isascii() and text.isprintable() and text:
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c  # section 2.1
        for c in text
        if not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # section 2.2
    if not prepared:
        raise ValueError("nothing is left of it")
    if any(table(c) for c in prepared for table in _PROHIBITED):
        raise ValueError("it holds a character that is prohibited")
    # section 2.4, RFC 3454 section 6
    if any(map(stringprep.in_table_d1, prepared)):
        if any(map(stringprep.in_table_d2, prepared)):
            raise ValueError("it mixes directions of writing")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError("text from right to left has to begin and end so")
    return prepared
