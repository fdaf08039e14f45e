"""Transfer encodings and charsets, read as generously as mail clients read them (RFC 2045 section 6, RFC 2046 section 4.1.2).

Whatever is damaged is decoded as far as it goes, never refused: a client would show it too.
"""

from __future__ import annotations

import binascii
import codecs
import encodings
import functools
import pkgutil
import re
from collections.abc import Iterator
from encodings.aliases import aliases
from itertools import islice
from typing import Final

from postern_screener.charset_names import codec_of_label

_BASE64_JUNK: Final = re.compile(rb"[^A-Za-z0-9+/=]+")
_USUAL_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "base64", "quoted-printable"})  # as nearly everybody writes them
_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/]{2,}+")  # a character alone is less than an octet
_MAX_PADDINGS: Final = 200_000  # in one text, each of them looked at
_ENCODING_TOKEN: Final = re.compile(r"[a-z0-9-]+")
# text codecs of Python that no mail uses, some of them slow by design
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
# the names that Python has; it tries to import every other one, and remembers each for ever
_KNOWN: Final = frozenset({*aliases, *(module.name for module in pkgutil.iter_modules(encodings.__path__))})
_UTF_7: Final = re.compile(r"utf[-_]?7$", re.IGNORECASE)
_PRINTABLE: Final = bytes(range(0x20, 0x7F))
# as every client does (WHATWG Encoding)
_AS_WINDOWS: Final = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
}
# what clients tell apart by looking at a text that does not say what it is in: those that many octets cannot be in, then those that any can
_GUESSED: Final = (
    *("utf-8", "cp932", "euc_jp", "gb18030", "big5hkscs", "cp949"),
    *("cp1251", "koi8-r", "iso8859-5", "cp866", "cp1253", "cp1255", "cp1256", "cp874", "cp1250"),
)
_FITS: Final = frozenset(("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949"))
_META: Final = re.compile(rb"""(?:charset|<\?xml[^>]{1,80}?encoding)\s{0,9}=\s{0,9}["']?\s{0,9}([\w:.-]{2,40})""", re.IGNORECASE)
_META_WITHIN: Final = 4096  # octets; the standard says 1024
_UNSURE: Final = frozenset(("", "cp1252", "utf-8"))
# names for the Western charset itself: what they say is so
_CERTAIN: Final = frozenset(("iso-8859-1", "windows-1252", "latin1", "cp1252", "iso8859-1"))
_COMMENT: Final = re.compile(r"\([^()]*\)")


def transfer_encoding(field_value: str) -> str:
    """The encoding that a Content-Transfer-Encoding field names, "" for none: blanks, quotes and comments around it do not count."""
    if field_value in _USUAL_ENCODINGS:
        return field_value
    while "(" in field_value and (shorter := _COMMENT.sub(" ", field_value)) != field_value:
        field_value = shorter  # nested ones from the inside
    found = _ENCODING_TOKEN.search(field_value.lower())
    return found.group() if found else ""


def decode_transfer(raw: bytes, encoding: str) -> bytes:
    """`raw` decoded as far as it goes; bytes in an encoding that is not known are returned as they are."""
    if encoding == "base64":
        return decode_base64(raw)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(raw)
    return raw


def decode_base64(raw: bytes) -> bytes:
    """Base64 with everything outside its alphabet ignored (RFC 2045 section 6.8); what follows padding is decoded as well."""
    clean = _BASE64_JUNK.sub(b"", raw)
    if clean.count(b"=") <= _MAX_PADDINGS:
        return b"".join([_decode_run(piece) for piece in clean.split(b"=")])
    pieces, end = [], 0
    for run in islice(_BASE64_RUN.finditer(clean), _MAX_PADDINGS):
        pieces.append(_decode_run(run.group()))
        end = run.end()
    # from here on as if there were none: each run costs as much as a kilobyte
    return b"".join(pieces) + _decode_run(clean[end:].replace(b"=", b""))


def _decode_run(run: bytes) -> bytes:
    """Base64 without padding; a last character that is none is left out."""
    usable = run[:-1] if len(run) % 4 == 1 else run
    return binascii.a2b_base64(usable + b"=" * (-len(usable) % 4))


def is_plain_ascii(content: bytes, charset: str) -> bool:
    """Whether `content` reads as ASCII whatever a client makes of its charset."""
    return content.isascii() and b"\x1b" not in content and b"\x00" not in content and _keeps_ascii(charset)


