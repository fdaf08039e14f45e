"""Text of documents: where the formats keep it, damage, bounds."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_screener.formats.documents import MAX_OCTETS, document_text, xml_text
from postern_screener.formats.pdf import pdf_text


def office(pieces: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, source in pieces.items():
            archive.writestr(name, source)
    return made.getvalue()


def pdf(*streams: bytes, packed: bool = True) -> bytes:
    made = b"%PDF-1.7\n"
    for number, stream in enumerate(streams, 1):
        data = zlib.compress(stream) if packed else stream
        made += b"%d 0 obj\n<< /Length %d %s>>\nstream\n%s\nendstream\nendobj\n" % (
            number,
            len(data),
            b"/Filter /FlateDecode " if packed else b"",
            data,
        )
    return made + b"trailer\n<<>>\n%%EOF\n"


TABLE = b"begincmap\n1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n2 beginbfchar\n<0001> <006C>\n<0002> <006F>\nendbfchar\n2 beginbfrange\n<0003> <0003> <0074>\n<0004> <0006> [<0065> <0072> <0079>]\nendbfrange\n"


@pytest.mark.parametrize(
    "content",
    [
        office(
            {"word/document.xml": b"<w:document><w:p><w:r><w:t>the lot</w:t></w:r><w:r><w:t>tery</w:t></w:r></w:p></w:document>"}
        ),
        office({"word/footnotes.xml": b"<w:t>the l&#111;ttery</w:t>"}, zipfile.ZIP_STORED),
        office({"word/header1.xml": "<w:t>the lottery</w:t>".encode("utf-16")}),
        office({"xl/sharedStrings.xml": b"<sst><si><t>the lottery</t></si></sst>"}),
        office({"xl/worksheets/sheet1.xml": b"<c t='inlineStr'><is><t>the lottery</t></is></c>"}),
        office({"ppt/slides/slide1.xml": b"<a:p><a:r><a:t>the</a:t></a:r></a:p><a:p><a:t>lottery</a:t></a:p>"}),
        office({"content.xml": b"<text:p>the<text:s/>lot<text:span>tery</text:span></text:p>"}),
        office({"word/document.xml": b"<w:t><![CDATA[the lottery]]></w:t>"}),
        pdf(b"BT /F1 12 Tf (the lottery) Tj ET"),
        pdf(b"BT (the lottery) Tj ET", packed=False),
        pdf(b"BT [(the) -300 (lot) 20 (tery)] TJ ET"),
        pdf(b"BT (the) Tj 0 -12 Td (lottery) Tj ET"),
        pdf(b"BT (the l\\157t\\\ntery) Tj ET"),
        pdf(b"BT (the ) Tj <6c6f7474657279> Tj ET"),
        pdf(b"BT (the) ' 1 0 Td (l) Tj 1 0 Td (o) Tj 1 0 Td (t) Tj 1 0 Td (tery) Tj ET"),
        pdf(b"BT [<00010002> 5 <00030003000400050006>] TJ ET", TABLE),
    ],
)
def test_the_words_of_a_document_are_read(content: bytes) -> None:
    assert any("lottery" in text for text in document_text(content))


def test_paragraphs_and_cells_are_no_word() -> None:
    assert xml_text(b"<w:p><w:t>lot</w:t></w:p><w:p><w:t>tery</w:t></w:p>").split() == ["lot", "tery"]
    assert xml_text(b"<c><v>lot</v></c><c><v>tery</v></c>").split() == ["lot", "tery"]


def test_entities_of_a_document_type_are_not_expanded() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "lottery"><!ENTITY b SYSTEM "file:///etc/passwd">]><w:t>&a;&b;</w:t>'
    assert xml_text(bomb).endswith("&a;&b;")


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"%PDF-", b"PK\x03\x04" + bytes(100), b"hello lottery", office({"other.xml": b"lottery"})]
)
def test_what_is_no_document_has_no_text(content: bytes) -> None:
    assert [text for text in document_text(content) if text] == []


def test_what_unpacks_to_more_than_the_limit_is_cut() -> None:
    document = office({f"word/header{k}.xml": b"<w:t>a</w:t>" * 1_000_000 for k in range(5)})
    assert sum(map(len, document_text(document))) < MAX_OCTETS
    assert sum(map(len, document_text(pdf(*[b"BT (" + b"a" * 5_000_000 + b") Tj ET"] * 5)))) <= 2 * MAX_OCTETS


def test_a_damaged_piece_hides_no_other() -> None:
    content = office({"word/header1.xml": b"<w:t>first</w:t>" * 99, "word/document.xml": b"<w:t>the lottery</w:t>"})
    place = content.index(b"word/header1.xml") + 30
    damaged = content[:place] + b"\xff" * 8 + content[place + 8 :]
    assert any("lottery" in text for text in document_text(damaged))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_a_document_or_none(content: bytes, place: int) -> None:
    whole = office({"word/document.xml": b"<w:t>the lottery</w:t>"})
    for made in (
        b"%PDF-" + content,
        b"%PDF- obj << >> stream\n" + content,
        b"%PDF-stream\nBT" + content,
        b"%PDF-stream\nbeginbfchar" + content,
        b"PK\x03\x04" + content,
    ):
        list(document_text(made))
    list(document_text(whole[:place] + content[:5] + whole[place + 5 :]))
    xml_text(content)


@pytest.mark.parametrize(
    "junk",
    [
        b"stream\n",
        b"(",
        b"((",
        b"\\(",
        b"<",
        b"[",
        b"1 ",
        b"beginbfchar",
        b"beginbfchar endbfchar",
        b"<00> <00> ",
        b"<0000> <ffff> <0000> ",
        b"stream\nendstream ",
    ],
)
def test_hostile_pdf_takes_bounded_time(junk: bytes) -> None:
    for before in (b"%PDF-", b"%PDF-stream\nBT ", b"%PDF-stream\nbeginbfrange "):
        list(pdf_text(before + junk * (500_000 // len(junk)), MAX_OCTETS, 1.0))  # the test's time-out is the assertion


@pytest.mark.parametrize("junk", [b"<", b"<w:t", b"<![CDATA[", b"&#", b"</w:p", b"&", b"<w:br"])
def test_hostile_xml_takes_linear_time(junk: bytes) -> None:
    xml_text(junk * (1_000_000 // len(junk)))  # the test's time-out is the assertion
