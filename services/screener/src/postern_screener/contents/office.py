"""Office documents: whether one is encrypted, and whether it carries macros ([MS-OFFCRYPTO], [MS-DOC] 2.5.1, [MS-XLS] 2.4.117, [MS-OVBA] 2.2.1).

Macros are recognised by where they are kept, not by what they do: a document that has any has some. Of OOXML and ODF the parts are looked at as the members
of an archive (`archives.py`); this says of one part, or of a file in the binary formats, what it is.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from postern_screener.contents.compound import CompoundFile, mentions
from postern_screener.contents.entry import Content

_ENCRYPTED_STREAMS: Final = frozenset(
    {"encryptedpackage", "encryptedsummary", "\x06dataspaces", "\tdrmcontent", "drmencrypteddataspace"}
)
_XLS_STREAMS: Final = ("workbook", "book")
_XLS_BEGINNING: Final = 64 * 1024
_FILEPASS: Final = 0x2F
_BOUNDSHEET: Final = 0x85
_MACRO_SHEET: Final = 1
_EOF_RECORD: Final = 0x0A
_ODF_ENCRYPTED: Final = b"encryption-data"
_DOCUMENT_TYPES: Final = frozenset({"ole", "doc", "xls", "ppt", "msg"})
DOCUMENT_PACKAGES: Final = frozenset({"docx", "xlsx", "pptx", "ooxml", "odt", "ods", "odp", "odf"})
# parts of a document that every one has: not files that somebody put into an archive
_STRUCTURAL_FOLDERS: Final = frozenset(
    "word xl ppt visio docprops _rels customxml meta-inf pictures thumbnails configurations2 documents fixeddocseq.fdseq metadata "
    "objectreplacements basic scripts forms reports database customui userCustomization".lower().split()
)
_STRUCTURAL_EXTENSIONS: Final = frozenset(
    [
        "xml",
        "rels",
        "vml",
        "bin",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "emf",
        "wmf",
        "tif",
        "tiff",
        "wdp",
        "svg",
        "bmp",
        "fntdata",
        "odttf",
        "psmdcp",
        "rdf",
        "txt",
        "fpage",
        "fdoc",
        "fdseq",
        "dict",
        "xlb",
    ]
)
_STRUCTURAL_FILES: Final = frozenset(
    {"[content_types].xml", "mimetype", "content.xml", "styles.xml", "meta.xml", "settings.xml", "manifest.rdf", "layout-cache"}
)


def is_binary(types: tuple[str, ...]) -> bool:
    """Whether content of these types is in one of the old binary formats."""
    return bool(types) and types[0] in _DOCUMENT_TYPES


def is_encrypted(content: Content) -> bool:
    """Of a compound file."""
    file = CompoundFile(content)
    if not _ENCRYPTED_STREAMS.isdisjoint(file.names):
        return True
    word = file.beginning_of("worddocument", 12)
    if len(word) == 12 and word[11] & 0x01:  # fEncrypted of the FIB
        return True
    return any(kind == _FILEPASS for name in _XLS_STREAMS for kind, _ in _records(file.beginning_of(name, _XLS_BEGINNING)))


def has_macros(content: Content) -> bool:
    """Of a compound file: a VBA project, however its tables are damaged, or a macro sheet of Excel 4.0."""
    if mentions(content, "_VBA_PROJECT"):
        return True
    file = CompoundFile(content)
    return any(
        kind == _BOUNDSHEET and data[5:6] == bytes([_MACRO_SHEET])
        for name in _XLS_STREAMS
        for kind, data in _records(file.beginning_of(name, _XLS_BEGINNING))
    )


def is_macro_part(name: str) -> bool:
    """Whether a part of an OOXML or ODF document of this name holds macros."""
    lowered = name.lower().replace("\\", "/").lstrip("/")
    if lowered.endswith("vbaproject.bin") or "/macrosheets/" in lowered:
        return True
    return bool(re.match(r"(?:basic|scripts)/.+/.+", lowered))


def is_encrypted_manifest(name: str, content: Content) -> bool:
    """ODF 1.3 part 2, section 3.4: the manifest says how its files are encrypted."""
    return name.lower() == "meta-inf/manifest.xml" and _ODF_ENCRYPTED in content


def is_structural(name: str) -> bool:
    """Whether a member of this name is a part of the document rather than a file that was put into it."""
    lowered = name.lower().replace("\\", "/").lstrip("/")
    if lowered in _STRUCTURAL_FILES:
        return True
    folder, slash, rest = lowered.partition("/")
    folder = "objectreplacements" if folder.startswith("object ") else folder
    return bool(slash) and folder in _STRUCTURAL_FOLDERS and rest.rpartition(".")[2] in _STRUCTURAL_EXTENSIONS


def _records(stream: bytes) -> list[tuple[int, bytes]]:
    """Records of a BIFF stream up to the end of its first substream."""
    found, at = [], 0
    while at + 4 <= len(stream):
        kind, length = struct.unpack_from("<HH", stream, at)
        if kind == _EOF_RECORD:
            break
        found.append((kind, stream[at + 4 : at + 4 + length]))
        at += 4 + length
    return found
