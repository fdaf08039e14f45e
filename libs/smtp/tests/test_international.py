"""SMTPUTF8 (RFC 6531) and REQUIRETLS (RFC 8689) at a gate: what is taken, what is refused, and what never gets through."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.policy import GateLimits, ListenerExtensions, ListenerPolicy
from postern_core.policy.domains import normalise_domain
from postern_smtp.commands import Command, CommandRefused, Mail, Rcpt, parse, split_verb
from postern_smtp.dialogue import Dialogue
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.paths import MAX_PATH_OCTETS, ForwardPath, parse_forward_path, parse_reverse_path
from postern_smtp.session import Session
from postern_smtp.utf8_address import from_unitext, from_xtext, is_orcpt, orcpt_in_seven_bit, to_seven_bit

OFFERED = ListenerExtensions()
# what ends a line somewhere, turns the direction of writing, hides, or is no character: NEL, NBSP, soft hyphen, Arabic letter mark, Mongolian
# vowel separator, marks and embeddings, LS, PS, narrow NBSP, isolates, ideographic space, byte order mark, a private and an unassigned one
NEVER = "\x80\x85\x9f\xa0\xad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u202f\u2066\u2069\u3000\ufeff\ue000\ufdd0\U000e0001"


def command(line: str | bytes, offered: ListenerExtensions = OFFERED) -> Command:
    octets = line.encode() if isinstance(line, str) else line
    return parse(*split_verb(octets, utf8=offered.smtputf8), offered)


def refusal(line: str | bytes, offered: ListenerExtensions = OFFERED) -> str:
    with pytest.raises(CommandRefused) as refused:
        command(line, offered)
    return str(refused.value.reply)[:9]


class Talk:
    """A dialogue past EHLO, inside TLS if so asked."""

    def __init__(self, *, tls: str = "", verb: str = "EHLO", **switches: bool) -> None:
        listener = ListenerPolicy(extensions=ListenerExtensions(**switches))
        rules = GateRules(
            revision=1, hostname="mx", limits=GateLimits(max_errors=None), decide_recipient=decide, listener=listener
        )
        profile = GateProfile(gate=Gate.ANON, fallback_hostname="mx", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.session = Session("192.0.2.1", tls=tls)
        self.dialogue = Dialogue(self.session, profile, lambda: rules, lambda: None)
        self.hello = self.say(f"{verb} c")

    def say(self, line: str) -> str:
        return self.dialogue.take(line.encode()).wire.decode()

    def replies(self, *lines: str) -> list[str]:
        return [self.say(line)[:10].strip() for line in lines]

    @property
    def recipients(self) -> list[str]:
        assert self.session.transaction is not None
        return [recipient.address for recipient in self.session.transaction.recipients]


def decide(path: ForwardPath) -> str:
    return path.address


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("jösé@b.example", "jösé@b.example"),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
        ("Jösé@BÜCHER.example", "Jösé@xn--bcher-kva.example"),
        ("a@bücher。example", "a@xn--bcher-kva.example"),  # IDNA's other dots are dots
        ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
        ('"ä b"@c.example', '"ä b"@c.example'),
        ("e\u0301@c.example", "e\u0301@c.example"),  # as it came: nobody but its owner knows what is the same
        ("ünïcödé+tag@[192.0.2.1]", "ünïcödé+tag@[192.0.2.1]"),
        ("😀@c.example", "😀@c.example"),
    ],
)
def test_utf8_stands_in_paths(path: str, address: str) -> None:
    mail = command(f"MAIL FROM:<{path}> SMTPUTF8 SIZE=5")
    assert isinstance(mail, Mail)
    assert (mail.reverse_path.address, mail.smtputf8, mail.size_bytes) == (address, True, 5)
    rcpt = command(f"RCPT TO:<{path}> NOTIFY=NEVER")
    assert isinstance(rcpt, Rcpt)
    assert (rcpt.forward_path.address, rcpt.notify) == (address, "NEVER")


@pytest.mark.parametrize("character", NEVER)
@pytest.mark.parametrize("place", ["<{}@b.example>", '<"{}"@b.example>', "<a@b{}.example>", "<a@b.example> ORCPT=utf-8;{}@b"])
def test_what_could_end_a_line_or_fool_a_reader_is_refused(character: str, place: str) -> None:
    path = place.format(f"x{character}y")
    assert refusal(f"RCPT TO:{path}") == "501 5.5.2"
    if "ORCPT" not in path:
        with pytest.raises(ValueError, match=r"not a|behind"):
            parse_forward_path(path)
    if character != "\ufdd0":
        assert not is_orcpt(f"utf-8;a\\x{{{ord(character):02X}}}@b.example")


@pytest.mark.parametrize(
    "path",
    [
        b"<\xff@b.example>",
        b"<\xc3@b.example>",
        b"<\xc0\xaf@b.example>",  # overlong
        b"<\xed\xa0\x80@b.example>",  # a surrogate
        b"<\xf4\x90\x80\x80@b.example>",  # beyond Unicode
        "<ä@b.example>".encode("latin-1"),
        "<ä@b.example>".encode("utf-16"),
    ],
)
def test_only_utf8_is_utf8(path: bytes) -> None:
    assert refusal(b"MAIL FROM:" + path + b" SMTPUTF8") == "501 5.5.2"
    assert refusal(b"RCPT TO:" + path) == "501 5.5.2"
    assert refusal(b"VRFY " + path + b" SMTPUTF8") == "501 5.5.2"


@pytest.mark.parametrize(
    "path",
    [
        "<ä>",
        "<ä@>",
        "<@ä.example>",
        "<ä@-ß.example>",
        "<ä@b..example>",
        "<ä@b.example。>",
        "<ä@" + "ü" * 64 + ".example>",
        "<a@א1a.example>",  # against the bidi rule (RFC 5893)
        "<a@a\u0338b.example\u2260>",
        "<ä.@b.example>",
        "<" + "ä" * (MAX_PATH_OCTETS // 2) + "@b.example>",
        '<"ä"b@c.example>',
        "<@ü.example:a@b.example>",
    ],
)
def test_malformed_international_paths_are_refused(path: str) -> None:
    assert refusal(f"MAIL FROM:{path} SMTPUTF8") == "501 5.1.7"
    assert refusal(f"RCPT TO:{path}") == "501 5.1.3"


def test_parameters_without_value_have_none() -> None:
    assert refusal("MAIL FROM:<> SMTPUTF8=1") == "501 5.5.4"
    assert refusal("MAIL FROM:<> REQUIRETLS=yes") == "501 5.5.4"
    assert refusal("MAIL FROM:<> SMTPUTF8 smtputf8") == "501 5.5.4"
    assert refusal("MAIL FROM:<> ENVID=ä SMTPUTF8") == "501 5.5.4"
    assert refusal("MAIL FROM:<> SMTPUTF8 ä=1") == "501 5.5.4"


def test_what_is_switched_off_is_unknown() -> None:
    off = ListenerExtensions(smtputf8=False, requiretls=False)
    assert refusal("MAIL FROM:<> SMTPUTF8", off) == "555 5.5.4"
    assert refusal("MAIL FROM:<> REQUIRETLS", off) == "555 5.5.4"
    assert refusal("MAIL FROM:<ä@b.example> SMTPUTF8", off) == "553 5.6.7"
    assert refusal("RCPT TO:<ä@b.example>", off) == "553 5.6.7"
    assert refusal("VRFY ä SMTPUTF8", off) == "500 5.5.2"
    assert refusal("EHLO ä.example") == "500 5.5.2"


def test_utf8_needs_smtputf8_at_mail() -> None:
    talk = Talk()
    assert talk.replies("MAIL FROM:<ä@b.example>", "MAIL FROM:<a@bücher.example>") == ["553 5.6.7"] * 2
    assert talk.replies("MAIL FROM:<a@b.example>", "RCPT TO:<ä@b.example>", "RCPT TO:<a@bücher.example>") == [
        "250 2.1.0",
        "553 5.6.7",
        "553 5.6.7",
    ]
    assert talk.replies("RCPT TO:<a@b.example> ORCPT=utf-8;ä@b.example", "RSET") == ["553 5.6.7", "250 2.0.0"]
    assert talk.replies("MAIL FROM:<a@b.example> SMTPUTF8", "RCPT TO:<ä@bücher.example>") == ["250 2.1.0", "250 2.1.5"]
    assert talk.recipients == ["ä@xn--bcher-kva.example"]
    assert talk.replies("VRFY ä", "VRFY ä SMTPUTF8", "VRFY a") == ["553 5.6.7", "252 2.5.0", "252 2.5.0"]


def test_extensions_are_for_those_who_said_ehlo() -> None:
    talk = Talk(verb="HELO", tls="TLSv1.3 x")
    assert talk.replies("MAIL FROM:<> SMTPUTF8", "MAIL FROM:<> REQUIRETLS", "MAIL FROM:<>") == [
        "555 5.5.4",
        "555 5.5.4",
        "250 2.1.0",
    ]


def test_requiretls_is_announced_and_taken_inside_tls_only() -> None:
    plain, secured = Talk(), Talk(tls="TLSv1.3 x")
    assert "REQUIRETLS" not in plain.hello
    assert plain.replies("MAIL FROM:<> REQUIRETLS") == ["530 5.7.10"]
    assert "REQUIRETLS\r\n" in secured.hello
    assert secured.replies("MAIL FROM:<> REQUIRETLS") == ["250 2.1.0"]
    assert secured.session.transaction is not None
    assert secured.session.transaction.mail.requiretls
    assert "REQUIRETLS" not in Talk(tls="TLSv1.3 x", requiretls=False).hello
    assert "SMTPUTF8" not in Talk(smtputf8=False).hello


def test_addresses_count_in_octets() -> None:
    """They must fit the broker's message: a million characters may be four million octets."""
    talk = Talk()
    talk.dialogue._newest_rules = lambda: replace(_rules, limits=GateLimits(max_recipients=None))  # type: ignore[method-assign]
    _rules = GateRules(revision=1, hostname="mx", limits=GateLimits(), decide_recipient=decide)
    talk.say("MAIL FROM:<> SMTPUTF8")
    taken = 0
    while talk.say("RCPT TO:<" + "語" * 160 + "@b.example>").startswith("250"):
        taken += 1
    assert taken == (1024 * 1024) // (480 + len("@b.example") + 32)


