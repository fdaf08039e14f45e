"""8-bit mail for a peer that takes 7-bit data only says the same as before, or is returned."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_smtp.client_seven_bit import to_seven_bit

TEXT = "Grüße aus Köln\r\n.\r\nFrom here to there = far\r\ntrailing \r\n" + "ß" * 300 + "\r\n"
HEAD = b"From: a@b.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Odd:   as  it was\r\n"


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("utf-8")


def leaves(message: bytes) -> list[tuple[str, object, bytes]]:
    """Type, charset and decoded content of each leaf, in order."""
    found = []
    for part in message_from_bytes(message).walk():
        if isinstance(part, Message) and not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((part.get_content_type(), part.get_param("charset"), content))
    return found


def checked(message: bytes) -> bytes:
    """The 7-bit form, in proper shape and with the same content."""
    converted = to_seven_bit(message)
    assert converted is not None
    assert converted.isascii()
    assert b"\r" not in converted.replace(b"\r\n", b"")
    assert b"\n" not in converted.replace(b"\r\n", b"")
    assert max(len(line) for line in converted.split(b"\r\n")) <= 998
    return converted


def test_a_message_that_is_ascii_stays_byte_for_byte() -> None:
    message = HEAD + b"\r\nhello\r\n"
    assert to_seven_bit(message) == message


@pytest.mark.parametrize("encoding", ["8bit", "binary", "7bit", ""])
def test_a_text_is_made_quoted_printable(encoding: str) -> None:
    fields = b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\n"
    if encoding:
        fields += f"Content-Transfer-Encoding:\r\n {encoding}\r\n".encode()
    message = HEAD + fields + b"\r\n" + TEXT.encode()
    converted = checked(message)
    assert leaves(converted) == [("text/plain", "utf-8", TEXT.encode())]
    assert converted.startswith(HEAD)  # other fields stay as they are
    parsed = message_from_bytes(converted)
    assert parsed.get_all("Content-Transfer-Encoding") == ["quoted-printable"]
    assert parsed.get_all("MIME-Version") == ["1.0"]


def test_a_message_without_mime_gets_the_fields_that_say_what_was_done() -> None:
    converted = checked(HEAD + b"\r\nGr\xfc\xdfe\r\n")
    assert leaves(converted) == [("text/plain", "unknown-8bit", b"Gr\xfc\xdfe\r\n")]
    assert message_from_bytes(converted)["MIME-Version"] == "1.0"


NESTED = crlf("""From: a@b.example
MIME-Version: 1.0
Content-Transfer-Encoding: 8bit
Content-Type: multipart/mixed; boundary="out er"

preamble
--out er
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=us-ascii

--inner-but-longer is no delimiter
--inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: 8bit

<p>Grüße</p>
--inner--
--out er

no header, and ümlauts
--out er
Content-Type: application/octet-stream
Content-Transfer-Encoding: binary

ö=ä
--out er
Content-Type: message/rfc822

Subject: inside
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

größer
--out er--
epilogue
""")


def test_only_parts_that_need_it_change_at_any_depth() -> None:
    converted = checked(NESTED)
    before = [(kind, charset or "unknown-8bit", content) for kind, charset, content in leaves(NESTED)]
    after = [(kind, charset or "unknown-8bit", content) for kind, charset, content in leaves(converted)]
    assert after == before
    assert len(after) == 5
    assert b"Content-Type: text/plain; charset=us-ascii\r\n\r\n--inner-but-longer is no delimiter\r\n--inner\r\n" in converted
    assert message_from_bytes(converted)["Content-Transfer-Encoding"] == "7bit"
    assert converted.endswith(b"--out er--\r\nepilogue\r\n")
    assert to_seven_bit(converted) == converted


@pytest.mark.parametrize(
    "message",
    [
        crlf("Subject: Grüße\n\nplain\n"),
        crlf("Content-Type: multipart/signed; boundary=b\n\n--b\n\nä\n--b--\n"),
        crlf("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nä\n"),
        crlf("Content-Type: text/plain\nContent-Transfer-Encoding: x-unknown\n\nä\n"),
        crlf("Content-Type: multipart/mixed\n\nä\n"),
        crlf("Content-Type: multipart/mixed; boundary=b\n\npreämble\n--b\n\nx\n--b--\n"),
        crlf("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png; name=ä.png\n\nx\n--b--\n"),
        crlf("Content-Type: message/rfc822\n\n" * 60 + "ä: x\n"),
        "ä without any header".encode(),
    ],
)
def test_what_has_no_7bit_form_is_left_to_be_returned(message: bytes) -> None:
    assert to_seven_bit(message) is None


@given(st.binary(max_size=400).map(lambda body: body.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\xff\r\n"))
def test_any_text_comes_back_as_it_was(body: bytes) -> None:
    fields = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    assert leaves(checked(HEAD + fields + b"\r\n" + body)) == [("text/plain", "utf-8", body)]


@given(st.binary(max_size=400))
def test_any_bytes_end_in_ascii_or_are_left(message: bytes) -> None:
    converted = to_seven_bit(message)
    assert converted is None or converted.isascii()
