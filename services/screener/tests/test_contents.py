"""Attachment conditions: what each matches, where, and that nothing is opened for those that need no look into the content."""

from __future__ import annotations

import base64
import gzip
import struct
import zipfile
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.archives import (
    PROGRAM,
    by_libarchive,
    compound_file,
    docx,
    encrypted_7z,
    encrypted_zip,
    need_libarchive,
    overlapping_zip,
    rar_of,
    tar_of,
    zip_of,
)
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import (
    AllOf,
    AttachmentCondition,
    AttachmentMatch,
    Condition,
    KeywordCondition,
    Not,
    Rule,
    ScreeningPolicy,
)
from postern_core.policy.conditions import MATCHES_INSIDE, MATCHES_VALUES
from postern_core.policy.file_types import FILE_TYPES, types_of
from postern_core.policy.matching import criterion_key, is_lazy
from postern_core.policy.why_not import Outcome, explain, in_words
from postern_core.verdict import Action, Finding, HoldReason
from postern_screener.checks.contents import ContentCheck
from postern_screener.checks.file_names import matches_wildcard
from postern_screener.contents.deceptive import deception
from postern_screener.contents.entry import ObstacleKind
from postern_screener.contents.real_type import real_types
from postern_screener.inspection import Inspection
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened

need_libarchive()
Screens = Callable[..., Screened]


def mail(*attachments: tuple[str, bytes], media_type: str = "application/octet-stream") -> bytes:
    parts = ["Content-Type: text/plain\r\n\r\nhello\r\n"]
    for name, content in attachments:
        encoded = base64.encodebytes(content).decode().replace("\n", "\r\n")
        parts.append(f'Content-Type: {media_type}; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}')
    body = "".join(f"--b\r\n{part}\r\n" for part in parts) + "--b--\r\n"
    return f"From: x@sender.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{body}".encode()


def asks(match: str, *values: str, inside: bool = False, **fields: Any) -> AttachmentCondition:
    return AttachmentCondition(match=AttachmentMatch(match), values=values, inside=inside, **fields)


def a_rule(condition: Condition) -> Rule:
    return Rule(id="r", name="r", condition=condition, action=Action.HOLD)


def found(screens: Screens, body: bytes, condition: Condition) -> Finding | None:
    verdict = screens(body, a_rule(condition)).verdict
    # what could not be opened is held without any rule, too
    assert bool(verdict.findings) == (verdict.hold_reason is HoldReason.RULE)
    return next(iter(verdict.findings), None)


JPEG: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + bytes(200)
VBA: Final = compound_file({"_VBA_PROJECT": b"\xcc\x61", "dir": b"x"}, storages=("VBA",))
ENCRYPTED_OFFICE: Final = compound_file({"EncryptionInfo": b"x", "EncryptedPackage": b"y"})


def word_97(*, flags: int = 0, more: dict[str, bytes] | None = None) -> bytes:
    return compound_file({"WordDocument": b"\xec\xa5" + bytes(8) + struct.pack("<H", flags) + bytes(500), **(more or {})})


def excel_97(*records: tuple[int, bytes]) -> bytes:
    stream = b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in ((0x809, bytes(16)), *records, (0x0A, b"")))
    return compound_file({"Workbook": stream})