def text_readings(content: bytes, charset: str) -> list[tuple[str, str]]:
    """The texts that `content` can be read as, each with the codec that gave it: the declared charset first, then what the bytes suggest."""
    is_utf8 = _is_utf8(content)
    declared = _codec(charset) if charset or not is_utf8 else "utf-8"
    codecs_in_order = [declared] if declared else []
    if content.startswith(codecs.BOM_UTF8):
        codecs_in_order.append("utf-8")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codecs_in_order.append("utf-16")
    elif b"\x00" in content[:4096]:
        codecs_in_order += ["utf-16-le", "utf-16-be"]
    if b"\x1b" in content:
        if b"\x1b$)C" in content:
            codecs_in_order.append("iso2022_kr")
        if b"\x1b(I" in content or b"\x1b$(D" in content:
            codecs_in_order.append("iso2022_jp_ext")
        if b"\x1b$" in content or b"\x1b(" in content:
            codecs_in_order.append("iso2022_jp" if declared == "iso2022_jp" else "iso2022_jp_2")
    if declared != "utf-8" and is_utf8:
        codecs_in_order.append("utf-8")
    if not codecs_in_order or (declared == "utf-8" and not is_utf8):
        codecs_in_order.append("cp1252")
    return [(content.decode(codec, "replace"), codec) for codec in dict.fromkeys(codecs_in_order)]


def guessed_codecs(content: bytes) -> list[str]:
    """The codecs that `content` may be taken for where nothing says what it is in, or what says so is wrong."""
    return [codec for codec in _GUESSED if codec not in _FITS or _fits(content, codec)]


def has_to_be_guessed(charset: str, last_codec: str) -> bool:
    """Whether a client would guess: no charset, ASCII, one that nobody knows, or broken UTF-8. `last_codec`: of `text_readings`."""
    return last_codec == "cp1252" and _codec(charset) in _UNSURE and _named(charset).lower() not in _CERTAIN


def meta_charset(content: bytes) -> str:
    """The codec that the beginning of an HTML or XML source names, "" for none."""
    found = _META.search(content, 0, _META_WITHIN)
    return _codec(found[1].decode("ascii", "replace")) if found is not None else ""


def _fits(content: bytes, codec: str) -> bool:
    """Whether `content` may be in this charset of several octets a character; it may be broken off."""
    try:
        codecs.getincrementaldecoder(codec)().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def charset_name(name: str) -> str:
    """The canonical name of a charset: Python's, or as it is written where nobody knows it."""
    return _codec(name) or name.strip().strip("'\"").strip().lower()


def named_charsets(content: bytes, charset: str) -> Iterator[str]:
    """Canonical names of the charset that a text says it is in, and of those that its bytes speak for; not of what is merely guessed."""
    if charset:
        yield charset_name(charset)
    if content.isascii() and b"\x1b" not in content and b"\x00" not in content:
        return
    for _, codec in text_readings(content, charset)[1 if _codec(charset) and charset else 0 :]:
        if codec != "cp1252":
            yield codec


def decode_text(content: bytes, charset: str) -> str:
    """`content` in its declared charset, or in the first that fits."""
    return text_readings(content, charset)[0][0]


@functools.lru_cache(maxsize=512)
def _keeps_ascii(charset: str) -> bool:
    """Whether ASCII bytes mean themselves in this charset; one that nobody knows is read as if they did."""
    codec = _codec(charset)
    if codec.startswith("iso2022"):
        return False  # they do, until an escape or shift says otherwise
    return not codec or _PRINTABLE.decode(codec, "replace") == _PRINTABLE.decode("ascii")


def _named(charset: str) -> str:
    """As it is written, without comments, quotes and blanks."""
    return _COMMENT.sub(" ", charset).partition("(")[0].strip().strip("'\"").strip()


@functools.lru_cache(maxsize=512)
def _codec(charset: str) -> str:
    """Python's name for a charset, "" when there is none (RFC 2046 section 4.1.2: US-ASCII is the default)."""
    name = _named(charset) or "ascii"
    if _UTF_7.search(name):
        return "utf-7"  # under whatever name (RFC 2152; x-unicode-2-0-utf-7)
    if encodings.normalize_encoding(name).lower() not in _KNOWN:
        name = codec_of_label(name.lower())
        if encodings.normalize_encoding(name).lower() not in _KNOWN:
            return ""
    try:
        name = codecs.lookup(name).name
        b" ".decode(name, "replace")  # an empty one is not looked at
    except (LookupError, ValueError, UnicodeError):
        return ""
    if name in _NO_CHARSETS:
        return ""
    return _AS_WINDOWS.get(name, name)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
