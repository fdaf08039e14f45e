"""Types of files that rules may name: what each is called, its family, and the extensions and media types under which it goes about.

How their content is recognised is the screener's affair (`postern_screener.contents.real_type`); the api takes no other names. Media types are those of
IANA where there is one, and those that mail programs write.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


class Family(enum.StrEnum):
    """What kind of thing a file is."""

    PROGRAM = "program"  # something is executed when it is opened
    ARCHIVE = "archive"  # other files are in it
    DOCUMENT = "document"
    IMAGE = "image"
    MEDIA = "media"  # sound and film
    TEXT = "text"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileType:
    """One type. `within`: the more general type that it is one of. Not `certain`: not every file of this type shows what it is."""

    name: str
    family: Family
    extensions: frozenset[str]
    media_types: frozenset[str]
    within: str = ""
    certain: bool = True


def _of(family: Family, *rows: str, within: str = "", certain: bool = True) -> Iterable[FileType]:
    """Rows of a name, its extensions, and its media types, with bars between."""
    for row in rows:
        name, extensions, media_types = (column.split() for column in row.split("|"))
        yield FileType(name[0], family, frozenset(extensions), frozenset(media_types), within, certain)


_ALL: Final = (
    *_of(
        Family.PROGRAM,
        "exe | exe dll scr sys cpl ocx drv efi | application/vnd.microsoft.portable-executable application/x-msdownload"
        " application/x-msdos-program application/x-dosexec application/exe application/x-exe",
        "elf | elf so ko | application/x-executable application/x-sharedlib application/x-elf",
        "mach-o | dylib | application/x-mach-binary",
        "java-class | class | application/java-vm application/x-java-class",
        "dex | dex | application/x-dex",
        "wasm | wasm | application/wasm",
        "lnk | lnk | application/x-ms-shortcut",
        "chm | chm | application/vnd.ms-htmlhelp application/x-chm",
        "flash | swf | application/x-shockwave-flash application/vnd.adobe.flash.movie",
    ),
    *_of(
        Family.PROGRAM,
        "shell-script | sh bash zsh csh | application/x-sh application/x-shellscript text/x-shellscript text/x-sh",
        "internet-shortcut | url website | application/internet-shortcut application/x-mswinurl",
        "registry | reg | text/x-ms-regedit",
        within="text",
        certain=False,
    ),
    *_of(
        Family.PROGRAM,
        "jar | jar war ear | application/java-archive application/x-java-archive",
        "apk | apk | application/vnd.android.package-archive",
        within="zip",
    ),
    *_of(Family.PROGRAM, "msi | msi msp mst | application/x-msi application/x-ole-storage", within="ole"),
    *_of(
        Family.ARCHIVE,
        "zip | zip | application/zip application/x-zip-compressed application/x-zip application/x-compressed multipart/x-zip",
        "7z | 7z | application/x-7z-compressed",
        "rar | rar | application/vnd.rar application/x-rar-compressed application/x-rar",
        "tar | tar | application/x-tar application/x-gtar application/x-ustar",
        "gzip | gz tgz taz svgz | application/gzip application/x-gzip application/x-gzip-compressed application/x-tgz application/x-gtar-compressed",
        "bzip2 | bz2 tbz tbz2 | application/x-bzip2 application/x-bzip application/x-bzip-compressed-tar",
        "xz | xz txz | application/x-xz application/x-xz-compressed-tar",
        "lzip | lz | application/lzip application/x-lzip",
        "zstd | zst tzst | application/zstd",
        "lz4 | lz4 | application/x-lz4",
        "compress | z | application/x-compress",
        "cab | cab | application/vnd.ms-cab-compressed",
        "iso | iso | application/x-iso9660-image application/x-cd-image application/vnd.efi.iso",
        "lha | lha lzh | application/x-lzh-compressed application/x-lha application/x-lzh",
        "cpio | cpio | application/x-cpio",
        "ar | ar deb a | application/x-archive application/vnd.debian.binary-package",
        "arj | arj | application/x-arj application/arj",
        "ace | ace | application/x-ace-compressed application/x-ace",
        "rpm | rpm | application/x-rpm application/x-redhat-package-manager",
        "xar | xar pkg | application/x-xar",
        "wim | wim esd | application/x-ms-wim",
        "vhd | vhd vhdx | application/x-vhd application/x-vhdx application/x-virtualbox-vhd",
    ),
    *_of(Family.ARCHIVE, "lzma | lzma tlz | application/x-lzma", certain=False),
    *_of(
        Family.DOCUMENT,
        "pdf | pdf | application/pdf application/x-pdf",
        "rtf | rtf | application/rtf text/rtf",
        "ole | | application/x-ole-storage application/cdfv2",
        "onenote | one onetoc2 | application/onenote application/msonenote",
        "access | mdb accdb | application/vnd.ms-access application/msaccess application/x-msaccess",
        "djvu | djvu djv | image/vnd.djvu",
    ),
    *_of(Family.DOCUMENT, "postscript | ps eps | application/postscript", certain=False),
    *_of(
        Family.DOCUMENT,
        "doc | doc dot | application/msword",
        "xls | xls xlt xla | application/vnd.ms-excel application/msexcel application/x-msexcel application/excel",
        "ppt | ppt pot pps ppa | application/vnd.ms-powerpoint application/mspowerpoint application/powerpoint",
        "msg | msg oft | application/vnd.ms-outlook",
        within="ole",
    ),
    *_of(
        Family.DOCUMENT,
        "docx | docx docm dotx dotm | application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        " application/vnd.openxmlformats-officedocument.wordprocessingml.template application/vnd.ms-word.document.macroenabled.12"
        " application/vnd.ms-word.template.macroenabled.12",
        "xlsx | xlsx xlsm xlsb xltx xltm xlam | application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        " application/vnd.openxmlformats-officedocument.spreadsheetml.template application/vnd.ms-excel.sheet.macroenabled.12"
        " application/vnd.ms-excel.sheet.binary.macroenabled.12 application/vnd.ms-excel.template.macroenabled.12"
        " application/vnd.ms-excel.addin.macroenabled.12",
        "pptx | pptx pptm potx potm ppsx ppsm ppam sldx sldm | application/vnd.openxmlformats-officedocument.presentationml.presentation"
        " application/vnd.openxmlformats-officedocument.presentationml.slideshow"
        " application/vnd.openxmlformats-officedocument.presentationml.template"
        " application/vnd.ms-powerpoint.presentation.macroenabled.12 application/vnd.ms-powerpoint.slideshow.macroenabled.12",
        "ooxml | vsdx vsdm xps oxps | application/vnd.ms-visio.drawing application/vnd.ms-xpsdocument application/oxps",
        "odt | odt ott | application/vnd.oasis.opendocument.text application/vnd.oasis.opendocument.text-template",
        "ods | ods ots | application/vnd.oasis.opendocument.spreadsheet application/vnd.oasis.opendocument.spreadsheet-template",
        "odp | odp otp | application/vnd.oasis.opendocument.presentation application/vnd.oasis.opendocument.presentation-template",
        "odf | odg odb odf | application/vnd.oasis.opendocument.graphics application/vnd.oasis.opendocument.formula",
        "epub | epub | application/epub+zip",
        within="zip",
    ),
    *_of(
        Family.IMAGE,
        "png | png apng | image/png image/x-png image/apng",
        "jpeg | jpg jpeg jpe jfif | image/jpeg image/jpg image/pjpeg",
        "gif | gif | image/gif",
        "bmp | bmp dib | image/bmp image/x-ms-bmp",
        "tiff | tif tiff | image/tiff",
        "webp | webp | image/webp",
        "icon | ico cur | image/vnd.microsoft.icon image/x-icon",
        "heif | heic heif avif | image/heic image/heif image/avif",
        "photoshop | psd | image/vnd.adobe.photoshop image/x-photoshop",
        "emf | emf | image/emf image/x-emf",
        "wmf | wmf | image/wmf image/x-wmf",
    ),
    *_of(Family.IMAGE, "svg | svg | image/svg+xml", within="xml"),
    *_of(
        Family.MEDIA,
        "wav | wav | audio/wav audio/x-wav audio/vnd.wave audio/wave",
        "flac | flac | audio/flac audio/x-flac",
        "ogg | ogg oga ogv opus | audio/ogg video/ogg application/ogg audio/opus",
        "mp4 | mp4 m4a m4v mov 3gp 3g2 | video/mp4 audio/mp4 video/quicktime audio/x-m4a video/3gpp video/x-m4v",
        "avi | avi | video/x-msvideo video/avi",
        "matroska | mkv webm mka | video/x-matroska video/webm audio/webm",
        "asf | wmv wma asf | video/x-ms-wmv audio/x-ms-wma video/x-ms-asf",
        "midi | mid midi | audio/midi audio/x-midi",
    ),
    *_of(Family.MEDIA, "mp3 | mp3 | audio/mpeg audio/mp3", certain=False),
    *_of(
        Family.TEXT,
        "text | txt csv log md ini json | text/plain text/csv application/json text/markdown",
        certain=False,
    ),
    *_of(
        Family.TEXT,
        "html | html htm xhtml hta mht shtml | text/html application/xhtml+xml application/hta",
        "xml | xml xsl xsd | text/xml application/xml",
        "calendar | ics | text/calendar application/ics",
        "vcard | vcf | text/vcard text/x-vcard",
        "pgp | asc pgp sig | application/pgp-encrypted application/pgp-signature application/pgp-keys",
        "mail | eml | message/rfc822",
        within="text",
        certain=False,
    ),
    *_of(
        Family.OTHER,
        "sqlite | sqlite sqlite3 | application/vnd.sqlite3 application/x-sqlite3",
        "font | ttf otf woff woff2 | font/ttf font/otf font/woff font/woff2 application/font-woff",
        "tnef | | application/ms-tnef application/vnd.ms-tnef",
    ),
    *_of(Family.OTHER, "data | | ", certain=False),  # nothing of the above
)
FILE_TYPES: Final = {one.name: one for one in _ALL}
UNKNOWN: Final = "data"


def is_type_or_family(value: str) -> bool:
    """Whether rules may name it."""
    return value in FILE_TYPES or value in frozenset(Family)


def types_of(value: str) -> frozenset[str]:
    """The types that a rule means by a type (those within it, too) or a family. ValueError for what is neither."""
    if value in FILE_TYPES:
        return frozenset(name for name, one in FILE_TYPES.items() if value in (name, one.within))
    if value in frozenset(Family):
        return frozenset(name for name, one in FILE_TYPES.items() if one.family == value)
    raise ValueError(f"there is no file type {value!r}")
