"""One Unicode form for everything that is compared: NFKC and case folding (Unicode section 5.18.4, UAX 15), in time linear in the text.

The standard library sorts combining marks by insertion: 100 KB of nothing but marks would keep it busy for a minute. So a text is
normalised piece by piece. Pieces end before a character that combines with nothing in front of it; a text without any such character
for `_PIECE` characters (marks piled on marks, as UAX 15 section 13 forbids) is cut where it is.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_PIECE: Final = 512
# beginnings of ASCII, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Kana, Han and Hangul: cutting there separates no composition
_STARTERS: Final = (
    "\t-~\u0370-\u0482\u05d0-\u05ea\u0621-\u064a\u0904-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\uac00-\ud7a3"
)
_PIECES: Final = re.compile(rf".{{1,{_PIECE}}}(?=[{_STARTERS}]|\Z)|.{{1,{_PIECE}}}", re.DOTALL)
# soft hyphens, fillers, zero-width characters, direction marks, variation selectors, tags: a reader reads across them
UNSEEN: Final = re.compile(
    "[\u0080-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffd"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)


def compatible(text: str) -> str:
    """`text` in form NFKC: full-width forms, ligatures and decomposed letters become plain ones."""
    if len(text) <= _PIECE:
        return unicodedata.normalize("NFKC", text)
    return "".join([unicodedata.normalize("NFKC", piece) for piece in _PIECES.findall(text)])


def caseless(text: str) -> str:
    """`text` in form NFKC and folded to one case."""
    return compatible(compatible(text).casefold())
