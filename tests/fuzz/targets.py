"""What is fuzzed: functions that take any bytes and raise only where the code under test broke a promise."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Final
from zipfile import ZIP_DEFLATED, ZIP_STORED

import msgspec

from fixtures.ambiguous import AMBIGUOUS
from fixtures.archives import docx, tar_of, zip_of
from fixtures.corpus import ACCEPTED
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.file_names import compared_names, normalise_name
from postern_core.ids import derived_queue_id
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    KeywordScope,
    LanguageCondition,
    MalformedCondition,
    Not,
    Rule,
    RuleMode,
    ScreeningPolicy,
    SenderCondition,
    UnscannableAction,
    UnscannablePolicy,
)
from postern_core.verdict import Action, Unscannable
from postern_screener.charsets import (
    decode_base64,
    decode_text,
    decode_transfer,
    is_plain_ascii,
    text_readings,
    transfer_encoding,
)
from postern_screener.contents.budget import Limits
from postern_screener.encoded_words import decode_leniently
from postern_screener.filenames import candidate_names, extensions, parameter, parameters
from postern_screener.html_text import source_index, visible_text
from postern_screener.mime import MAX_PARTS, read_message
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.screening import EXCERPT_CHARACTERS, MAX_FINDINGS, screen
from postern_screener.second_reading import MAX_LEAVES, read_again
from postern_screener.text import searchable
from postern_screener.trying import try_out
from postern_screener.unscannable import MAX_OBSTACLES, header_fields

MAX_OCTETS: Final = 16 * 1024


@cache
def ruleset() -> Ruleset:
    """Every kind of condition, and none that decides: all of them are looked at, and what is malformed passes with its field."""
    keyword = KeywordCondition(phrases=("lottery", "a", "win  big", "ß"), scope=KeywordScope.BOTH)
    name = AttachmentCondition(match=AttachmentMatch.NAME, values=("evil.exe", "a"))
    conditions = (
        keyword,
        KeywordCondition(phrases=("the lottery", "b"), whole_word=True, scope=KeywordScope.HEADER),
        SenderCondition(patterns=("*.example", "evil.example", "a@sender.example")),
        AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe", "tar.gz", "b")),
        AttachmentCondition(match=AttachmentMatch.SIZE, larger_than_bytes=1),
        MalformedCondition(),
        LanguageCondition(languages=("en", "ru")),
        AllOf(of=(keyword, Not(of=name))),
        AnyOf(of=(name, MalformedCondition())),
        KeywordCondition(phrases=("lottery", "a"), scope=KeywordScope.ALL),
    )
    rules = tuple(
        Rule(id=f"r{n}", name=f"r{n}", condition=each, action=Action.DELETE, mode=RuleMode.MONITOR)
        for n, each in enumerate(conditions)
    )
    answers = {kind.value: UnscannableAction.PASS for kind in Unscannable if kind is not Unscannable.POISON}
    return compile_policy(ScreeningPolicy(revision=1, rules=rules, unscannable=UnscannablePolicy(**answers)))


@cache
def envelope() -> Envelope:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Envelope(
        id=derived_queue_id(at, b"fuzz" * 8),
        gate=Gate.ANON,
        reverse_path="x@sender.example",
        recipients=(Recipient(n=0, address="a@relay.example"),),
        size_bytes=1,
        accepted_at=at,
        client=Client(address="127.0.0.1"),
    )


def screening(data: bytes) -> None:
    """Any bytes have a verdict, always the same one, within its bounds, that travels."""
    screened = screen(envelope(), data, ruleset())
    assert screen(envelope(), data, ruleset()) == screened
    verdict = screened.verdict
    assert len(verdict.findings) <= MAX_FINDINGS
    assert len(verdict.obstacles) <= MAX_OBSTACLES
    assert all(len(each.excerpt) <= EXCERPT_CHARACTERS and each.offset >= 0 for each in verdict.findings)
    fields = header_fields(verdict)
    assert fields.isascii()
    assert all(len(line) < 998 for line in fields.split(b"\r\n"))
    assert bool(fields) == bool(verdict.obstacles)
    assert msgspec.json.decode(msgspec.json.encode(screened), type=type(screened)) == screened


def mime(data: bytes) -> None:
    """Any bytes are read, and no part of them is without end."""
    message = read_message(data)
    assert len(message.parts) <= MAX_PARTS + MAX_LEAVES
    for part in message.parts:
        assert len(part.content()) <= len(data)
        assert part.path
    for block in message.headers:
        assert len(block.readings) in (1, 2, 3)


def second_reading(data: bytes) -> None:
    """What it puts into leaves is bounded, whatever the message."""
    reading = read_again(data)
    assert len(reading.leaves) <= MAX_LEAVES
    assert sum(len(leaf.content) for leaf in reading.leaves) <= 9 * len(data) + 65536


def file_names(data: bytes) -> None:
    field = data.decode("utf-8", "replace")
    names = candidate_names(field.split("\n"))
    assert all(names)
    assert len(names) == len(set(names))
    for name in [*names, field]:
        normalised = normalise_name(name)
        assert normalised == compared_names(name)[0]
        assert all(extensions(normalised))
    assert parameter(field, "charset") == "" or parameters(field)


def charsets(data: bytes) -> None:
    declared, _, content = data.partition(b"\n")
    charset = declared.decode("latin-1")
    readings = text_readings(content, charset)
    assert readings
    assert readings[0][0] == decode_text(content, charset)
    if is_plain_ascii(content, charset):
        assert content.decode("ascii") in [text for text, _ in readings]
    assert len(decode_base64(content)) <= len(content)
    for encoding in ("base64", "quoted-printable", transfer_encoding(charset)):
        assert len(decode_transfer(content, encoding)) <= len(content) + 1


def html(data: bytes) -> None:
    source = data.decode("utf-8", "replace")
    visible = visible_text(source)
    assert len(visible) <= len(source)
    for index in (0, len(visible) // 2, len(visible)):
        assert 0 <= source_index(source, index) <= len(source)


def encoded_words(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert "=?" in text or decode_leniently(text) is text
    assert len(decode_leniently(text)) <= 4 * len(text) + 4


def texts(data: bytes) -> None:
    """Every place in what is searched leads back into the part."""
    declared, _, content = data.partition(b"\n")
    for where in searchable(content, declared.decode("latin-1"), is_html=True):
        for start in (0, len(where.data) // 2):
            assert where.locate(start, len(where.data)).offset >= 0


def archives(data: bytes) -> None:
    """Any bytes as an attachment are opened and searched within bounds, and every place in them is told."""
    encoded = base64.encodebytes(data)
    head = b'Content-Type: application/octet-stream; name="a.zip"\nContent-Transfer-Encoding: base64\n\n'
    tried = try_out(envelope(), (head + encoded).replace(b"\n", b"\r\n"), ruleset(), places=True)
    for place in tried.places:
        assert place.offset >= 0
        assert place.part
        assert len(place.chain) <= 2 * Limits().depth + 2
    assert msgspec.json.decode(msgspec.json.encode(tried), type=type(tried)) == tried


TARGETS: Final[tuple[Callable[[bytes], None], ...]] = (
    screening,
    mime,
    second_reading,
    file_names,
    charsets,
    html,
    encoded_words,
    texts,
    archives,
)


def seeds() -> list[bytes]:
    """Mail to begin with: the fixtures of the tests, those that are not too long."""
    found = [*ACCEPTED.values(), *(raw for raw, _ in AMBIGUOUS.values())]
    return [raw for raw in found if len(raw) <= MAX_OCTETS]


def packed() -> list[bytes]:
    """Archives with texts, documents and mail in them."""
    page = docx(word__embeddings__a_csv=b"lottery")
    mail = b"From: a\nSubject: =?utf-8?q?a?=\nContent-Type: text/html; charset=koi8-r\n\n<p>lot<b>te</b>ry"
    files = {"a/b.txt": b"the lottery", "c.docx": page, "d.eml": mail, "e.html": "größe &amp; a".encode()}
    return [zip_of(files, method) for method in (ZIP_STORED, ZIP_DEFLATED)] + [tar_of({"f.zip": zip_of(files)}, "w:gz"), page]


def seeds_of(target: Callable[[bytes], None]) -> list[bytes]:
    """What the target begins with."""
    small = {
        file_names: [b"attachment; filename*0*=utf-8''a%2e; filename*1=exe; name==?utf-8?q?b=2Eexe?=", b'a; name="a\\"b.exe'],
        charsets: [b"utf-7\n+AGw-", b"utf-16\n\xff\xfea\0", b"iso-2022-jp\n\x1b$B$3\x1b(B", b"x-unknown\nbG90=dGVyeQ=="],
        html: [b"<!-- a --><p>lot<b>te</b>ry &amp; &#108;</p><script>x</script>", b"<style>a{}</style>&lt;&NotEqualTilde;"],
        encoded_words: [b"=?utf-8?b?dGVyeQ==?= =?iso-8859-1?q?_caf=E9?=", b"lot=?utf-7*en?Q?+AGw-?==?x?q?b?="],
        archives: packed(),
        texts: [b"utf-8\n<p>lot\xc2\xadtery &nbsp; \xef\xbc\xac</p>", b"utf-7\n+AGw-"],
    }
    return small.get(target) or seeds()
