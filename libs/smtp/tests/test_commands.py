"""Commands and paths: what is taken, and how every kind of nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import BodyType
from postern_core.policy import ListenerExtensions
from postern_smtp import replies
from postern_smtp.commands import Auth, Bdat, Command, CommandRefused, Hello, Mail, Plain, Rcpt, Verb, parse, split_verb
from postern_smtp.paths import ForwardPath, ReversePath, parse_forward_path


def command(line: bytes, **switches: bool) -> Command:
    """SMTPUTF8 and REQUIRETLS are tested in test_international.py."""
    offered = ListenerExtensions(**{"smtputf8": False, "requiretls": False} | switches)
    verb, argument = split_verb(line, utf8=offered.smtputf8)
    return parse(verb, argument, offered)


def refusal(line: bytes, **switches: bool) -> str:
    with pytest.raises(CommandRefused) as refused:
        command(line, **switches)
    return str(refused.value.reply)[:9]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"ehlo client.example", Hello("client.example", extended=True)),
        (b"HELO [192.0.2.1]", Hello("[192.0.2.1]", extended=False)),
        (b"MAIL FROM:<>", Mail(ReversePath(""))),
        (b"mail from:<A.b+c@Example.COM>", Mail(ReversePath("A.b+c@example.com"))),
        (b"MAIL FROM: <a@b.example> ", Mail(ReversePath("a@b.example"))),
        (b'MAIL FROM:<"a b"@b.example>', Mail(ReversePath('"a b"@b.example'))),
        (b"MAIL FROM:<a@[192.0.2.1]>", Mail(ReversePath("a@[192.0.2.1]"))),
        (b"MAIL FROM:<a@[IPv6:2001:DB8::1]>", Mail(ReversePath("a@[IPv6:2001:db8::1]"))),
        (b"MAIL FROM:<@x.example,@y.example:a@b.example>", Mail(ReversePath("a@b.example"))),
        (
            b"MAIL FROM:<a@b.example> size=1000 BODY=8bitmime RET=hdrs ENVID=q+2B1 AUTH=a+40b",
            Mail(ReversePath("a@b.example"), 1000, BodyType.EIGHT_BIT_MIME, "HDRS", "q+2B1"),
        ),
        (b"MAIL FROM:<bounce-" + b"x" * 100 + b"@b.example>", Mail(ReversePath("bounce-" + "x" * 100 + "@b.example"))),
        (b"RCPT TO:<a@b.example>", Rcpt(ForwardPath("a", "b.example"))),
        (b"RCPT TO:<Postmaster>", Rcpt(ForwardPath("Postmaster", ""))),
        (b"RCPT TO:<a%b@c.example>", Rcpt(ForwardPath("a%b", "c.example"))),
        (b"RCPT TO:<@x.example:a@b.example>", Rcpt(ForwardPath("a", "b.example", has_source_route=True))),
        (
            b"RCPT TO:<a@b.example> NOTIFY=success,delay ORCPT=rfc822;a+2Bc@b.example",
            Rcpt(ForwardPath("a", "b.example"), "SUCCESS,DELAY", "rfc822;a+2Bc@b.example"),
        ),
        (b"RCPT TO:<a@b.example> NOTIFY=NEVER", Rcpt(ForwardPath("a", "b.example"), "NEVER")),
        (b"AUTH plain AGEAYg==", Auth("PLAIN", "AGEAYg==")),
        (b"MAIL FROM:<> BODY=binarymime", Mail(ReversePath(""), None, BodyType.BINARY_MIME)),
        (b"BDAT 10", Bdat(10, last=False)),
        (b"bdat 0  last", Bdat(0, last=True)),
        (b"AUTH LOGIN", Auth("LOGIN", None)),
        (b"NOOP whatever", Plain(Verb.NOOP)),
        (b"DATA ", Plain(Verb.DATA)),
    ],
)
def test_well_formed_commands_are_taken(line: bytes, expected: Command) -> None:
    assert command(line) == expected


BAD_PATHS = [
    b"",
    b"a@b.example",
    b"<a@b.example",
    b"a@b.example>",
    b"<a b@c.example>",
    b"<a@b.example> <c@d.example>",
    b"<a@b.example>SIZE=1",
    b"<<a@b.example>>",
    b"<@b.example>",
    b"<a@>",
    b"<a@b.example@c.example>",
    b"<a@b..example>",
    b"<a@.example>",
    b"<a@b.example.>",
    b"<.a@b.example>",
    b"<a.@b.example>",
    b"<a..b@c.example>",
    b"<a@-b.example>",
    b"<a@b-.example>",
    b"<a@192.0.2.1>",
    b"<a@[192.0.2]>",
    b"<a@[192.0.2.256]>",
    b"<a@[IPv6:zz::1]>",
    b"<a@[2001:db8::1]>",
    b"<a@[tag:x]>",
    b"<a@b,c>",
    b"<a@b;c>",
    b"<a@b.example:c@d.example>",
    b"<@a.example:>",
    b"<@:a>",
    b'<"a@b.example>',
    b'<a"b"@c.example>',
    b'<"a"b@c.example>',
    b'<"a""b"@c.example>',
    b'<"a\\"@c.example>',
    b"<(comment)a@b.example>",
    b"<a@b.example(comment)>",
    b"<" + b"a" * 600 + b"@b.example>",
    b"<a@" + b"b" * 64 + b".example>",
    b"<a@" + b"b." * 130 + b"example>",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_malformed_paths_are_refused(path: bytes) -> None:
    assert refusal(b"MAIL FROM:" + path) in ("501 5.1.7", "501 5.5.4")
    assert refusal(b"RCPT TO:" + path) in ("501 5.1.3", "501 5.5.4")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", "500 5.5.2"),
        (b"FROB", "500 5.5.2"),
        (b"GET / HTTP/1.1", "500 5.5.2"),
        (b"\xffHLO x", "500 5.5.2"),
        (b"EHLO caf\xc3\xa9.example", "500 5.5.2"),
        (b"MAIL FROM:<caf\xc3\xa9@b.example>", "553 5.6.7"),
        (b"RCPT TO:<a@b\xff.example>", "553 5.6.7"),
        (b"RCPT TO:<a@b.example>\nRCPT TO:<c@d.example>", "501 5.5.2"),
        (b"RCPT TO:<a@b.example>\rx", "501 5.5.2"),
        (b"RCPT TO:<a\0@b.example>", "501 5.5.2"),
        (b"MAIL FROM:<a\x7f@b.example>", "501 5.5.2"),
        (b"EHLO a\x1bb", "501 5.5.2"),
        (b"EHLO", "501 5.5.4"),
        (b"EHLO a b", "501 5.5.4"),
        (b"HELO " + b"x" * 256, "501 5.5.4"),
        (b"NOOP " + b"x" * 2048, "500 5.5.2"),
        (b"EXPN list", "502 5.5.1"),
        (b"BDAT ten", "501 5.5.4"),
        (b"DATA now", "501 5.5.4"),
        (b"QUIT please", "501 5.5.4"),
        (b"VRFY", "501 5.5.4"),
        (b"MAIL", "501 5.1.7"),
        (b"MAIL TO:<a@b.example>", "501 5.1.7"),
        (b"MAIL FROM:<postmaster>", "501 5.1.7"),
        (b"MAIL FROM:<a@b.example> SIZE=", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=1 SIZE=2", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=123456789012345678901", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> BODY=9BIT", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> RET=ALL", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> ENVID=+zz", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> ENVID=" + b"x" * 101, "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SMTPUTF8", "555 5.5.4"),
        (b"MAIL FROM:<a@b.example> FOO=1", "555 5.5.4"),
        (b"RCPT TO:<>", "501 5.1.3"),
        (b"RCPT TO:<a>", "501 5.1.3"),
        (b"RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> NOTIFY=DELAY,DELAY", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> NOTIFY=SOMETIMES", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> ORCPT=nosemicolon", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> SIZE=1", "555 5.5.4"),
        (b"AUTH", "501 5.5.4"),
        (b"AUTH PLAIN a b", "501 5.5.4"),
    ],
)
def test_malformed_commands_get_their_reply(line: bytes, expected: str) -> None:
    assert refusal(line) == expected


def test_parameters_of_an_extension_that_is_not_offered_are_unknown() -> None:
    assert refusal(b"RCPT TO:<a@b.example> NOTIFY=NEVER", dsn=False) == "555 5.5.4"
    assert refusal(b"MAIL FROM:<a@b.example> RET=HDRS", dsn=False) == "555 5.5.4"
    assert refusal(b"MAIL FROM:<> BODY=BINARYMIME", binarymime=False) == "501 5.5.4"
    assert refusal(b"MAIL FROM:<> BODY=BINARYMIME", chunking=False) == "501 5.5.4"


def test_an_initial_response_is_not_in_the_representation() -> None:
    assert "AGEAYg" not in repr(command(b"AUTH PLAIN AGEAYg=="))


@given(st.binary(max_size=200))
def test_any_line_is_a_command_or_a_refusal(line: bytes) -> None:
    for prefix in (b"", b"MAIL FROM:", b"RCPT TO:<", b"AUTH ", b"EHLO "):
        code = 0
        try:
            command(prefix + line)
        except CommandRefused as refused:
            code = refused.reply.code
        assert code == 0 or code >= 500


@given(
    st.from_regex(r"[a-z!%]{1,8}(\.[a-z]{1,4})?", fullmatch=True),
    st.from_regex(r"([a-z0-9]{1,6}\.){1,3}[a-z]{2,5}", fullmatch=True),
)
def test_an_address_survives_parsing(local_part: str, domain: str) -> None:
    path, rest = parse_forward_path(f"<{local_part}@{domain.upper()}> X=1")
    assert (path.address, rest) == (f"{local_part}@{domain}", "X=1")


def test_quotes_do_not_hide_what_they_hold() -> None:
    path, _ = parse_forward_path(r'<"a\@b\"c"@d.example>')
    assert path.unquoted_local_part == 'a@b"c'


def test_all_replies_are_well_formed() -> None:
    named = {name: value for name, value in vars(replies).items() if isinstance(value, replies.Reply)}
    assert len(named) > 50
    for name, reply in named.items():
        assert bool(reply.status) == (reply.code // 100 != 3), name