local_parts = st.from_regex(r"[a-zà-öø-ÿα-ωа-я一-鿋😀-😏]{1,12}(\.[a-zà-ö]{1,4})?", fullmatch=True)
labels = st.from_regex(r"[a-zß-öø-ÿα-ωа-я一-鿋]{1,8}", fullmatch=True)


@given(local_parts, st.lists(labels, min_size=1, max_size=3))
@example("jösé", ["bücher", "xn--r8jz45g"])
def test_an_address_survives_parsing(local_part: str, names: list[str]) -> None:
    domain = ".".join([*names, "example"])
    try:
        expected = normalise_domain(domain)
    except ValueError:
        assume(False)
    assume(not expected.rpartition(".")[2].isdigit())
    path, rest = parse_forward_path(f"<{local_part}@{domain}> X=1")
    assert (path.local_part, path.domain, rest) == (local_part, expected, "X=1")
    assert path.domain.isascii()
    again, _ = parse_forward_path(f"<{path.address}>")
    assert again == path
    assert parse_reverse_path(f"<{local_part}@{domain}>")[0].address == path.address


@given(st.text(max_size=80))
@example("a\u2028b")
def test_whatever_is_taken_is_one_printable_line(text: str) -> None:
    for line in (
        f"MAIL FROM:<{text}> SMTPUTF8",
        f"RCPT TO:<{text}@b.example>",
        f"RCPT TO:<a@{text}>",
        f"RCPT TO:<a@b> ORCPT=utf-8;{text}",
    ):
        try:
            taken = command(line.encode("utf-8", "surrogatepass"))
        except CommandRefused:
            continue
        if isinstance(taken, Mail):
            address = taken.reverse_path.address
        else:
            assert isinstance(taken, Rcpt)
            address = taken.forward_path.address
            assert taken.orcpt.isprintable()
        assert address.isprintable()
        assert len(address.splitlines()) <= 1
        assert address.rpartition("@")[2].isascii()


