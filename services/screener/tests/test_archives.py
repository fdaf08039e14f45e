"""What lies in attachments: every kind of archive, both readings of ambiguous ones, and limits, with an obstacle for whatever is not read."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.archives import (
    PROGRAM,
    by_libarchive,
    encrypted_7z,
    encrypted_zip,
    need_libarchive,
    overlapping_zip,
    rar5_of,
    rar_of,
    tar_of,
    zip_of,
)
from postern_screener.contents import opener
from postern_screener.contents.archives import Member, walk
from postern_screener.contents.budget import Budget, Limits
from postern_screener.contents.entry import Obstacle, ObstacleKind
from postern_screener.contents.opener import library_version

need_libarchive()
MIB: Final = 1024 * 1024


def opened(content: bytes, name: str = "a", limits: Limits | None = None) -> tuple[list[Member], list[Obstacle]]:
    found = list(walk("2", (name,), content, Budget(len(content), limits)))
    members = [each for each in found if isinstance(each, Member)]
    assert members[0].chain == (name,)
    return members[1:], [each for each in found if isinstance(each, Obstacle)]


def programs(content: bytes, name: str = "a") -> list[tuple[str, ...]]:
    members, obstacles = opened(content, name)
    assert obstacles == []
    return [member.chain for member in members if "exe" in member.types]


def kinds(content: bytes, limits: Limits | None = None) -> set[ObstacleKind]:
    return {obstacle.kind for obstacle in opened(content, limits=limits)[1]}


FILES: Final = {"some/evil.exe": PROGRAM, "readme.txt": b"hello"}
KINDS: Final = {
    "stored zip": zip_of(FILES, zipfile.ZIP_STORED),
    "deflated zip": zip_of(FILES),
    "bzip2 zip": zip_of(FILES, zipfile.ZIP_BZIP2),
    "lzma zip": zip_of(FILES, zipfile.ZIP_LZMA),
    "ustar": tar_of(FILES, form=tarfile.USTAR_FORMAT),
    "GNU tar": tar_of(FILES, form=tarfile.GNU_FORMAT),
    "pax": tar_of(FILES),
    "two tars": tar_of({"readme.txt": b"hello"}) + tar_of(FILES),
    "tar.gz": tar_of(FILES, "w:gz"),
    "tar.bz2": tar_of(FILES, "w:bz2"),
    "tar.xz": tar_of(FILES, "w:xz"),
    "7z": by_libarchive("7zip", FILES),
    "iso": by_libarchive("iso9660", FILES),
    "cpio": by_libarchive("cpio_newc", FILES),
    "tar.zst": by_libarchive("ustar", FILES, "zstd"),
    "tar.lz4": by_libarchive("ustar", FILES, "lz4"),
    "rar": rar_of(FILES),
    "rar5": rar5_of("some/evil.exe", PROGRAM),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_archive_is_opened_whatever_its_name(kind: str) -> None:
    assert programs(KINDS[kind], "holiday.jpg") == [("holiday.jpg", "some/evil.exe")]


@pytest.mark.parametrize("name", ["n" * 90 + ".exe", "d/" * 60 + "evil.exe", "v" * 300 + ".exe", "böse.exe", "悪.exe"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, "zip", "7zip"])
def test_long_and_international_names_are_read_whole(name: str, form: int | str) -> None:
    if form == tarfile.USTAR_FORMAT and len(name) > 200:
        return  # it cannot hold them
    files = {name: PROGRAM}
    content = (
        tar_of(files, form=form) if isinstance(form, int) else zip_of(files) if form == "zip" else by_libarchive(form, files)
    )
    assert programs(content) == [("a", name)]


def test_a_chain_names_every_archive_down_to_the_member() -> None:
    inner = tar_of({"evil.exe": PROGRAM}, "w:gz")
    assert programs(zip_of({"b.tar.gz": inner}), "a.zip") == [("a.zip", "b.tar.gz", "evil.exe")]
    deep = tar_of({"x.gz": gzip.compress(zip_of({"evil.exe": PROGRAM}))})
    assert programs(deep, "a.tar") == [("a.tar", "x.gz", "evil.exe")]
    assert programs(by_libarchive("7zip", {"b.zip": zip_of(FILES)}), "a.7z") == [("a.7z", "b.zip", "some/evil.exe")]


def test_a_single_compressed_file_has_both_of_its_names() -> None:
    header = b"\x1f\x8b\x08\x08" + bytes(6) + b"evil.exe\0"
    content = header + gzip.compress(PROGRAM)[10:]
    [member] = opened(content, "report.gz")[0]
    assert member.names == ("report", "evil.exe")
    assert member.content == PROGRAM
    assert opened(gzip.compress(b"") + gzip.compress(PROGRAM))[0][0].content == PROGRAM


@pytest.mark.parametrize(
    "front", [b"\xff\xd8\xff\xe0" + b"picture" * 50, b"MZ" + bytes(500), b"%PDF-1.4\n", b"GIF89a" + bytes(99)]
)
@pytest.mark.parametrize("archive", [zip_of(FILES), rar_of(FILES), by_libarchive("7zip", FILES)], ids=["zip", "rar", "7z"])
def test_an_archive_behind_something_else_is_opened_too(front: bytes, archive: bytes) -> None:
    members, _ = opened(front + archive)
    assert ("a", "some/evil.exe") in [member.chain for member in members]


def renamed_in_directory(content: bytes, old: bytes, new: bytes) -> bytes:
    at = content.rindex(old)
    return content[:at] + new + content[at + len(old) :]


def test_a_zip_whose_two_tables_disagree_is_read_both_ways() -> None:
    two_names = renamed_in_directory(zip_of({"evil.exe": PROGRAM}), b"evil.exe", b"note.txt")
    members, obstacles = opened(two_names)
    assert [member.names for member in members] == [("note.txt", "evil.exe")]
    assert [obstacle.kind for obstacle in obstacles] == [ObstacleKind.AMBIGUOUS]
    # by the directory the file is stored, by its own header deflated
    deflated = bytearray(zip_of({"a": PROGRAM}))
    at = deflated.index(b"PK\x01\x02")
    deflated[at + 10 : at + 12] = b"\0\0"
    members, obstacles = opened(bytes(deflated))
    assert "exe" in [name for member in members for name in member.types]
    assert ObstacleKind.AMBIGUOUS in {obstacle.kind for obstacle in obstacles}
    only_one_says_encrypted = bytearray(zip_of({"a": PROGRAM}))
    only_one_says_encrypted[6] |= 1
    members, obstacles = opened(bytes(only_one_says_encrypted))
    assert [member.types for member in members] == [("exe",)]
    assert ObstacleKind.AMBIGUOUS in {obstacle.kind for obstacle in obstacles}


def test_files_that_the_directory_of_a_zip_does_not_list_are_found() -> None:
    hidden = zip_of({"evil.exe": PROGRAM})
    hidden = hidden[: hidden.index(b"PK\x01\x02")]
    shown = zip_of({"note.txt": b"hello"})
    members, obstacles = opened(hidden + shown)
    assert {member.names[0] for member in members} == {"note.txt", "evil.exe"}
    assert [obstacle.kind for obstacle in obstacles] == [ObstacleKind.AMBIGUOUS]
    members, obstacles = opened(hidden)  # no directory at all
    assert [member.types for member in members] == [("exe",)]
    assert [obstacle.kind for obstacle in obstacles] == [ObstacleKind.DAMAGED]


def test_a_stored_archive_inside_is_no_hidden_file() -> None:
    inner = zip_of({"readme.txt": b"hello"}, zipfile.ZIP_STORED)
    members, obstacles = opened(zip_of({"b.zip": inner, "c.zip": inner}, zipfile.ZIP_STORED))
    assert [member.chain[1:] for member in members] == [
        ("b.zip",),
        ("b.zip", "readme.txt"),
        ("c.zip",),
        ("c.zip", "readme.txt"),
    ]
    assert obstacles == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encrypted_zip(), ObstacleKind.ENCRYPTED),
        (encrypted_7z(), ObstacleKind.ENCRYPTED),
        (encrypted_7z(header_too=True), ObstacleKind.ENCRYPTED),
        (rar_of(FILES, is_encrypted=True), ObstacleKind.ENCRYPTED),
        (rar_of(FILES, is_volume=True), ObstacleKind.MULTI_VOLUME),
        (rar5_of("a", b"b", is_volume=True), ObstacleKind.MULTI_VOLUME),
        (b"PK\x07\x08" + zip_of(FILES), ObstacleKind.MULTI_VOLUME),
        (zip_of(FILES)[:-40], ObstacleKind.DAMAGED),
        (zip_of({"a": bytes(100_000)}).replace(b"\xed\xc1", b"\xff\xff"), ObstacleKind.DAMAGED),
        (tar_of(FILES)[:600], ObstacleKind.DAMAGED),
        (gzip.compress(PROGRAM)[:-9], ObstacleKind.DAMAGED),
        (gzip.compress(PROGRAM) + b"something else", ObstacleKind.AMBIGUOUS),
        (by_libarchive("7zip", FILES)[:-3], ObstacleKind.DAMAGED),
        (rar_of(FILES)[:-60], ObstacleKind.DAMAGED),
        (b"MSWIM\0\0\0" + bytes(300), ObstacleKind.UNSUPPORTED),
        (b"\x60\xea\x20\0\x1e\x0b\x01\0\x10\0\2" + bytes(300), ObstacleKind.UNSUPPORTED),
    ],
    ids=lambda value: value.value if isinstance(value, ObstacleKind) else "",
)
def test_what_is_not_read_is_an_obstacle(content: bytes, kind: ObstacleKind) -> None:
    found = opened(content)[1]
    assert kind in {obstacle.kind for obstacle in found}
    assert all(obstacle.part == "2" and obstacle.chain[0] == "a" and obstacle.reason for obstacle in found)


def test_names_in_an_encrypted_archive_are_seen() -> None:
    for content in (encrypted_zip(), encrypted_7z()):
        members, _ = opened(content)
        assert [(member.chain, member.content) for member in members] == [(("a", "secret.exe"), None)]


def nested(levels: int, content: bytes, width: int = 1) -> bytes:
    for level in range(levels):
        content = zip_of({f"{level}-{n}.zip": content for n in range(width)})
    return content


def test_archives_inside_archives_are_opened_five_deep() -> None:
    assert programs(nested(5, PROGRAM))
    members, obstacles = opened(nested(6, PROGRAM))
    assert [obstacle.kind for obstacle in obstacles] == [ObstacleKind.DEPTH]
    assert len(obstacles[0].chain) == 6
    assert len(members) == 5


BOMBS: Final = {
    "one large file": (zip_of({"a": bytes(40 * MIB)}), ObstacleKind.BYTES),
    "sixteen of sixteen of sixteen": (nested(3, zip_of({"a": bytes(2 * MIB)}), 16), ObstacleKind.BYTES),
    "overlapping files": (overlapping_zip(5000, MIB), ObstacleKind.BYTES),
    "overlapping small files": (overlapping_zip(5000, 10), ObstacleKind.ENTRIES),
    "many entries": (zip_of({str(n): b"" for n in range(2001)}, zipfile.ZIP_STORED), ObstacleKind.ENTRIES),
    "many entries in a tar": (tar_of({str(n): b"" for n in range(2001)}, form=tarfile.USTAR_FORMAT), ObstacleKind.ENTRIES),
    "many entries in a 7z": (by_libarchive("7zip", {str(n): b"x" for n in range(2001)}), ObstacleKind.ENTRIES),
    "gzip in gzip": (gzip.compress(gzip.compress(bytes(100 * MIB))), ObstacleKind.BYTES),
    "bzip2": (tar_of({"a": bytes(40 * MIB)}, "w:bz2"), ObstacleKind.BYTES),
    "xz": (tar_of({"a": bytes(40 * MIB)}, "w:xz"), ObstacleKind.BYTES),
    "7z": (by_libarchive("7zip", {"a": bytes(40 * MIB)}), ObstacleKind.BYTES),
    "zstd": (by_libarchive("raw", {"a": bytes(40 * MIB)}, "zstd"), ObstacleKind.BYTES),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_at_a_limit_and_is_told(bomb: str) -> None:
    content, kind = BOMBS[bomb]
    expanded, found, budget = 0, set(), Budget(len(content))
    allowed = budget.bytes_left
    for each in walk("2", ("a",), content, budget):
        if isinstance(each, Obstacle):
            found.add(each.kind)
        elif each.is_inside:
            expanded += len(each.content or b"")
    assert kind in found
    assert expanded <= allowed <= max(10 * MIB, 200 * len(content))


def test_time_is_a_limit_too_and_nothing_is_opened_after_it() -> None:
    now = iter(range(10_000))
    budget = Budget(1000, Limits(cpu_s=20), clock=lambda: next(now))
    found = list(walk("2", ("a",), zip_of({str(n): b"x" for n in range(100)}), budget))
    assert [each.kind for each in found if isinstance(each, Obstacle)] == [ObstacleKind.TIME]
    again = list(walk("3", ("b",), zip_of(FILES), budget))
    assert [type(each) for each in again] == [Member, Obstacle]


def test_what_takes_its_reader_too_long_is_ended() -> None:
    """The child has one second of CPU at least: what it does with a file of zeros of this size takes longer."""
    limits = Limits(expanded_bytes=1 << 40, innocent_bytes=1 << 40, cpu_s=0.05)
    assert kinds(by_libarchive("raw", {"a": bytes(200 * MIB)}, "zstd"), limits) == {ObstacleKind.TIME}


def test_a_message_full_of_small_archives_does_not_get_a_child_for_each() -> None:
    small = by_libarchive("7zip", {"a": b"b"})
    members, obstacles = opened(zip_of({str(n): small for n in range(500)}), limits=Limits(cpu_s=0.5))
    assert [obstacle.kind for obstacle in obstacles] == [ObstacleKind.TIME]
    assert 0 < len(members) < 500


def test_a_reader_that_crashes_or_is_not_there_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library_version().startswith("libarchive ")
    content = by_libarchive("7zip", FILES)
    for program, kind, reason in (
        ("import os; os.abort()", ObstacleKind.DAMAGED, "ended with -6"),
        ("import sys; sys.exit(3)", ObstacleKind.UNSUPPORTED, "libarchive is not on this machine"),
    ):
        monkeypatch.setattr(opener, "_command", lambda *_, program=program: [opener.sys.executable, "-I", "-S", "-c", program])
        [obstacle] = opened(content)[1]
        assert obstacle.kind is kind
        assert reason in obstacle.reason
    monkeypatch.undo()
    try:
        [obstacle] = opened(content)[1]  # it is not tried again
        assert obstacle.kind is ObstacleKind.UNSUPPORTED
    finally:
        opener._missing.clear()
    assert programs(content)


READ_HERE: Final = [KINDS[kind] for kind in KINDS if kind not in ("7z", "iso", "cpio", "tar.zst", "tar.lz4", "rar", "rar5")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*READ_HERE, encrypted_zip(), overlapping_zip(20, 1000)]), st.data())
def test_mutated_archives_yield_members_and_obstacles_and_nothing_else(archive: bytes, data: st.DataObject) -> None:
    mutated = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        piece = data.draw(
            st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"PK\3\4", b"PK\5\6"]))
        )
        if data.draw(st.booleans()):
            mutated[at : at + len(piece)] = piece
        else:
            del mutated[at : at + 1 + len(piece)]
            mutated = mutated or bytearray(b"x")
    opened(bytes(mutated))


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([KINDS[kind] for kind in ("7z", "rar", "rar5", "cpio", "tar.zst")]), st.data())
def test_mutated_archives_of_other_kinds_do_neither(archive: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(6, len(archive) - 1))
    opened(archive[:at] + data.draw(st.binary(min_size=1, max_size=8)) + archive[at + 1 :])


MAGIC: Final = [
    b"PK\3\4",
    b"PK\5\6",
    b"\x1f\x8b\x08",
    b"BZh91AY&SY",
    b"\xfd7zXZ\0",
    b"\x5d\0\0",
    b"MZ",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_any_bytes_behind_a_magic_number_raise_nothing(magic: bytes, rest: bytes) -> None:
    opened(magic + rest)


def test_a_tar_with_numbers_that_are_none_does_not_go_on_for_ever() -> None:
    header = bytearray(tar_of({"a": b"b"}, form=tarfile.USTAR_FORMAT)[:512])
    for size in (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-0000000001\0", b"77777777777\0", b"abcdefghijk\0"):
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        opened(bytes(header) * 3)


def test_lies_about_sizes_do_not_matter() -> None:
    content = bytearray(zip_of({"a": PROGRAM}))
    at = content.index(b"PK\x01\x02")
    for lie in (0, 1, 0xFFFFFFFE, 0xFFFFFFFF):
        lying = bytearray(content)
        struct.pack_into("<L", lying, at + 24, lie)
        members, _ = opened(bytes(lying))
        assert [member.content for member in members] == [PROGRAM]
    struct.pack_into("<L", content, at + 16, zlib.crc32(PROGRAM) ^ 1)
    assert ObstacleKind.AMBIGUOUS in kinds(bytes(content))
