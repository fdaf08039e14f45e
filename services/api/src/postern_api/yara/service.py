"""YARA files: what an administrator uploads, checked, and edits of a snapshot. Pure."""

from __future__ import annotations

import re

import msgspec

from postern_api.errors import InvalidError, NotFoundError
from postern_api.policy.checks import MAX_YARA_FILE_BYTES
from postern_api.policy.objects import Snapshot
from postern_core.policy import YaraFile

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def checked_name(name: str) -> str:
    """InvalidError for what cannot name a file."""
    if not _NAME.fullmatch(name):
        raise InvalidError("invalid_yara_name", f"{name[:100]!r} cannot name a file: use 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    return name


def file_from(name: str, data: bytes) -> YaraFile:
    """InvalidError for what is no text, or too much of it."""
    if len(data) > MAX_YARA_FILE_BYTES:
        raise InvalidError("too_many", f"{len(data)} bytes: a YARA file may have {MAX_YARA_FILE_BYTES}")
    try:
        source = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidError("invalid_yara", "the text is not UTF-8") from error
    if not source.strip():
        raise InvalidError("invalid_yara", "the file is empty")
    return YaraFile(name=checked_name(name), source=source)


def find(snapshot: Snapshot, name: str) -> YaraFile:
    for file in snapshot.engines.yara.files:
        if file.name == name:
            return file
    raise NotFoundError("yara file", name)


def with_file(snapshot: Snapshot, file: YaraFile) -> Snapshot:
    """In the order of their names."""
    others = (each for each in snapshot.engines.yara.files if each.name != file.name)
    return _with_files(snapshot, tuple(sorted((*others, file), key=lambda each: each.name)))


def without_file(snapshot: Snapshot, name: str) -> Snapshot:
    gone = find(snapshot, name)
    return _with_files(snapshot, tuple(each for each in snapshot.engines.yara.files if each is not gone))


def _with_files(snapshot: Snapshot, files: tuple[YaraFile, ...]) -> Snapshot:
    yara = msgspec.structs.replace(snapshot.engines.yara, files=files)
    return msgspec.structs.replace(snapshot, engines=msgspec.structs.replace(snapshot.engines, yara=yara))