@given(st.binary(max_size=60))
def test_any_octets_are_a_command_or_a_refusal(octets: bytes) -> None:
    talk = Talk()
    talk.say("MAIL FROM:<> SMTPUTF8")
    for prefix in (b"", b"MAIL FROM:<", b"RCPT TO:<", b"VRFY ", b"RCPT TO:<a@b> ORCPT="):
        wire = talk.dialogue.take(prefix + octets).wire
        assert wire.isascii()
        assert wire.count(b"\r\n") <= len(talk.hello.splitlines())


@given(
    st.text(
        st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp", "Zs"]),
        min_size=1,
        max_size=40,
    )
)
@example("a+b=c\\d@e")
def test_an_address_survives_the_seven_bit_form(address: str) -> None:
    encoded = to_seven_bit(address)
    assert encoded.isascii()
    assert from_unitext(encoded) == address
    assert is_orcpt(f"utf-8;{encoded}") == (len(encoded) + len("utf-8;") <= 500)
    assert orcpt_in_seven_bit(f"utf-8;{encoded}") == f"utf-8;{encoded}"


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("utf-8;jösé@b.example", True),
        ("UTF-8;jos\\x{E9}@b.example", True),
        ("utf-8;a\\x{20}b@c.example", True),
        ("utf-8;a+2Bb@c.example", False),  # xtext is for type rfc822
        ("utf-8;a\\b@c.example", False),
        ("utf-8;a\\x{D800}@c.example", False),
        ("utf-8;a\\x{110000}@c.example", False),
        ("utf-8;a\\x{0A}@c.example", False),
        ("utf-8;", False),
        ("rfc822;jösé@b.example", False),
        ("rfc822;a+2Bb@c.example", True),
        ("utf-8;" + "語" * 165, False),
        ("utf-8;" + "語" * 164, True),
    ],
)
def test_original_recipients(value: str, is_one: bool) -> None:
    assert is_orcpt(value) == is_one


def test_the_seven_bit_form_of_an_original_recipient() -> None:
    assert orcpt_in_seven_bit("utf-8;jösé\\x{2B}x@b.example") == "utf-8;j\\x{F6}s\\x{E9}\\x{2B}x@b.example"
    assert orcpt_in_seven_bit("rfc822;a+2Bb@c.example") == "rfc822;a+2Bb@c.example"
    assert from_xtext("a+2Bb") == "a+b"
