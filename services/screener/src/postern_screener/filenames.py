"""File names of a part: every name that some mail client might show (RFC 2183, RFC 2231, RFC 2047 in parameters).

Names are collected, not chosen: a rule matches when any of them does. In which form they are compared: `postern_core.file_names`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from postern_screener.charsets import decode_text
from postern_screener.encoded_words import decode_leniently

_VALUE: Final = r"""("(?:[^"\\]|\\.)*+"?|[^;]*+)"""
_PARAMETER: Final = re.compile(r""";\s*+([^=;\s"]++)\s*+=\s*+""" + _VALUE, re.DOTALL)
# where the semicolon is missing, a comment stands around the name or a colon in place of the equals sign, some clients still see a name
_LOOSE_NAME: Final = re.compile(r"""name\s*+(?:\([^()]*+\)\s*+)?+[=:]\s*+""" + _VALUE, re.DOTALL | re.IGNORECASE)
USUAL: Final = 64  # characters: most mail has the same few of such fields, and they are read once
_COMMENT: Final = re.compile(r"\([^()]*\)")
_LOOSE_CHARSET: Final = re.compile(r"""charset\s*+[=:]\s*+["']?([^\s;"'(),]++)""", re.IGNORECASE)
_NAMES: Final = frozenset({"filename", "name", "file"})
_MAX_SECTIONS: Final = 1000


def parameters(field_value: str) -> list[tuple[str, str]]:
    """The parameters of a structured MIME field in order, names in lower case, quotes removed; repeated ones are all there."""
    found = []
    for name, value in _PARAMETER.findall(field_value):
        found.append((name.lower(), _unquote(value) if value.startswith('"') else value.strip()))
    return found


def _unquote(value: str) -> str:
    # only these two escapes: clients show the backslashes of C:\temp\a.exe
    return value[1:].removesuffix('"').replace('\\"', '"').replace("\\\\", "\\")


def parameter(field_value: str, name: str) -> str:
    """The first value of a parameter in either form (RFC 2231), "" when there is none."""
    if ";" not in field_value:
        return ""
    values = [value for found, value in parameters(field_value) if found == name]
    if values:
        return values[0]
    return next(iter(_extended(parameters(field_value), frozenset({name}))), "")


def charset_of(content_type: str) -> str:
    """The charset that a Content-Type field names, "" when it names none: also behind a comment, and where the semicolon is missing."""
    return _usual_charset_of(content_type) if len(content_type) <= USUAL else _charset_of(content_type)


def _charset_of(content_type: str) -> str:
    found = parameter(content_type, "charset")
    if (found and "(" not in content_type) or "charset" not in content_type.lower():
        return found
    plain = _COMMENT.sub(" ", content_type)
    return parameter(plain, "charset") or next(iter(_LOOSE_CHARSET.findall(plain)), "") or found


_usual_charset_of: Final = functools.lru_cache(maxsize=1024)(_charset_of)


def charsets_in(content_type: str) -> set[str]:
    """Every charset that somebody might find in a Content-Type field."""
    return {each.lower() for each in (charset_of(content_type), *_LOOSE_CHARSET.findall(content_type)) if each} | {
        value.lower() for name, value in parameters(content_type) if name == "charset" and value
    }


def candidate_names(fields: Iterable[str]) -> list[str]:
    """All names that the given Content-Disposition and Content-Type fields give, in the order of appearance, without repetition."""
    names: list[str] = []
    for field in fields:
        found = parameters(field) if ";" in field else []
        names += [value for name, value in found if name in _NAMES]
        names += _extended(found, _NAMES)
        for written in _LOOSE_NAME.findall(field):
            names.append(_unquote(written) if written.startswith('"') else written.strip())
            if written.startswith('"') and "\\" in written:
                names.append(re.sub(r"\\(.)", r"\1", written[1:].removesuffix('"'), flags=re.DOTALL))  # RFC 5322 section 3.2.4
        if (field.count('"') - field.count('\\"')) % 2:
            # a quote too many: where the value ends is anybody's guess, so the rest of the field is a name as well
            start = re.search(r"name\*?\s*=", field, re.IGNORECASE)
            if start:
                names.append(field[start.end() :].replace('"', ""))
        if "(" in field:
            names += [value for name, value in parameters(_COMMENT.sub(" ", field)) if name in _NAMES]
    names += [decode_leniently(name) for name in names if "=?" in name]
    return [name for name in dict.fromkeys(names) if name]


def _extended(found: list[tuple[str, str]], wanted: frozenset[str]) -> list[str]:
    """Values in the forms of RFC 2231: `name*=charset'language'value`, and sections `name*0`, `name*1*` in any order."""
    names: list[str] = []
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, value in found:
        base, star, rest = name.partition("*")
        if not star or base not in wanted:
            continue
        if not rest:
            names.append(_decode_extended(value))
        else:
            number, encoded = rest.removesuffix("*"), rest.endswith("*")
            if number.isascii() and number.isdigit() and len(number) < 5:
                sections.setdefault(base, {}).setdefault(int(number), (value, encoded))
    for pieces in sections.values():
        ordered = [pieces[number] for number in sorted(pieces)[:_MAX_SECTIONS]]
        # a piece that is not encoded may hold a per cent sign of its own (RFC 2231 section 4.1)
        joined = "".join(value if encoded else value.replace("%", "%25") for value, encoded in ordered)
        if any(encoded for _, encoded in ordered):
            names.append(_decode_extended(joined))
        else:
            names.append("".join(value for value, _ in ordered))
    return names


def _decode_extended(value: str) -> str:
    charset, quote, rest = value.partition("'")
    language, second, text = rest.partition("'")
    if not quote or not second or len(language) > 40:
        charset, text = "utf-8", value
    return decode_text(unquote_to_bytes(text), charset)


def extensions(normalised: str) -> list[str]:
    """Every extension of a normalised name, inner ones too, the last first: `a.pdf  .exe` has exe and pdf."""
    return [piece for piece in (piece.strip() for piece in normalised.split(".")[:0:-1]) if piece]