@pytest.mark.parametrize(
    ("condition", "name", "content", "excerpt"),
    [
        (asks("wildcard", "inv*.p?f"), "Invoice 7.pdf", b"x", "Invoice 7.pdf"),
        (asks("wildcard", "inv*.p?f"), "my invoice.pdf", b"x", None),
        (asks("wildcard", "*scan*"), "ＳＣＡＮ.doc", b"x", "ＳＣＡＮ.doc"),
        (asks("declared-type", "application/octet-stream"), "a", b"x", "application/octet-stream"),
        (asks("declared-type", "application/*"), "a", b"x", "application/octet-stream"),
        (asks("declared-type", "image/*"), "a", b"x", None),
        (asks("real-type", "exe"), "holiday.jpg", PROGRAM, "exe"),
        (asks("real-type", "program"), "holiday.jpg", PROGRAM, "exe"),
        (asks("real-type", "program"), "a.exe", JPEG, None),
        (asks("real-type", "zip"), "a.docx", docx(), "docx"),
        (asks("real-type", "zip"), "a.jpg", JPEG + zip_of({"a": b"b"}), "zip"),
        (asks("real-type", "exe"), "a.zip", zip_of({"a": PROGRAM}), None),
        (asks("count", more_than=0), "a", b"x", "1 attachments"),
        (asks("count", more_than=1), "a", b"x", None),
        (asks("type-mismatch"), "invoice.pdf", PROGRAM, ".pdf is exe"),
        (asks("type-mismatch"), "invoice.pdf", b"%PDF-1.7\n", None),
        (asks("type-mismatch"), "invoice.pdf", b"\x01\x02\x03", ".pdf is data"),
        (asks("type-mismatch"), "a.docx", docx(), None),
        (asks("type-mismatch"), "a.docx", ENCRYPTED_OFFICE, None),
        (asks("type-mismatch"), "a.docx", zip_of({"a": b"b"}), ".docx is zip"),
        (asks("type-mismatch"), "a.doc", word_97(), None),
        (asks("type-mismatch"), "a.doc", b"{\\rtf1}", None),
        (asks("type-mismatch"), "a.txt", b"plain", None),
        (asks("type-mismatch"), "a.txt", PROGRAM, ".txt is exe"),
        (asks("type-mismatch"), "a.png", JPEG, None),
        (asks("type-mismatch"), "a.unknown", PROGRAM, None),
        (asks("type-mismatch"), "a.tgz", tar_of({"a": b"b"}, "w:gz"), None),
        (asks("deceptive-name"), "a.pdf.exe", b"x", "a.pdf.exe"),
        (asks("deceptive-name"), "setup-1.2.exe", b"x", None),
        (asks("encrypted"), "a.zip", encrypted_zip(), "zip: encrypted"),
        (asks("encrypted"), "a.zip", zip_of({"a": b"b"}), None),
        (asks("encrypted"), "a.7z", encrypted_7z(), "7z: its content is encrypted"),
        (asks("encrypted"), "a.docx", ENCRYPTED_OFFICE, "an encrypted document"),
        (asks("encrypted"), "a.doc", word_97(flags=0x0100), "an encrypted document"),
        (asks("encrypted"), "a.doc", word_97(), None),
        (asks("encrypted"), "a.xls", excel_97((0x2F, bytes(54))), "an encrypted document"),
        (asks("encrypted"), "a.xls", excel_97(), None),
        (asks("macro"), "a.doc", word_97(more={"_VBA_PROJECT": b"x"}), "macros"),
        (asks("macro"), "a.doc", word_97(more={"_Vba_Project": b"x"}), "macros"),
        (asks("macro"), "a.doc", word_97(), None),
        (asks("macro"), "a.xls", excel_97((0x85, bytes(4) + b"\0\1\5\0sheet")), "macros"),
        (asks("macro"), "a.xls", excel_97((0x85, bytes(4) + b"\0\0\5\0sheet")), None),
        (asks("macro"), "a.docx", docx(), None),
        (asks("unopened"), "a.zip", zip_of({"a": PROGRAM})[:-30], "zip: its directory is missing"),
        (asks("unopened"), "a.zip", zip_of({"a": PROGRAM}), None),
        (asks("nesting", more_than=0), "a.zip", zip_of({"a": PROGRAM}), "1 archives inside each other"),
        (asks("nesting", more_than=1), "a.tgz", tar_of({"a": b"b"}, "w:gz"), None),
        (asks("nesting", more_than=0), "a.docx", docx(), None),
    ],
)
def test_conditions_on_the_attachment_itself(
    screens: Screens, condition: AttachmentCondition, name: str, content: bytes, excerpt: str | None
) -> None:
    body = mail((name, content))
    finding = found(screens, body, condition)
    assert (None if finding is None else (finding.part, finding.excerpt, finding.chain[:1])) in (
        None if excerpt is None else ("2", excerpt, ()),
        None if excerpt is None else ("2", excerpt, (name,)),
    )
    assert (found(screens, body, Not(of=condition)) is None) == (excerpt is not None)


