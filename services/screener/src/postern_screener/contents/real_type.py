"""What content is, by its own bytes: signatures of the types in `postern_core.policy.file_types`.

A table of our own (docs/adr/0013): a few microseconds, no state, nothing that a hostile file could make long. Content may be several things at once, for
programs look at different ends of it: a picture with a ZIP file behind it is both, and both are told, the one that it begins with first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from postern_core.policy.file_types import FILE_TYPES, UNKNOWN, Family
from postern_screener.contents import compound
from postern_screener.contents.embedded import embedded_in
from postern_screener.contents.entry import Content
from postern_screener.contents.tar_archive import is_header
from postern_screener.contents.text_type import text_type
from postern_screener.contents.zip_archive import is_zip, names_in
from postern_screener.contents.zip_directory import LOCAL, SPANNED

_HEAD: Final = 4096
_PDF_WITHIN: Final = 1024  # readers take the header anywhere in it (PDF 1.7, appendix H.3)
_AT_START: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x7fELF", "elf"),
    (b"\xfe\xed\xfa\xce", "mach-o"),
    (b"\xfe\xed\xfa\xcf", "mach-o"),
    (b"\xce\xfa\xed\xfe", "mach-o"),
    (b"\xcf\xfa\xed\xfe", "mach-o"),
    (b"dex\n0", "dex"),
    (b"\0asm", "wasm"),
    (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F", "lnk"),
    (b"ITSF", "chm"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"RE\x7e\x5e", "rar"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"LZIP\x01", "lzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"MSCF\0\0\0\0", "cab"),
    (b"070701", "cpio"),
    (b"070702", "cpio"),
    (b"070707", "cpio"),
    (b"\xc7\x71", "cpio"),
    (b"!<arch>\n", "ar"),
    (b"\xed\xab\xee\xdb", "rpm"),
    (b"xar!", "xar"),
    (b"MSWIM\0\0\0", "wim"),
    (b"conectix", "vhd"),
    (b"vhdxfile", "vhd"),
    (b"%PDF-", "pdf"),
    (b"{\\rt", "rtf"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", "onenote"),
    (b"\0\1\0\0Standard Jet DB", "access"),
    (b"\0\1\0\0Standard ACE DB", "access"),
    (b"AT&TFORM", "djvu"),
    (b"%!PS", "postscript"),
    (b"\xc5\xd0\xd3\xc6", "postscript"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"8BPS", "photoshop"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"MThd", "midi"),
    (b"ID3", "mp3"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\0\1\0\0\0", "font"),
    (b"OTTO", "font"),
    (b"wOFF", "font"),
    (b"wOF2", "font"),
    (b"\x78\x9f\x3e\x22", "tnef"),
)
_ELSEWHERE: Final[tuple[tuple[int, bytes, str], ...]] = (
    (257, b"ustar", "tar"),
    (7, b"**ACE**", "ace"),
    (32769, b"CD001", "iso"),
    (34817, b"CD001", "iso"),
    (36865, b"CD001", "iso"),
    (32769, b"BEA01", "iso"),  # UDF (ECMA-167)
    (40, b" EMF", "emf"),
)
_RIFF: Final = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}
_HEIF: Final = frozenset({b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"})
_LHA: Final = re.compile(rb"..-l[hz][\dds]-", re.DOTALL)
_BZIP2: Final = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
_ODF: Final = {"text": "odt", "spreadsheet": "ods", "presentation": "odp"}
_INSTALLER: Final = bytes.fromhex("84100c0000000000c000000000000046")  # class of an msi's root storage


def real_types(content: Content) -> tuple[str, ...]:
    """What it is, the likeliest first: names in `FILE_TYPES`; () for nothing at all."""
    if not content:
        return ()
    head = bytes(content[:_HEAD])
    first = _first(head, content)
    return tuple(dict.fromkeys([first, *_further(first, head, content)]))


def _first(head: bytes, content: Content) -> str:
    if head[:4] == LOCAL or head[:4] in SPANNED or (head[:2] == b"PK" and is_zip(content)):
        return _kind_of_zip(content)
    if head.startswith(compound.MAGIC):
        return _kind_of_compound(content)
    for magic, name in _AT_START:
        if head.startswith(magic):
            return name
    for at, magic, name in _ELSEWHERE:
        if content[at : at + len(magic)] == magic:
            return name
    if found := _by_shape(head, content):
        return found
    return text_type(head) or UNKNOWN


def _further(first: str, head: bytes, content: Content) -> Iterator[str]:
    """What else it is."""
    family = FILE_TYPES[first].family
    if FILE_TYPES[first].within != "zip" and first != "zip" and is_zip(content):
        yield _kind_of_zip(content)
    if first != "pdf" and b"%PDF-" in head[:_PDF_WITHIN]:
        yield "pdf"
    if family not in (Family.ARCHIVE, Family.TEXT):
        yield from embedded_in(content)
    if first not in ("iso", "tar") and content[32769:32774] == b"CD001":
        yield "iso"


def _by_shape(head: bytes, content: Content) -> str:  # noqa: C901, PLR0912 - a list of formats
    """Formats without a magic number that would be enough."""
    if head[:2] == b"MZ" and (len(head) < 64 or text_type(head) == ""):
        return "exe"
    if head[:4] == b"\xca\xfe\xba\xbe":
        # both have this number; a class file has its version next, a Mach-O file with several programs their number
        return "java-class" if int.from_bytes(head[6:8]) >= 45 else "mach-o"
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return "heif" if head[8:12] in _HEIF else "mp4"
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return "mp4"
    if head[:3] in (b"FWS", b"CWS", b"ZWS") and 0 < (head[3:4] or b"\0")[0] < 60 and text_type(head) == "":
        return "flash"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and 0 < int.from_bytes(head[4:6], "little") < 256:
        return "icon"
    if _BZIP2.match(head):
        return "bzip2"
    if _LHA.match(head):
        return "lha"
    if head[:2] == b"\x60\xea" and int.from_bytes(head[2:4], "little") <= 2600 and head[10:11] == b"\2":
        return "arj"
    if content[-512:-504] == b"conectix":
        return "vhd"
    if is_header(head[:512]):
        return "tar"
    if head[:3] == b"\x5d\0\0" and (head[5:13] == b"\xff" * 8 or int.from_bytes(head[5:13], "little") < 1 << 40):
        return "lzma"
    if head[:1] == b"\xff" and head[1:2] in (b"\xfb", b"\xf3", b"\xf2") and text_type(head) == "":
        return "mp3"
    return ""


def _kind_of_zip(content: Content) -> str:
    names = [name.lower().replace("\\", "/") for name in names_in(content)]
    if "androidmanifest.xml" in names:
        return "apk"
    if "[content_types].xml" in names:
        for folder, kind in (("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx")):
            if any(name.startswith(folder) for name in names):
                return kind
        return "ooxml"
    if content[30:38] == b"mimetype" and (content[38:58] == b"application/epub+zip"):
        return "epub"
    if content[30:38] == b"mimetype":
        written = bytes(content[38:120]).partition(b"application/vnd.oasis.opendocument.")[2]
        kept = re.match(rb"[a-z]+", written)
        return _ODF.get(kept.group().decode(), "odf") if kept else "zip"
    if "meta-inf/manifest.mf" in names:
        return "jar"
    return "zip"


def _kind_of_compound(content: Content) -> str:
    file = compound.CompoundFile(content)
    names = file.names
    for name, kind in (
        ("worddocument", "doc"),
        ("workbook", "xls"),
        ("book", "xls"),
        ("powerpoint document", "ppt"),
        ("__properties_version1.0", "msg"),
    ):
        if name in names:
            return kind
    return "msi" if any(entry.class_id == _INSTALLER for entry in file.entries) else "ole"
