"""Changes of mail, with Python's own parser as the oracle of what a reader sees, and every octet outside of a change as it was."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest

from postern_core.changes import (
    AddDisclaimer,
    AddHeader,
    Change,
    CopyTo,
    Notify,
    RemoveHeader,
    StripAttachments,
    TagSubject,
)
from postern_core.envelope import BodyType
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    Condition,
    KeywordCondition,
    Rule,
    RuleMode,
    ScreeningPolicy,
    SizeCondition,
)
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.changes.edits import apply
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened, screen

ALWAYS = SizeCondition(larger_than_bytes=0)
PROGRAMS = AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",))


def a_rule(*changes: Change, condition: Condition = ALWAYS, action: Action = Action.CONTINUE, **fields: Any) -> Rule:
    return Rule(id="r1", name="no programs", condition=condition, action=action, changes=changes, **fields)


class Changed:
    """A message that was screened by rules: the outcome, and what a reader of the changed one sees."""

    def __init__(self, screened: Screened, body: bytes) -> None:
        self.screened = screened
        self.verdict = screened.verdict
        self.body = apply(body, screened.edits)
        self.read: EmailMessage = email.message_from_bytes(self.body, policy=email.policy.default)  # type: ignore[assignment]

    @property
    def told(self) -> list[tuple[str, str, bool]]:
        return [(made.kind, made.part, made.skipped) for made in self.verdict.changes]

    def text(self, *path: int) -> str:
        part: Any = self.read
        for number in path:
            part = part.get_payload()[number - 1]
        return str(part.get_content()).replace("\r\n", "\n")


@pytest.fixture
def changed(an_envelope: Any) -> Any:
    def run(body: bytes, *rules: Rule, body_type: BodyType = BodyType.SEVEN_BIT, **policy: Any) -> Changed:
        envelope = msgspec.structs.replace(an_envelope(size_bytes=len(body)), body_type=body_type)
        ruleset = compile_policy(ScreeningPolicy(revision=7, rules=rules, hostname="mx.relay.example", **policy))
        screened = screen(envelope, body, ruleset)
        assert screen(envelope, body, ruleset) == screened  # a redelivery gives the same bytes
        assert msgspec.json.decode(msgspec.json.encode(screened), type=Screened) == screened  # also from the sandbox
        return Changed(screened, body)

    return run


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


# -- the header


@pytest.mark.parametrize(
    ("subject", "tag", "wanted"),
    [
        ("Subject: hello\n", "[SPAM]", "Subject: [SPAM] hello\n"),
        ("Subject:hello\n", "[SPAM]", "Subject: [SPAM] hello\n"),
        ("subject: hello\n there\n", "[SPAM]", "subject: [SPAM] hello\n there\n"),
        ("Subject: [SPAM] hello\n", "[SPAM]", "Subject: [SPAM] hello\n"),
        ("Subject: Re: [spam] hello\n", "[SPAM]", "Subject: Re: [spam] hello\n"),
        ("Subject: =?utf-8?q?Re=3A_=5BSPAM=5D?= x\n", "[SPAM]", "Subject: =?utf-8?q?Re=3A_=5BSPAM=5D?= x\n"),
        ("Subject: \n", "[SPAM]", "Subject: [SPAM]\n"),
        ("Subject:\n folded\n", "[SPAM]", "Subject: [SPAM]\n folded\n"),
        (f"Subject: {'x' * 70}\n", "[SPAM]", f"Subject: [SPAM]\n {'x' * 70}\n"),
        ("Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\n", "[SPAM]", "Subject: [SPAM] =?utf-8?q?gr=C3=BC=C3=9Fe?=\n"),
        ("Subject: =?utf-8?q?=C3=BC?=\n", "[Ä]", "Subject: =?utf-8?b?W8OEXSA=?= =?utf-8?q?=C3=BC?=\n"),
        ("Subject: u\n", "[Ä]", "Subject: =?utf-8?b?W8OEXQ==?= u\n"),
        ("", "[SPAM]", "Subject: [SPAM]\n"),
    ],
)
def test_the_subject_is_tagged_once(changed: Any, subject: str, tag: str, wanted: str) -> None:
    rest = "\nb\xfcdy\n"
    found = changed(
        crlf(subject + rest if not subject else f"From: a@b.example\n{subject}To: c@d.example\n{rest}"),
        a_rule(TagSubject(text=tag)),
    )
    assert found.body == crlf(wanted + rest if not subject else f"From: a@b.example\n{wanted}To: c@d.example\n{rest}")
    assert tag.casefold() in str(found.read["Subject"]).casefold()
    assert all(len(line) <= 78 for line in found.body.split(b"\r\n"))


def test_a_message_of_nothing_but_a_header_is_tagged(changed: Any) -> None:
    assert changed(b"Subject: x\r\n", a_rule(TagSubject(text="[A]"))).body == b"Subject: [A] x\r\n"


def test_tags_of_several_rules_stand_in_front_of_each_other(changed: Any) -> None:
    found = changed(
        crlf("Subject: x\n\n"), a_rule(TagSubject(text="[A]")), a_rule(TagSubject(text="[B]"), TagSubject(text="[A]"))
    )
    assert found.body == crlf("Subject: [B] [A] x\n\n")


def test_fields_are_removed_and_added_and_others_stay(changed: Any) -> None:
    mail = crlf("Received: a\nX-Spam: no\nx-spam : \n folded\nSubject: x\nReply-To: evil@x.example\n\nbody\n")
    rule = a_rule(
        RemoveHeader(name="X-Spam"),
        AddHeader(name="X-Spam", value="größer"),
        RemoveHeader(name="Reply-To"),
        AddHeader(name="Reply-To", value="desk@relay.example"),
    )
    found = changed(mail.replace(b"x-spam :", b"x-spam:"), rule)
    assert found.body.endswith(crlf("Received: a\nSubject: x\n\nbody\n"))
    assert found.read.get_all("X-Spam") == ["größer"]
    assert found.read["Reply-To"] == "desk@relay.example"
    assert found.body.isascii()
    assert [made.detail for made in found.verdict.changes] == [
        "2 X-Spam removed",
        "X-Spam added",
        "1 Reply-To removed",
        "Reply-To added",
    ]


def test_a_header_that_cannot_be_read_surely_is_not_changed_but_held(changed: Any) -> None:
    found = changed(b"Subject: x\r\nno field\r\n\r\nbody\r\n", a_rule(TagSubject(text="[A]"), action=Action.ALLOW))
    assert (found.verdict.decision, found.verdict.hold_reason) == (Decision.HOLD, HoldReason.RULE)
    assert "could not be changed safely" in found.verdict.detail
    assert found.screened.edits == ()


# -- attachments

PROGRAM = b"MZ\x00\xff program"
OUTER = (
    "Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=out\n\npreamble\n"
    "--out\n\nfirst t\xe9xt \n"
    '--out  \nContent-Type: multipart/related; boundary="in ner"\n\n'
    "--in ner\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<b>=\n</b>\n"
    '--in ner\nContent-Type: application/octet-stream; name="setup.exe"\nContent-Transfer-Encoding: base64\n'
    "Content-ID: <1>\n\nTVoA/yBw\ncm9ncmFt\n"
    "--in ner--\nepilogue\n"
    "--out\nContent-Type: application/pdf; name=a.pdf\n\n%PDF\n\n--out--\nend\n"
)


def test_the_part_that_matched_is_replaced_and_no_other_octet(changed: Any) -> None:
    mail = crlf(OUTER)
    found = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS))
    start = mail.index(b"Content-Type: application/octet")
    end = mail.index(b"\r\n--in ner--")
    assert found.body.startswith(mail[:start])
    assert found.body.endswith(mail[end:])
    text = found.text(2, 2)
    assert "setup.exe" in text
    assert f"SHA-256: {hashlib.sha256(PROGRAM).hexdigest()}" in text
    assert f"Size:    {len(PROGRAM)} bytes" in text
    assert "Rule:    no programs" in text
    assert found.told == [("strip-attachments", "2.2", False)]
    assert (found.verdict.decision, found.verdict.deciding) == (Decision.PASS, None)


def test_every_attachment_goes_where_the_rule_says_every(changed: Any) -> None:
    found = changed(crlf(OUTER), a_rule(StripAttachments(every=True)))
    assert found.told == [("strip-attachments", "2.2", False), ("strip-attachments", "3", False)]
    assert [part.get_content_type() for part in found.read.walk()] == [
        "multipart/mixed",
        "text/plain",
        "multipart/related",
        "text/html",
        "text/plain",
        "text/plain",
    ]


def test_a_message_that_is_an_attachment_keeps_its_other_fields(changed: Any) -> None:
    mail = b"Subject: x\r\nContent-Type: application/x; name=a.exe\r\nTo: a@b.example\r\nContent-Disposition: attachment\r\n\r\n\xff\xfe"
    found = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS))
    assert found.body.startswith(b"Subject: x\r\nTo: a@b.example\r\nMIME-Version: 1.0\r\nContent-Type: text/plain")
    assert "a.exe" in found.text()
    assert b"\xff" not in found.body


def test_in_an_attached_message_the_part_goes_and_in_an_encoded_one_the_message(changed: Any) -> None:
    inner = crlf(
        "Subject: inner\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nhi\n--i\nContent-Type: application/x; name=b.exe\n\nMZ\n--i--\n"
    )
    head = crlf("Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n")
    in_place = head + b"\r\n" + inner + b"--o--\r\n"
    found = changed(in_place, a_rule(StripAttachments(), condition=PROGRAMS))
    assert found.told == [("strip-attachments", "1.2", False)]
    assert b"Subject: inner" in found.body
    assert b"MZ" not in found.body
    whole = head + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(inner).replace(b"\n", b"\r\n") + b"--o--\r\n"
    found = changed(whole, a_rule(StripAttachments(), condition=PROGRAMS))
    assert found.told == [("strip-attachments", "1", False)]
    assert hashlib.sha256(inner).hexdigest() in found.text(1)


def test_an_attached_message_that_is_all_attachment_keeps_its_header(changed: Any) -> None:
    mail = crlf(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n\nFrom: x@y.example\nContent-Type: application/x; name=b.exe\n\nMZ\n--o--\n"
    )
    found = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS))
    inner = found.read.get_payload()[0].get_payload()[0]
    assert (inner["From"], inner.get_content_type()) == ("x@y.example", "text/plain")
    assert "b.exe" in inner.get_content()


def test_a_keyword_in_an_attached_message_takes_that_message_and_one_in_the_text_nothing(changed: Any) -> None:
    word = KeywordCondition(phrases=("lottery",))
    attached = crlf(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\n\nlottery\n--o\nContent-Type: message/rfc822\n\nSubject: x\n\nlottery\n--o--\n"
    )
    found = changed(attached, a_rule(StripAttachments(), condition=word))
    assert found.told == [("strip-attachments", "2", False)]
    assert found.text(1) == "lottery"
    found = changed(crlf("Subject: x\n\nlottery\n"), a_rule(StripAttachments(), condition=word))
    assert found.told == [("strip-attachments", "", True)]
    assert found.screened.edits == ()


@pytest.mark.parametrize(
    "mail",
    [
        "Content-Type: multipart/mixed; boundary=b\nContent-Type: multipart/mixed; boundary=c\n\n--b\nContent-Type: application/x; name=a.exe\n\nMZ\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/x; name=a.exe\nno field\n\nMZ\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/x; name=a.exe\n\nMZ\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/x; name=a.exe\nContent-Type: application/y\n\nMZ\n--b--\n",
        "Content-Type: message/partial; id=1; name=a.exe\n\nhalf\n",
    ],
    ids=["two types", "no field", "one boundary twice", "two types of a part", "a fragment"],
)
def test_where_it_is_not_sure_what_to_cut_the_message_is_held(changed: Any, mail: str) -> None:
    found = changed(
        crlf(mail), a_rule(StripAttachments(), CopyTo(address="a@b.example"), condition=PROGRAMS, action=Action.ALLOW)
    )
    assert (found.verdict.decision, found.verdict.hold_reason) == (Decision.HOLD, HoldReason.RULE)
    assert found.screened.edits == ()
    assert [made.kind for made in found.verdict.changes if not made.skipped] == ["copy-to"]


def test_a_malformed_message_without_an_attachment_to_strip_goes_on(changed: Any) -> None:
    mail = crlf("Content-Type: text/plain\nContent-Type: text/html\n\nlottery\n")
    word = KeywordCondition(phrases=("lottery",))
    found = changed(mail, a_rule(StripAttachments(), condition=word, action=Action.ALLOW))
    assert (found.verdict.decision, found.body) == (Decision.PASS, mail)


def test_a_boundary_that_ends_with_nothing_and_parts_without_header(changed: Any) -> None:
    mail = crlf("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\n\n\n--b\nContent-Type: application/x; name=a.exe\n\nMZ")
    found = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS))
    assert found.told == [("strip-attachments", "3", False)]
    assert found.body.startswith(mail[: mail.index(b"Content-Type: app")])


def test_a_name_cannot_bring_a_boundary_into_the_text(changed: Any) -> None:
    for padding in range(70):
        name = "ü" + "y" * padding + "--b.exe"  # where the line is broken in front of the hyphens, it is a boundary
        encoded = "".join(f"%{byte:02X}" for byte in name.encode())
        part = f"Content-Type: application/x; name*=utf-8''{encoded}\n\nMZ\n"
        mail = crlf(f"Content-Type: multipart/mixed; boundary=b.exe\n\n--b.exe\n{part}--b.exe\n\nlast\n--b.exe--\n")
        found = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS))
        assert found.text(2) == "last"
        assert name in found.text(1)


def test_a_disclaimer_is_no_boundary_whatever_the_sender_chose_for_one(changed: Any) -> None:
    mail = crlf("Content-Type: multipart/mixed; boundary=the-desk\n\n--the-desk\n\nhello\n--the-desk\n\nlast\n--the-desk--\n")
    for text in ("--the-desk", "ü\n--the-desk--\nx"):
        found = changed(mail, a_rule(AddDisclaimer(text=text)))
        assert found.text(1) == f"hello\n\n{text}\n"
        assert found.text(2) == "last"


def test_what_lies_in_an_attachment_that_goes_is_not_cut_out_of_it(changed: Any) -> None:
    mail = crlf(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\n\nhi\n--o\nContent-Type: message/rfc822\n\n"
        "Content-Type: multipart/mixed; boundary=i\n\n--i\nContent-Type: application/x; name=b.exe\n\nMZ\n--i--\n--o--\n"
    )
    assert changed(mail, a_rule(StripAttachments(every=True))).told == [("strip-attachments", "2", False)]
    # and where a second rule takes what is around it, that one tells of it
    both = changed(mail, a_rule(StripAttachments(), condition=PROGRAMS), a_rule(StripAttachments(every=True)))
    assert [each.get_content_type() for each in both.read.get_payload()] == ["text/plain", "text/plain"]
    assert both.told == [("strip-attachments", "2.1", False), ("strip-attachments", "2", False)]
    again = changed(mail, a_rule(StripAttachments(every=True)), a_rule(StripAttachments(), condition=PROGRAMS))
    assert again.told == [("strip-attachments", "2", False), ("strip-attachments", "2.1", True)]


def test_signatures_and_encrypted_mail_are_left_alone_by_every_and_a_broken_signature_is_told(changed: Any) -> None:
    signed = crlf(
        'Content-Type: multipart/signed; boundary=s; protocol="application/pgp-signature"\n\n--s\nContent-Type: application/x; name=a.exe\n\nMZ\n'
        "--s\nContent-Type: application/pgp-signature; name=s.asc\n\nsig\n--s--\n"
    )
    found = changed(signed, a_rule(StripAttachments(every=True)))
    assert found.told == [("strip-attachments", "1", False)]
    assert "signature is broken" in found.verdict.changes[0].detail
    encrypted = crlf(
        "Content-Type: multipart/encrypted; boundary=s\n\n--s\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n"
        "--s\nContent-Type: application/octet-stream; name=a.exe\n\nsecret\n--s--\n"
    )
    assert changed(encrypted, a_rule(StripAttachments(every=True))).screened.edits == ()
    assert changed(encrypted, a_rule(StripAttachments(), condition=PROGRAMS)).told == [("strip-attachments", "2", False)]


# -- disclaimers

NOTE = AddDisclaimer(text="from outside")
GREEK = AddDisclaimer(text="προσοχή")


@pytest.mark.parametrize(
    ("head", "content", "note", "shown"),
    [
        ("", b"hello\r\n", NOTE, "hello\n\nfrom outside\n"),
        ("Content-Type: text/plain\n", b"hello", NOTE, "hello\n\nfrom outside\n"),
        ("", b"", NOTE, "from outside\n"),
        ("", b"hello\r\n", GREEK, "hello\n\nπροσοχή\n"),
        ("Content-Type: text/plain; format=flowed\n", b"a = b\r\n", GREEK, "a = b\n\nπροσοχή\n"),
        ("Content-Type: text/plain; charset=iso-8859-1\n", b"gr\xfc\xdfe\r\n", GREEK, "grüße\n\nπροσοχή\n"),
        ("Content-Type: text/plain;\n charset=\"ISO-8859-7\"\n", b"\xe1\r\n", GREEK, "α\n\nπροσοχή\n"),
        ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n", b"w7w=\r\n", GREEK, "ü\n\nπροσοχή\n"),
        ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n", b"=C3=BC=\r\nx=", GREEK, "üx\n\nπροσοχή\n"),
        ("Content-Type: text/plain; charset=koi8-r\nContent-Transfer-Encoding: 8bit\n", b"\xc1\r\n", NOTE, "а\n\nfrom outside\n"),
        ("Content-Type: text/plain; charset=iso-2022-jp\n", b"\x1b$B$\"\x1b(B\r\n", NOTE, "あ\n\nfrom outside\n"),
        ("Content-Type: text/html\n", b"<body>x</BODY></html>", NOTE, "<body>x\n\n<p>from outside</p>\n</BODY></html>\n"),
        ("Content-Type: text/html; charset=iso-8859-1\n", b"\xfc</body>", GREEK, "ü\n\n<p>&#960;&#961;&#959;&#963;&#959;&#967;&#942;</p>\n</body>\n"),
        ("Content-Type: text/html\n", b"x\r\n", AddDisclaimer(text="a", html="<i>a</i>"), "x\n\n<i>a</i>\n"),
        ("", b"x\r\n", AddDisclaimer(text="-- \nthe desk"), "x\n\n--\nthe desk\n"),
    ],
)  # fmt: skip
def test_a_disclaimer_stands_behind_the_text_in_its_charset(
    changed: Any, head: str, content: bytes, note: AddDisclaimer, shown: str
) -> None:
    found = changed(crlf(f"Subject: x\nMIME-Version: 1.0\n{head}\n") + content, a_rule(note))
    assert found.text().rstrip("\n") == shown.rstrip("\n")
    assert not found.verdict.changes[0].skipped
    assert all(octet < 128 or octet in content for octet in found.body)
    # once: what passes two relays does not get it twice
    again = changed(found.body, a_rule(note))
    assert again.body == found.body
    assert again.verdict.changes[0].skipped


def test_text_and_html_of_one_message_each_get_theirs_and_attached_texts_none(changed: Any) -> None:
    mail = EmailMessage()
    mail.set_content("hello\n")
    mail.add_alternative("<html><body>hello</body></html>", subtype="html")
    mail.add_attachment("attached text", filename="a.txt")
    mail.add_attachment(EmailMessage())
    found = changed(mail.as_bytes(policy=email.policy.SMTP), a_rule(AddDisclaimer(text="ä & b")))
    assert found.told == [("add-disclaimer", "1.1 1.2", False)]
    assert found.text(1, 1) == "hello\n\nä & b\n"
    assert "<p>&#228; &amp; b</p>" in found.text(1, 2) or "<p>ä &amp; b</p>" in found.text(1, 2)
    assert found.text(2).rstrip() == "attached text"


@pytest.mark.parametrize("charset", ["utf-16", "x-unknown", "utf-7"])
@pytest.mark.parametrize("is_mixed", [True, False])
def test_where_the_text_cannot_take_it_the_disclaimer_is_a_part_of_its_own(changed: Any, charset: str, is_mixed: bool) -> None:
    part = crlf(f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: base64\n\nYQBiAA==\n")
    mixed = crlf("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n") + part + b"--b--\r\n"
    mail = b"Subject: x\r\n" + (mixed if is_mixed else part)
    found = changed(mail, a_rule(GREEK))
    assert found.read.get_content_type() == "multipart/mixed"
    assert found.read["MIME-Version"] == "1.0"
    assert [each.get_content_type() for each in found.read.get_payload()] == ["text/plain", "text/plain"]
    assert found.read.get_payload()[0].get_payload(decode=True) == b"a\0b\0"
    assert found.text(2).strip() == "προσοχή"


def test_a_message_without_text_gets_a_part(changed: Any) -> None:
    found = changed(crlf("Subject: x\nContent-Type: application/pdf; name=a.pdf\n\n%PDF\n"), a_rule(NOTE))
    assert [each.get_content_type() for each in found.read.get_payload()] == ["application/pdf", "text/plain"]
    assert found.read.get_payload()[0].get_filename() == "a.pdf"


@pytest.mark.parametrize("media_type", ["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "multipart/mixed"])
def test_signed_and_encrypted_mail_gets_none_and_says_so(changed: Any, media_type: str) -> None:
    part = f"Content-Type: {media_type}; boundary=s\n\n--s\n\nhello\n--s\nContent-Type: application/pkcs7-signature\n\nx\n--s--\n"
    if media_type == "multipart/mixed":
        part = f"Content-Type: multipart/mixed; boundary=m\n\n--m\n{part.replace('/mixed', '/signed')}\n--m--\n"
    found = changed(crlf(part), a_rule(NOTE, TagSubject(text="[x]")))
    assert found.told == [("add-disclaimer", "", True), ("tag-subject", "", False)]
    assert "signed or encrypted" in found.verdict.changes[0].detail
    assert found.body == crlf("Subject: [x]\n" + part)


def test_an_8_bit_text_gets_an_8_bit_disclaimer_only_where_the_message_may_be_8_bit(changed: Any) -> None:
    mail = crlf("Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\n\xfc\n")
    note = a_rule(AddDisclaimer(text="größer"))
    assert changed(mail, note, body_type=BodyType.EIGHT_BIT_MIME).body == mail + b"\r\ngr\xf6\xdfer\r\n"
    quoted = changed(mail, note)
    assert quoted.body.isascii()
    assert quoted.text() == "ü\n\ngrößer\n"


def test_a_malformed_message_goes_on_without_a_disclaimer(changed: Any) -> None:
    mail = crlf("Content-Type: text/plain\nContent-Type: text/html\n\nx\n")
    found = changed(mail, a_rule(NOTE, action=Action.ALLOW))
    assert (found.verdict.decision, found.body) == (Decision.PASS, mail)
    assert found.told == [("add-disclaimer", "", True)]


def test_what_was_stripped_and_disclaimed_has_both(changed: Any) -> None:
    rules = (a_rule(StripAttachments(), condition=PROGRAMS), a_rule(GREEK), a_rule(NOTE))
    found = changed(crlf(OUTER.replace("\xe9", "e")), *rules)
    assert "setup.exe" in found.text(2, 2)
    assert found.text(1).endswith("\n\nπροσοχή\n\nfrom outside\n")
    assert "from outside" in found.text(2, 1)
    alone = changed(crlf("Content-Type: application/x; name=a.exe\n\nMZ\n"), *rules)
    assert "a.exe" in alone.text()
    assert alone.text().endswith("\n\nπροσοχή\n\nfrom outside\n")


# -- which rules change what


def test_changes_of_rules_up_to_the_one_that_decides_are_made_in_their_order(changed: Any) -> None:
    mail = crlf("Subject: x\n\nb\n")
    rules = (
        a_rule(AddHeader(name="X-A", value="1")),
        a_rule(AddHeader(name="X-M", value="2"), mode=RuleMode.MONITOR),
        a_rule(AddHeader(name="X-B", value="3"), action=Action.ALLOW),
        a_rule(AddHeader(name="X-C", value="4")),
    )
    found = changed(mail, *rules)
    assert found.body == b"X-A: 1\r\nX-B: 3\r\n" + mail
    assert [(made.detail, made.monitored) for made in found.verdict.changes] == [
        ("X-A added", False),
        ("", True),
        ("X-B added", False),
    ]


@pytest.mark.parametrize("action", [Action.DELETE, Action.HOLD])
def test_what_does_not_go_on_is_not_changed_but_copied_and_told_of(changed: Any, action: Action) -> None:
    first = a_rule(TagSubject(text="[x]"), CopyTo(address="a@b.example"))
    found = changed(crlf("Subject: x\n\nb\n"), first, a_rule(Notify(), CopyTo(address="A@b.example"), action=action))
    assert found.screened.edits == ()
    assert [(made.kind, made.address, made.skipped) for made in found.verdict.changes] == [
        ("tag-subject", "", True),
        ("copy-to", "a@b.example", False),
        ("notify", "postmaster@mx.relay.example", False),
        ("copy-to", "A@b.example", True),
    ]


def test_a_copy_that_comes_back_is_not_copied_again(changed: Any) -> None:
    found = changed(crlf("X-Postern-Copied-By: r1\nSubject: x\n\nb\n"), a_rule(CopyTo(address="a@b.example")))
    assert found.told == [("copy-to", "", True)]


@pytest.mark.parametrize(
    "rule",
    [
        a_rule(),
        a_rule(TagSubject(text="[x]"), action=Action.HOLD),
        a_rule(AddHeader(name="Content-Type", value="x")),
        a_rule(CopyTo(address="nobody")),
        a_rule(Notify(address="a b@c.example")),
    ],
)
def test_a_policy_with_changes_that_cannot_be_made_is_refused(rule: Rule) -> None:
    with pytest.raises(ValueError, match="rule 'no programs'"):
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))