@pytest.mark.parametrize(
    ("condition", "content", "chain"),
    [
        (asks("name", "evil.exe", inside=True), zip_of({"evil.exe": b"x"}), ("a.zip", "evil.exe")),
        (asks("name", "some/evil.exe", inside=True), zip_of({"some/evil.exe": b"x"}), ("a.zip", "some/evil.exe")),
        (asks("wildcard", "ev*.exe", inside=True), zip_of({"evil.exe": b"x"}), ("a.zip", "evil.exe")),
        (
            asks("extension", "exe", inside=True),
            zip_of({"b.tar.gz": tar_of({"evil.exe": b"x"}, "w:gz")}),
            ("a.zip", "b.tar.gz", "evil.exe"),
        ),
        (asks("extension", "exe", inside=True), encrypted_zip(), ("a.zip", "secret.exe")),
        (asks("extension", "exe", inside=True), gzip.compress(rar_of({"evil.exe": b"x"})), ("a.zip", "evil.exe")),
        (asks("extension", "exe", inside=True), docx(word__evil_exe=b"x"), ("a.zip", "word/evil.exe")),
        (asks("real-type", "exe", inside=True), zip_of({"a.jpg": PROGRAM}), ("a.zip", "a.jpg")),
        (asks("real-type", "exe", inside=True), PROGRAM, ()),
        (asks("size", larger_than_bytes=10_000, inside=True), zip_of({"a": bytes(10_001)}), ("a.zip", "a")),
        (asks("type-mismatch", inside=True), zip_of({"a.pdf": PROGRAM}), ("a.zip", "a.pdf")),
        (asks("deceptive-name", inside=True), zip_of({"a.pdf.exe": b"x"}), ("a.zip", "a.pdf.exe")),
        (asks("nesting", more_than=1), zip_of({"b.7z": by_libarchive("7zip", {"a": b"b"})}), ("a.zip", "b.7z")),
        (asks("encrypted"), zip_of({"b.zip": encrypted_zip()}), ("a.zip", "b.zip", "secret.exe")),
        (asks("encrypted"), zip_of({"b.docx": ENCRYPTED_OFFICE}), ("a.zip", "b.docx")),
        (asks("macro"), docx(word__vbaProject_bin=b"anything"), ("a.zip", "word/vbaProject.bin")),
        (asks("macro"), docx(word__harmless_bin=VBA), ("a.zip", "word/harmless.bin")),
        (asks("macro"), zip_of({"b.xls": word_97(more={"_VBA_PROJECT": b"x"})}), ("a.zip", "b.xls")),
        (asks("macro"), docx(xl__macrosheets__sheet1_xml=b"<x/>"), ("a.zip", "xl/macrosheets/sheet1.xml")),
        (asks("unopened"), overlapping_zip(3000, 1), ("a.zip",)),
    ],
)
def test_conditions_on_what_lies_inside_say_where(
    screens: Screens, condition: AttachmentCondition, content: bytes, chain: tuple[str, ...]
) -> None:
    finding = found(screens, mail(("x", b"x"), ("a.zip", content)), condition)
    assert finding is not None
    assert finding.part == "3"
    assert finding.chain[: len(chain)] == chain


def test_what_lies_inside_counts_only_where_a_rule_says_so(screens: Screens) -> None:
    body = mail(("a.zip", zip_of({"evil.exe": PROGRAM})))
    for match, values in (("extension", ("exe",)), ("name", ("evil.exe",)), ("real-type", ("exe",)), ("wildcard", ("*.exe",))):
        assert found(screens, body, asks(match, *values)) is None
        assert found(screens, body, asks(match, *values, inside=True)) is not None


