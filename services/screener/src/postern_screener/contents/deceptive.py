"""File names that are made to look like others."""

from __future__ import annotations

import re
from typing import Final

from postern_core.file_names import compared_names
from postern_core.policy.file_types import FILE_TYPES, Family
from postern_screener.filenames import extensions

# what Windows runs, or hands to something that runs it, when somebody opens it (Outlook's blocked attachments and what has been abused since)
PROGRAM_EXTENSIONS: Final = frozenset(
    [
        "ade",
        "adp",
        "app",
        "application",
        "appref-ms",
        "asp",
        "bas",
        "bat",
        "cer",
        "chm",
        "cmd",
        "cnt",
        "com",
        "cpl",
        "crt",
        "csh",
        "der",
        "diagcab",
        "dll",
        "exe",
        "fxp",
        "gadget",
        "grp",
        "hlp",
        "hpj",
        "hta",
        "htc",
        "inf",
        "ins",
        "iqy",
        "iso",
        "img",
        "isp",
        "its",
        "jar",
        "jnlp",
        "js",
        "jse",
        "ksh",
        "library-ms",
        "lnk",
        "mad",
        "maf",
        "mag",
        "mam",
        "maq",
        "mar",
        "mas",
        "mat",
        "mau",
        "mav",
        "maw",
        "mcf",
        "mda",
        "mdb",
        "mde",
        "mdt",
        "mdw",
        "mdz",
        "msc",
        "msh",
        "msh1",
        "msh2",
        "mshxml",
        "msi",
        "msix",
        "appx",
        "msp",
        "mst",
        "msu",
        "ops",
        "osd",
        "pcd",
        "pif",
        "pl",
        "plg",
        "prf",
        "prg",
        "printerexport",
        "ps1",
        "ps1xml",
        "ps2",
        "ps2xml",
        "psc1",
        "psc2",
        "psd1",
        "psdm1",
        "pst",
        "py",
        "pyc",
        "pyo",
        "pyw",
        "pyz",
        "pyzw",
        "rdp",
        "reg",
        "rqy",
        "scf",
        "scr",
        "sct",
        "search-ms",
        "settingcontent-ms",
        "shb",
        "shs",
        "slk",
        "sys",
        "theme",
        "tmp",
        "url",
        "vb",
        "vba",
        "vbe",
        "vbp",
        "vbs",
        "vhd",
        "vhdx",
        "vsmacros",
        "vsw",
        "wasm",
        "webpnp",
        "website",
        "ws",
        "wsb",
        "wsc",
        "wsf",
        "wsh",
        "xbap",
        "xll",
        "xnk",
    ]
)
_HARMLESS_EXTENSIONS: Final = (
    frozenset(
        extension
        for one in FILE_TYPES.values()
        if one.family in (Family.DOCUMENT, Family.IMAGE, Family.MEDIA, Family.TEXT, Family.ARCHIVE)
        for extension in one.extensions
    )
    - PROGRAM_EXTENSIONS
)
_TURNED: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BLANKS: Final = re.compile(r"(?<!\s)\s{3,}+\.[^.\s]++[.\s]*+\Z")  # tried at the beginning of a run only: linear
_HIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\u200b-\u200d\u2060\ufeff]")
_MOST_CHARACTERS: Final = 4096


def deception(name: str) -> str:
    """How `name` (as written) deceives; "" when it does not."""
    name = name[:_MOST_CHARACTERS]
    if _TURNED.search(name):
        return "it is written from right to left in places"
    if _BLANKS.search(name):
        return "blanks stand before its extension"
    for compared in compared_names(name):
        found = [extension for extension in extensions(compared) if extension]
        if not found or found[0] not in PROGRAM_EXTENSIONS:
            continue
        if len(found) > 1 and found[1] in _HARMLESS_EXTENSIONS:
            return f"it looks like .{found[1]} and is .{found[0]}"
        if name != name.rstrip(". \t\u00a0\u3000"):
            return f"dots or blanks stand behind .{found[0]}"
        if _HIDDEN.search(name):
            return f"characters that show nothing stand in the name of a .{found[0]}"
    return ""
