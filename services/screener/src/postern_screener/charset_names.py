"""Names of charsets that clients know and Python does not: the labels of the WHATWG Encoding standard (section 4.2), which web views and most clients
go by, and those of Windows.

Every code page of EBCDIC has the letters a to z in the same places, so one that Python lacks is read as another that it has.
"""

from __future__ import annotations

import re
from typing import Final

_LABELS: Final = {
    "utf-8": "unicode11utf8 unicode20utf8 x-unicode20utf8 unicode-1-1-utf-8 x-unicode-2-0-utf-8 cesu-8 utf-8-sig utf8mb4 cp65001 65001",
    "utf-7": "cp65000 65000",
    "utf-16-le": "unicode ucs-2 iso-10646-ucs-2 csunicode unicodefeff cp1200 1200",
    "utf-16-be": "unicodefffe cp1201 1201 csunicode11",
    "utf-32-le": "iso-10646-ucs-4 ucs-4 csucs4 cp12000",
    "cp866": "dos-866 csibm866",
    "iso8859-2": "iso88592 csisolatin2",
    "iso8859-3": "iso88593",
    "iso8859-4": "iso88594",
    "iso8859-5": "iso88595",
    "iso8859-6": "iso88596 csiso88596e csiso88596i iso-8859-6-e iso-8859-6-i",
    "iso8859-7": "iso88597 sun_eu_greek",
    "iso8859-8": "iso88598 csiso88598e csiso88598i iso-8859-8-e iso-8859-8-i logical visual",
    "iso8859-10": "iso885910",
    "iso8859-13": "iso885913",
    "iso8859-14": "iso885914",
    "iso8859-15": "iso885915 csisolatin9 latin-9",
    "koi8-r": "koi koi8 cskoi8r",
    "koi8-u": "koi8-ru",
    "mac-roman": "x-mac-roman csmacintosh",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "mac-greek": "x-mac-greek",
    "mac-turkish": "x-mac-turkish",
    "mac-latin2": "x-mac-ce",
    "cp874": "dos-874 windows-874 iso-8859-11 iso8859-11 iso885911",
    "gb18030": "gbk x-gbk gb2312 gb_2312 gb_2312-80 csgb2312 csiso58gb231280 iso-ir-58 chinese cn-gb gb2312-80 euc-cn x-euc-cn gb18030-2005 gb18030-2022",
    "hz": "hz-gb-2312",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5 x-big5",
    "euc_jp": "cp51932 eucjp-ms eucjpms x-euc-jp cseucpkdfmtjapanese x-eucjp-open-19970715-ms",
    "iso2022_jp_2": "csiso2022jp2",
    "iso2022_jp": "cp50220 cp50221 cp50222 _iso-2022-jp csiso2022jp",
    "cp932": "shift_jis shift-jis sjis x-sjis windows-31j csshiftjis ms932 ms_kanji x-ms-cp932",
    "cp949": "euc-kr cseuckr korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 iso-ir-149 csksc56011987 x-windows-949 windows-949 uhc",
}  # Shift_JIS, GB 2312, EUC-KR and Big5 are decoded with the extensions of their vendors, as every client does
_CODEC_OF: Final = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_CODE_PAGE: Final = re.compile(r"(?:x-)?(?:windows|win|cp|ibm|ccsid|ms|dos)[-_ ]?0*(\d{3,5})(?:-\w+)?")
_AS_EBCDIC: Final = frozenset(
    [
        "277",
        "278",
        "280",
        "284",
        "285",
        "290",
        "297",
        "420",
        "423",
        "833",
        "838",
        "870",
        "871",
        "880",
        "905",
        "924",
        "1025",
        "1047",
        "1112",
        "1122",
    ]
)
_PAGES: Final = {"932": "cp932", "936": "gb18030", "949": "cp949", "950": "big5hkscs", "51932": "euc_jp", "1200": "utf-16-le"}


def codec_of_label(label: str) -> str:
    """The codec for a name of a charset, in lower case, that Python may not know; "" for none."""
    if (codec := _CODEC_OF.get(label)) is not None:
        return codec
    if label.startswith(("x-ebcdic", "ebcdic")):
        return "cp500"
    if (page := _CODE_PAGE.fullmatch(label)) is not None:
        number = page[1]
        if number in _AS_EBCDIC or ("1141" <= number <= "1149" and len(number) == 4):
            return "cp500"
        return _PAGES.get(number, f"cp{number}")
    return ""