def test_conditions_on_what_lies_inside_are_asked_of_the_attachment_too(screens: Screens) -> None:
    body = mail(("evil.exe", PROGRAM))
    for condition in (
        asks("name", "evil.exe", inside=True),
        asks("wildcard", "e*.exe", inside=True),
        asks("extension", "exe", inside=True),
        asks("size", larger_than_bytes=10, inside=True),
        asks("real-type", "exe", inside=True),
        asks("type-mismatch", inside=True),
    ):
        finding = found(screens, body.replace(b"octet-stream", b"pdf"), condition)
        assert finding is not None
        assert (finding.part, finding.chain) == ("2", ())


def test_what_nobody_looked_at_is_not_blamed(screens: Screens) -> None:
    """The api judges again what the screener wrote down: a condition that no rule came to counts as not known."""
    body = mail(("a.zip", zip_of({"evil.exe": PROGRAM})))
    inside = asks("extension", "exe", inside=True)
    absent = KeywordCondition(phrases=("absent",))
    rules = (
        msgspec.structs.replace(a_rule(AllOf(of=(absent, inside))), id="not come to"),
        msgspec.structs.replace(a_rule(AllOf(of=(inside, absent))), id="found there"),
    )
    verdict = screens(body, *rules).verdict
    assert [(each.rule.id, each.outcome, each.path) for each in explain(rules, verdict.criteria, verdict.unasked)] == [
        ("not come to", Outcome.FAILED, "condition.of.0"),
        ("found there", Outcome.FAILED, "condition.of.1"),
    ]
    assert verdict.criteria == ()  # nothing was opened
    verdict = screens(body, a_rule(inside)).verdict
    assert verdict.criteria == (criterion_key(inside),)


def test_parts_that_every_document_has_are_no_files_in_an_archive(screens: Screens) -> None:
    body = mail(("a.docx", docx(word__printerSettings1_bin=b"x", word__media__image1_png=JPEG)))
    assert found(screens, body, asks("extension", "bin", "png", "xml", inside=True)) is None
    assert found(screens, body, asks("type-mismatch", inside=True)) is None
    assert found(screens, body, asks("real-type", "jpeg", inside=True)) is not None


def test_the_names_of_a_chain_are_one_line_each(screens: Screens) -> None:
    finding = found(
        screens, mail(("a", zip_of({"x\r\ny\u202e" + "z" * 500 + ".exe": b"x"}))), asks("extension", "exe", inside=True)
    )
    assert finding is not None
    assert finding.chain[1].isprintable()
    assert len(finding.chain[1]) == 200


def inspection(body: bytes, *conditions: Condition) -> Inspection:
    queue_id = new_queue_id()
    envelope = Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="x@sender.example",
        recipients=(Recipient(n=0, address="a@relay.example"),),
        size_bytes=len(body),
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )
    rules = tuple(a_rule(condition) for condition in conditions)
    looked = Inspection(envelope, body, compile_policy(ScreeningPolicy(revision=1, rules=rules)))
    for rule in looked.ruleset.candidates(looked.found):
        rule.matches(looked.holds)
    return looked


def test_nothing_is_opened_unless_a_rule_comes_to_it() -> None:
    body = mail(("a.zip", encrypted_zip()))
    needs_it = asks("encrypted")
    for conditions in (
        (asks("extension", "exe"), asks("size", larger_than_bytes=1), asks("real-type", "exe"), asks("type-mismatch")),
        (AllOf(of=(KeywordCondition(phrases=("not there",)), needs_it)),),
        (AllOf(of=(asks("count", more_than=7), needs_it)),),
        (),
    ):
        assert inspection(body, *conditions).known_obstacles == ()
    opened = inspection(body, AllOf(of=(KeywordCondition(phrases=("hello",)), needs_it)))
    assert [(obstacle.kind, obstacle.chain) for obstacle in opened.known_obstacles] == [
        (ObstacleKind.ENCRYPTED, ("a.zip", "secret.exe"))
    ]


