"""The part tree of well-formed and of hostile messages."""

from __future__ import annotations

import base64
import itertools
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_screener.message_tree import Message
from postern_screener.mime import MAX_PARTS, MalformedError, parse_message

_MARKS = itertools.count()
HEAD = b"From: a@sender.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"


def multipart(*parts: bytes, kind: bytes = b"mixed") -> bytes:
    mark = b"=_%d_" % next(_MARKS)
    lines = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts)
    return HEAD + b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind, mark) + lines + b"--" + mark + b"--\r\n"


def shape(message: Message) -> list[tuple[str, str, bytes]]:
    return [(part.path, part.media_type, part.content().rstrip(b"\r\n")) for part in message.parts]


def reasons(raw: bytes) -> str:
    return "; ".join(defect.reason for defect in parse_message(raw).defects)


def test_a_plain_message_is_one_part() -> None:
    message = parse_message(HEAD + b"\r\nhello\r\n")
    assert shape(message) == [("1", "text/plain", b"hello")]
    assert message.field("subject") == "s"
    assert message.defects == ()


def test_parts_are_numbered_as_imap_numbers_them() -> None:
    inner = multipart(b"\r\ntext", b"Content-Type: image/png\r\n\r\npng")
    message = parse_message(
        multipart(
            b'Content-Type: multipart/alternative; boundary="c"\r\n\r\n--c\r\n\r\na\r\n--c\r\nContent-Type: text/html\r\n\r\nb\r\n--c--',
            b"Content-Type: message/rfc822\r\n\r\n" + inner,
            b"Content-Type: message/rfc822\r\n\r\nSubject: single\r\n\r\nbody",
        )
    )
    assert [(path, kind) for path, kind, _ in shape(message)] == [
        ("1.1", "text/plain"),
        ("1.2", "text/html"),
        ("2", "message/rfc822"),
        ("2.1", "text/plain"),
        ("2.2", "image/png"),
        ("3", "message/rfc822"),
        ("3.1", "text/plain"),
    ]
    assert [(block.part, "single" in block.text) for block in message.headers] == [
        ("header", False),
        ("2.header", False),
        ("3.header", True),
    ]
    assert message.defects == ()


def test_header_fields_are_decoded_and_unfolded() -> None:
    message = parse_message(
        b"Subject: =?utf-8?q?lot?=\r\n =?utf-8?b?dGVyeQ==?= =?iso-8859-1?q?_caf=E9?=\r\nX-A: one\r\n\ttwo\r\n\r\n"
    )
    assert message.field("subject") == "lottery café"
    assert message.headers[0].text == "Subject: lottery café\nX-A: one two"


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        (b"base64", base64.encodebytes(b"hello lottery")),
        (b"BASE64 ", base64.encodebytes(b"hello lottery")),
        (b'"base64"', base64.encodebytes(b"hello lottery")),
        (b"base64 (as they say)", base64.encodebytes(b"hello lottery")),
        (b"base64", b"aGVsbG8g\r\n!!bG90dGVyeQ"),
        (b"quoted-printable", b"hello lot=\r\ntery"),
        (b"quoted-printable ", b"hello l=6Ft=\r\ntery"),
        (b"quoted-printable", quopri.encodestring(b"hello lottery")),
        (b"8bit", b"hello lottery"),
        (b"x-unknown", b"hello lottery"),
    ],
)
def test_content_is_decoded_as_clients_decode_it(encoding: bytes, raw: bytes) -> None:
    message = parse_message(
        multipart(b"Content-Transfer-Encoding: 7bit\r\n\r\nfirst", b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + raw)
    )
    assert message.parts[1].content().strip() == b"hello lottery"
    assert message.defects == ()


def test_a_list_footer_below_base64_does_not_hide_what_comes_before() -> None:
    raw = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(b"hello lottery!") + b"-- \r\na list\r\n"
    message = parse_message(raw)
    assert message.parts[0].content().startswith(b"hello lottery!")


