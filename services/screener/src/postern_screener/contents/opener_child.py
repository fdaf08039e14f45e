"""Opens one archive by libarchive, in a process of its own: content on standard input, what lies in it on standard output, as frames.

A program, not a module: it is run by its path and imports nothing of ours, so that it starts in a few milliseconds. Its memory and its CPU time are limited,
it may write no file; libarchive's readers are C and have had their faults, and here these end one archive.
Arguments: the format, a key of `_FORMATS`; MiB of address space; seconds of CPU. Exit code 3: there is no libarchive here.
Frames: a letter and a length (">cI"), then so many bytes: `N` name of the next file, `D` data, `T` trouble (kind, a blank, a sentence), `E` the end.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any

NO_LIBRARY = 3
_FRAME = struct.Struct(">cI")
_LIBRARIES = ("libarchive.so.13", "libarchive.13.dylib", "/opt/homebrew/opt/libarchive/lib/libarchive.13.dylib", "libarchive.so")
# names of read_support functions. Never "all": among the filters are some that run programs, among the formats one that opens files by name
_FORMATS = {
    "7z": ("format_7zip",),
    "rar": ("format_rar", "format_rar5"),
    "cab": ("format_cab",),
    "iso": ("format_iso9660",),
    "lha": ("format_lha",),
    "cpio": ("format_cpio",),
    "ar": ("format_ar",),
    "lzip": ("format_raw", "filter_lzip"),
    "zstd": ("format_raw", "filter_zstd"),
    "lz4": ("format_raw", "filter_lz4"),
    "compress": ("format_raw", "filter_compress"),
}
_OK, _EOF, _WARN, _FAILED = 0, 1, -20, -25
_REGULAR = 0o100000
_KIND_OF_FILE = 0o170000


def main() -> int:
    """Returns the exit code."""
    kind, memory_mib, cpu_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    library = _library()
    if library is None:
        return NO_LIBRARY
    if kind == "check":
        sys.stdout.write(_call(library, "version_string", ctypes.c_char_p)().decode())
        return 0
    content = sys.stdin.buffer.read()
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, memory_mib * 1024 * 1024 + len(content))
    _read(library, kind, content)
    return 0


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)  # nobody may raise it
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):
        return  # macOS has no limit for the address space


def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _call(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, f"archive_{name}")
    function.restype, function.argtypes = result, arguments
    found: Callable[..., Any] = function
    return found


def _read(library: ctypes.CDLL, kind: str, content: bytes) -> None:
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    archive = _call(library, "read_new", pointer)()
    for support in _FORMATS[kind]:
        if _call(library, f"read_support_{support}", number, pointer)(archive) < _WARN:
            _tell(b"T", b"unsupported this libarchive has no " + support.encode())
            return
    entry = pointer()
    error_string = _call(library, "error_string", ctypes.c_char_p, pointer)
    next_header = _call(library, "read_next_header", number, pointer, ctypes.POINTER(pointer))
    is_encrypted = _call(library, "entry_is_data_encrypted", number, pointer)
    has_encrypted = _call(library, "read_has_encrypted_entries", number, pointer)
    mode = _call(library, "entry_filetype", ctypes.c_uint, pointer)

    def trouble(code: int, *, encrypted: bool = False) -> None:
        text = error_string(archive) or b"damaged"
        encrypted = encrypted or b"ncrypt" in text or b"assphrase" in text or b"rypto" in text
        unsupported = b"nsupported" in text or b"not supported" in text or b"nrecognized" in text
        _tell(
            b"T", (b"encrypted " if encrypted else b"unsupported " if unsupported else b"damaged ") + text[:200] + b" (%d)" % code
        )

    code = _call(library, "read_open_memory", number, pointer, ctypes.c_char_p, size)(archive, content, len(content))
    while code >= _WARN:
        code = next_header(archive, ctypes.byref(entry))
        if code == _EOF:
            break
        if code < _WARN:
            trouble(code, encrypted=has_encrypted(archive) == 1)
            return
        if mode(entry) & _KIND_OF_FILE not in (0, _REGULAR):
            continue
        _tell(b"N", _name(library, entry))
        if is_encrypted(entry):
            _tell(b"T", b"encrypted its content is encrypted")
        # all of it is read, never skipped: to skip, libarchive would expand as much in one step that nobody could stop
        elif (ended := _data(library, archive)) < 0:
            trouble(ended)
            if ended < _FAILED:
                return
    if code < _WARN:
        trouble(code)
        return
    _tell(b"E", b"")


def _data(library: ctypes.CDLL, archive: ctypes.c_void_p) -> int:
    """Tells the data of the file at hand; the code with which it ended."""
    block, length, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int64()
    pointers = (ctypes.POINTER(kind) for kind in (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64))
    read = _call(library, "read_data_block", ctypes.c_int, ctypes.c_void_p, *pointers)
    while True:
        code: int = read(archive, ctypes.byref(block), ctypes.byref(length), ctypes.byref(offset))
        if code == _EOF:
            return 0
        if code < _WARN:
            return code
        if length.value and block.value:
            _tell(b"D", ctypes.string_at(block.value, length.value))


def _name(library: ctypes.CDLL, entry: ctypes.c_void_p) -> bytes:
    for which in ("entry_pathname_utf8", "entry_pathname"):
        name: bytes | None = _call(library, which, ctypes.c_char_p, ctypes.c_void_p)(entry)
        if name is not None:
            return name[:8192]
    return b""


def _tell(letter: bytes, data: bytes) -> None:
    for start in range(0, max(len(data), 1), 1 << 20):
        piece = data[start : start + (1 << 20)]
        pieces = memoryview(_FRAME.pack(letter, len(piece)) + piece)
        while pieces:
            pieces = pieces[os.write(1, pieces) :]


if __name__ == "__main__":
    raise SystemExit(main())