def test_the_policy_may_ask_for_obstacles_without_any_rule() -> None:
    [obstacle] = inspection(mail(("a.zip", encrypted_zip())), KeywordCondition(phrases=("x",))).obstacles
    assert (obstacle.kind, obstacle.part) == (ObstacleKind.ENCRYPTED, "2")
    assert inspection(mail(("a.zip", zip_of({"a": b"b"})))).obstacles == ()
    assert inspection(b"").obstacles == ()


def test_all_attachments_of_a_message_share_one_budget(screens: Screens) -> None:
    each = zip_of({str(n): b"" for n in range(300)}, zipfile.ZIP_STORED)
    assert found(screens, mail(*[("a.zip", each)] * 6), asks("unopened")) is None
    finding = found(screens, mail(*[("a.zip", each)] * 7), asks("unopened"))
    assert finding is not None
    assert (finding.part, finding.excerpt) == ("8", "more than 2000 entries")


@pytest.mark.parametrize(
    ("name", "deceives"),
    [
        ("invoice.pdf.exe", True),
        ("invoice.pdf     .exe", True),
        ("invoice     .pdf", True),
        ("invoice .pdf", False),
        ("annual\u202efdp.exe", True),
        ("annual\u2066x.doc", True),
        ("a.exe.", True),
        ("a.exe  ", True),
        ("a.\u200bexe", True),
        ("photo.jpg.lnk", True),
        ("photo.jpg.zip", False),
        ("a.tar.gz", False),
        ("setup.exe", False),
        ("version 1.2.3.msi", False),
        ("Dr. Smith.docx", False),
        ("report.2026.pdf", False),
        ("", False),
        ("." * 5000, False),
        (" " * 100_000 + ".", False),
        ("   ." * 30_000, False),
        ("   .a" * 800 + "x y", False),
    ],
)
def test_names_that_deceive(name: str, deceives: bool) -> None:
    assert bool(deception(name)) == deceives