@pytest.mark.parametrize(
    ("disposition", "content_type", "expected"),
    [
        (b"attachment; filename=a.exe", b"application/x", {"a.exe"}),
        (b"attachment; filename=a.txt", b"application/x; name=b.exe", {"a.txt", "b.exe"}),
        (b"attachment", b'application/x; name="=?utf-8?q?a=2Eexe?="', {"a.exe"}),
        (b"attachment; filename*=utf-8''%61.exe", b"application/x", {"a.exe"}),
        (b'attachment;\r\n filename*1="xe";\r\n filename*0="a.e"', b"application/x", {"a.exe"}),
        (b'attachment; filename="caf\xc3\xa9.exe"', b"application/x", {"café.exe"}),
        (b"inline", b"text/plain", set()),
    ],
)
def test_a_part_has_every_name_that_it_gives_itself(disposition: bytes, content_type: bytes, expected: set[str]) -> None:
    raw = multipart(b"Content-Disposition: " + disposition + b"\r\nContent-Type: " + content_type + b"\r\n\r\nx")
    assert set(parse_message(raw).parts[0].names) == expected


def test_an_encoded_name_that_smuggles_a_quote_still_shows_its_extension() -> None:
    raw = multipart(b'Content-Disposition: attachment; filename="=?utf-8?q?a=22;b.exe?="\r\n\r\nx')
    assert any(name.endswith("b.exe") for name in parse_message(raw).parts[0].names)


def test_messages_that_the_parser_leaves_closed_are_opened() -> None:
    inner = b"Subject: inner\r\n\r\nlottery"
    digest = multipart(b"\r\n" + inner, kind=b"digest")
    assert shape(parse_message(digest))[-1] == ("1.1", "text/plain", b"lottery")
    international = multipart(b"Content-Type: message/global\r\n\r\n" + inner)
    assert shape(parse_message(international))[-1] == ("1.1", "text/plain", b"lottery")
    encoded = multipart(b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(inner))
    assert shape(parse_message(encoded))[-1] == ("1.1", "text/plain", b"lottery")
    news = multipart(b"Content-Type: message/news\r\n\r\n" + inner)
    assert shape(parse_message(news))[-1] == ("1.1", "text/plain", b"lottery")
    long_digest = parse_message(multipart(*[b"\r\n" + inner] * 200, kind=b"digest"))
    assert len(long_digest.parts) == 400
    assert long_digest.defects == ()


def test_damaged_base64_is_decoded_wherever_it_lies() -> None:
    damaged = b"Content-Transfer-Encoding: base64\r\n\r\nbG90=dGVyeQ=="
    inner = multipart(b"\r\nfirst", damaged)
    for kind in (b"rfc822", b"global"):
        encoded = b"Content-Type: message/" + kind + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(inner)
        parts = parse_message(multipart(damaged, encoded)).parts
        assert [(part.path, part.content()) for part in parts if part.path in ("1", "2.2")] == [
            ("1", b"lottery"),
            ("2.2", b"lottery"),
        ]


@pytest.mark.parametrize(
    "raw",
    [
        multipart(*[b"Content-Transfer-Encoding: base64\r\n\r\na=b=c"] * 1999),
        HEAD + b"Content-Type: (" + b"a" * 500_000 + b"\r\n\r\nx",
        HEAD + b"Content-Type: text/plain; charset=" + b"a" * 500_000 + b"\r\n\r\nx",
        HEAD + b"Content-Type: message/global\r\n\r\n" * 1500 + b"\r\n" + b"x" * 500_000,
    ],
    ids=["damaged-parts", "type", "charset", "nested-global"],
)
def test_hostile_structures_take_linear_time(raw: bytes) -> None:
    for part in parse_message(raw).parts:  # the test's time-out is the assertion
        part.content()