@given(st.text(alphabet="ab?*", max_size=8), st.text(alphabet="ab", max_size=8))
def test_wildcards_match_what_they_should(pattern: str, name: str) -> None:
    def slowly(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(slowly(pattern[1:], name[k:]) for k in range(len(name) + 1))
        return bool(name) and pattern[0] in ("?", name[0]) and slowly(pattern[1:], name[1:])

    assert matches_wildcard(pattern, name) == slowly(pattern, name)


def test_a_hostile_name_and_a_wildcard_of_many_stars_take_no_time() -> None:
    assert not matches_wildcard("*a" * 400 + "b", "a" * 4000)  # the test's time-out is the assertion


TYPES: Final[dict[str, bytes]] = {
    "exe": PROGRAM,
    "elf": b"\x7fELF\2\1\1" + bytes(50),
    "mach-o": b"\xca\xfe\xba\xbe\0\0\0\2" + bytes(50),
    "java-class": b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(50),
    "lnk": b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F" + bytes(50),
    "shell-script": b"#!/bin/sh\necho\n",
    "registry": b"\xff\xfe" + "Windows Registry Editor Version 5.00\r\n".encode("utf-16-le"),
    "internet-shortcut": b"[InternetShortcut]\r\nURL=http://x.example/\r\n",
    "jar": zip_of({"META-INF/MANIFEST.MF": b"", "A.class": b""}),
    "apk": zip_of({"AndroidManifest.xml": b"", "classes.dex": b""}),
    "msi": compound_file({"x": b"y"}, class_id=bytes.fromhex("84100c0000000000c000000000000046")),
    "zip": zip_of({"a": b"b"}),
    "tar": tar_of({"a": b"b"}),
    "lzma": b"\x5d\0\0\x80\0" + b"\xff" * 8 + bytes(20),
    "arj": b"\x60\xea\x20\0\x1e\x0b\x01\0\x10\0\2" + bytes(50),
    "pdf": b"\n\n%PDF-1.4\n",
    "rtf": b"{\\rtf1 hello}",
    "doc": word_97(),
    "xls": excel_97(),
    "msg": compound_file({"__properties_version1.0": b"x"}),
    "ole": compound_file({"x": b"y"}),
    "docx": docx(),
    "xlsx": zip_of({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
    "pptx": zip_of({"[Content_Types].xml": b"", "ppt/presentation.xml": b""}),
    "odt": zip_of({"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b""}, zipfile.ZIP_STORED),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "jpeg": JPEG,
    "bmp": b"BM" + bytes(12) + struct.pack("<L", 40) + bytes(50),
    "svg": b"<?xml version='1.0'?><!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>",
    "mp4": b"\0\0\0\x18ftypisom" + bytes(50),
    "text": b"Hello, world.\r\n",
    "html": b"\xef\xbb\xbf <!-- x --> <HTML><body>",
    "xml": b"<?xml version='1.0'?><a/>",
    "mail": b"Received: x\r\n\tby y\r\nFrom: a\r\nTo: b\r\nSubject: c\r\n\r\nhi",
    "data": b"\x00\x01\x02\x03",
}


@pytest.mark.parametrize("name", TYPES)
def test_types_are_known_by_their_content(name: str) -> None:
    assert next(iter(real_types(TYPES[name]))) in (name, "text" if name == "pdf" else name)
    assert name in real_types(TYPES[name])


def test_every_type_that_is_told_has_a_name_for_rules() -> None:
    assert real_types(b"") == ()
    assert types_of("zip") > {"docx", "jar"}
    assert types_of("program") >= {"exe", "jar", "lnk"}
    with pytest.raises(ValueError, match="no file type"):
        types_of("nothing")


@given(st.sampled_from([content[:40] for content in TYPES.values()]), st.binary(max_size=200))
def test_any_bytes_are_of_some_type(beginning: bytes, rest: bytes) -> None:
    for content in (beginning + rest, rest):
        assert all(name in FILE_TYPES for name in real_types(content))


@given(st.sampled_from([word_97(more={"_VBA_PROJECT": b"x"}), excel_97((0x2F, bytes(54))), ENCRYPTED_OFFICE]), st.data())
def test_mutated_documents_raise_nothing(content: bytes, data: st.DataObject) -> None:
    mutated = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(8, 1600))
        mutated[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    body = mail(("a.doc", bytes(mutated)))
    looked = inspection(body, asks("macro"), asks("encrypted"))
    assert all(obstacle.kind is ObstacleKind.ENCRYPTED for obstacle in looked.known_obstacles)


@pytest.mark.parametrize(
    "condition",
    [asks("real-type", "nothing"), asks("wildcard", ""), asks("declared-type", "pdf"), asks("extension", ".", inside=True)],
)
def test_a_condition_that_could_never_match_does_not_compile(condition: AttachmentCondition) -> None:
    with pytest.raises(ValueError):
        compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(condition),)))


@pytest.mark.parametrize("match", list(AttachmentMatch))
def test_every_condition_can_be_put_in_words(match: AttachmentMatch) -> None:
    words = {in_words(asks(match, "value", inside=inside)) for inside in (False, True)}
    assert all("attachment" in each or "archives" in each for each in words)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("match", list(AttachmentMatch))
def test_what_is_looked_at_lazily_is_what_the_record_takes_for_it(match: AttachmentMatch, inside: bool) -> None:
    value = {AttachmentMatch.REAL_TYPE: "exe", AttachmentMatch.DECLARED_TYPE: "a/b"}.get(match, "value")
    values = (value,) if match in MATCHES_VALUES else ()
    condition = asks(match, *values, inside=inside and match in MATCHES_INSIDE)
    check = ContentCheck([(0, condition)])
    assert (0 in check.surface | check.deep) == is_lazy(condition)