def test_a_line_of_encoded_words_without_end_is_malformed() -> None:
    parse_message(b"Subject: " + b"=?utf-8?q?a?=\r\n " * 3000 + b"x\r\n\r\nx")
    with pytest.raises(MalformedError, match="encoded words"):
        parse_message(b"Subject: " + b"=?utf-8?q?a?= " * 3000 + b"\r\n\r\nx")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "boundary"),
        (HEAD + b"Content-Type: multipart/mixed; boundary=y\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "boundary"),
        (HEAD + b"Content-Type: multipart/mixed; boundary=y; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--y\r\n\r\nyo\r\n", "boundary"),
        (HEAD + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nhi\r\n----\r\n', "boundary"),
        (HEAD + b"Content-Type: (c) multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "boundary"),
        (
            HEAD + b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n",
            "2 content-type",
        ),
        (
            HEAD + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\naGk=\r\n",
            "2 content-transfer-encoding",
        ),
        (HEAD + b"Content-Type : multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "blank in the field name"),
        (HEAD + b"no field\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n", "no header field"),
        (
            HEAD
            + b"Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: base64\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n",
            "transfer encoding",
        ),
        (HEAD + b"Content-Type: text/plain\x00; charset=x\r\n\r\nhi", "NUL"),
        (HEAD + b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nhalf", "elsewhere"),
        (HEAD + b"Content-Type: message/external-body; access-type=URL\r\n\r\n", "elsewhere"),
        (HEAD + b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a.exe\r\n", "not opened"),
        (multipart(*[b"\r\nx"] * (MAX_PARTS + 1)), "more than"),
        (HEAD + b"Content-Type: multipart / mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "different types"),
        (HEAD + b"Content-Type: multipart; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n", "different types"),
        (HEAD + b"Content-Type: text /html\r\n\r\nhi", "different types"),
        (HEAD + b"Content-Type: text/plain; charset=us-ascii; charset=utf-7\r\n\r\nhi", "more than one charset"),
        (b"From: " + b"a@b.example, " * 1001 + b"\r\n\r\nhi", "addresses in From"),
    ],
)
def test_what_clients_may_read_otherwise_is_a_defect(raw: bytes, reason: str) -> None:
    assert reason in reasons(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\nonly a body",
        b"no header at all",
        HEAD,
        HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\npreamble\r\n--x\r\n\r\nunclosed\r\n",
        HEAD + b"Content-Type: text\r\n\r\nhi",
        HEAD + b"Content-Type: text/plain charset=utf-8\r\n\r\nhi",
        HEAD + b"Content-Type: text/plain (a comment); charset=utf-8; CHARSET=UTF-8\r\n\r\nhi".replace(b"UTF-8", b"utf-8"),
        HEAD + b"Content-Type:\r\n\r\nhi",
        b"Subject: folded\r\n over\r\n\tlines\r\n\r\nhi",
    ],
)
def test_what_is_merely_odd_is_no_defect(raw: bytes) -> None:
    assert reasons(raw) == ""


def test_a_message_that_nests_too_deep_is_malformed() -> None:
    raw = HEAD + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5000))
    with pytest.raises(MalformedError):
        parse_message(raw)


def test_messages_in_messages_are_followed_to_the_end() -> None:
    raw = b"".join(b"Content-Type: message/rfc822\r\n\r\n" for _ in range(100)) + b"Subject: innermost\r\n\r\nlottery"
    message = parse_message(raw)
    assert message.parts[-1].content() == b"lottery"
    assert message.parts[-1].path == ".".join(["1"] * 101)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_malformed(raw: bytes) -> None:
    try:
        message = parse_message(raw)
    except MalformedError:
        return
    for part in message.parts:
        part.content()


@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: multipart/mixed; boundary=x\r\n",
                b"Content-Type: message/rfc822\r\n",
                b"Content-Transfer-Encoding: base64\r\n",
                b"Content-Disposition: attachment; filename*0=a\r\n",
                b"\r\n",
                b"--x\r\n",
                b"--x--\r\n",
                b"aGk=\r\n",
                b"Content-Type: multipart/digest; boundary=x\r\n",
                b"Content-Type: message/global\r\n",
                b" folded\r\n",
                b"\xff\x00\r\n",
            ]
        ),
        max_size=40,
    )
)
def test_any_arrangement_of_mime_is_read_or_malformed(lines: list[bytes]) -> None:
    test_any_bytes_are_read_or_malformed.hypothesis.inner_test(b"".join(lines))  # type: ignore[attr-defined]


OCTETS = bytes(range(256)) * 4 + b"\n--x\n\r.\r\n\0"


def test_binary_content_is_read_octet_for_octet() -> None:
    """As BODY=BINARYMIME brings it (RFC 3030)."""
    message = parse_message(
        multipart(
            b"\r\ntext",
            b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=evil.exe\r\n"
            b"Content-Transfer-Encoding: binary\r\n\r\n" + OCTETS,
        )
    )
    assert [part.media_type for part in message.parts] == ["text/plain", "application/octet-stream"]
    assert message.parts[1].content() == OCTETS
