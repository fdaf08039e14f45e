"""Whatever a message looks like: what is stripped is what was meant, every other part stays what it was, and nothing raises or takes long."""

from __future__ import annotations

import email
import email.policy
import random
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postern_core.changes import AddDisclaimer, AddHeader, RemoveHeader, StripAttachments, TagSubject
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import QueueId, accepted_at
from postern_core.policy import Rule, ScreeningPolicy, SizeCondition
from postern_core.verdict import Action, Decision
from postern_screener.changes.edits import apply
from postern_screener.changes.layout import Layout
from postern_screener.changes.strip import edits_of, strip
from postern_screener.mime import MalformedError, parse_message
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

ENVELOPE = Envelope(
    id=QueueId("01m872jv7bexwrfkmpb6w2jh6c"),
    gate=Gate.ANON,
    reverse_path="x@sender.example",
    recipients=(Recipient(n=0, address="a@relay.example"),),
    size_bytes=100,
    accepted_at=accepted_at(QueueId("01m872jv7bexwrfkmpb6w2jh6c")),
    client=Client(address="127.0.0.1"),
)
EVERYTHING = compile_policy(
    ScreeningPolicy(
        revision=1,
        rules=(
            Rule(
                id="r1",
                name="all",
                condition=SizeCondition(larger_than_bytes=0),
                action=Action.ALLOW,
                changes=(
                    TagSubject(text="[Täg]"),
                    RemoveHeader(name="X-A"),
                    AddHeader(name="X-B", value="b"),
                    StripAttachments(every=True),
                    AddDisclaimer(text="nöte"),
                ),
            ),
        ),
    )
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=200)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> EmailMessage:
    """A message of random parts, as Python's own library builds it."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["Subject"] = "s"
    kind = draw(st.sampled_from(["text", "binary", "mixed", "alternative", "message"] if depth else ["text", "binary"]))
    if kind == "text":
        encoding = draw(st.sampled_from(["base64", "quoted-printable", "8bit"]))
        mail.set_content("\n".join(draw(st.lists(TEXTS, max_size=4))) + "\n", cte=encoding)
    elif kind == "binary":
        name = draw(st.sampled_from(["a.exe", "ü.pdf", "x" * 90 + ".zip"]))
        mail.set_content(draw(st.binary(max_size=300)), "application", "octet-stream", filename=name)
    elif kind == "message":
        mail.set_content(draw(trees(depth=depth - 1)))
    else:
        parts = draw(st.lists(trees(depth=depth - 1), min_size=1, max_size=3))
        mail["Content-Type"] = f"multipart/{kind}"
        mail.set_payload([])
        for part in parts:
            del part["Subject"]
            mail.attach(part)
    return mail


@settings(max_examples=150, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_a_part_that_is_stripped_leaves_every_other_part_as_it_was(mail: EmailMessage, chance: random.Random) -> None:
    body = mail.as_bytes()
    before = parse_message(body)
    layout = Layout(body)
    layout.agrees_with(before)
    chosen = chance.choice(before.parts)
    [stripped] = strip(layout, before, [chosen.path], "rule")
    edits = edits_of(stripped)
    changed = apply(body, edits)
    after = parse_message(changed)
    assert after.defects == before.defects
    gone = stripped.node.path
    assert chosen.path == gone or chosen.path.startswith(f"{gone}.")
    holds_it = [part.path for part in before.parts if gone.startswith(f"{part.path}.")]  # messages around it
    kept = [part for part in before.parts if part.path != gone and not part.path.startswith(f"{gone}.")]
    found = {part.path: part for part in after.parts}
    assert set(found) == {part.path for part in kept} | {gone}
    for part in kept:
        assert found[part.path].media_type == part.media_type
        if part.path not in holds_it:
            assert found[part.path].content() == part.content()
    assert b"SHA-256" in found[gone].content()
    # octet for octet
    start, end = min(edit.start for edit in edits), max(edit.end for edit in edits)
    assert changed.startswith(body[:start])
    assert changed.endswith(body[end:])
    # and Python's parser sees the same tree
    oracle = email.message_from_bytes(changed, policy=email.policy.default)
    assert sum(not part.is_multipart() for part in oracle.walk()) == sum(
        part.media_type != "message/rfc822" for part in after.parts
    )


@settings(max_examples=100, deadline=None)
@given(trees())
def test_all_changes_of_any_tree_leave_it_readable(mail: EmailMessage) -> None:
    body = mail.as_bytes()
    screened = screen(ENVELOPE, body, EVERYTHING)
    assert screened.verdict.decision is Decision.PASS
    changed = apply(body, screened.edits)
    read = email.message_from_bytes(changed, policy=email.policy.default)
    assert str(read["Subject"]) == "[Täg] s"
    assert read["X-B"] == "b"
    assert "nöte" in "".join(str(part.get_content()) for part in read.walk() if part.get_content_maintype() == "text")
    assert not any(part.get_filename() for part in read.walk())
    assert parse_message(changed).defects == ()
    assert b"\n" not in changed.replace(b"\r\n", b"")


MUTANTS = (
    b"--",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\r\n--b",
    b"--\r\n",
    b":",
    b";",
    b'"',
    b"=",
    b"\x00",
    b"\xff",
    b"boundary=",
    b"Content-Type: ",
)


@settings(max_examples=300, deadline=None)
@given(trees(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 5), st.sampled_from(MUTANTS)), max_size=6))
def test_damaged_mail_is_held_or_changed_and_never_raises(mail: EmailMessage, damage: list[tuple[int, int, bytes]]) -> None:
    body = mail.as_bytes()
    for place, length, octets in damage:
        at = place % (len(body) + 1)
        body = body[:at] + octets + body[at + length :]
    screened = screen(ENVELOPE, body, EVERYTHING)
    changed = apply(body, screened.edits)
    if screened.verdict.decision is not Decision.PASS:
        assert screened.edits == ()
        return
    try:
        after = parse_message(changed)
    except MalformedError:
        assert parse_message(body) is None
        return
    assert not any("exe" in name for part in after.parts for name in part.names)


HOSTILE = {
    "a header of many fields": b"X: y\r\n" * 1_000_000 + b"\r\n",
    "a subject of many words": b"Subject: " + b"=?utf-8?q?a?= " * 1900 + b"\r\n\r\nx\r\n",
    "a folded subject": b"Subject: x\r\n" + b" y\r\n" * 500_000 + b"\r\nx\r\n",
    "many boundaries that are none": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"--c\r\n" * 1_000_000,
    "parts of nothing": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 200_000 + b"--b--\r\n",
    "parts in parts": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(10_000))
    + b"\r\n\r\nx",
    "messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"\r\nx",
    "one long line": b"Content-Type: text/html\r\n\r\n" + b"</body" * 2_000_000,
    "charsets": b"Content-Type: text/plain" + b"; charset=x" * 100_000 + b"\r\n\r\nx",
    "an end of quoted-printable": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    + b"=\r\n" * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_costs_what_its_size_costs(name: str) -> None:
    body = HOSTILE[name]
    changed = apply(body, screen(ENVELOPE, body, EVERYTHING).edits)  # what goes by the square of these would not end
    assert len(changed) < 3 * len(body)
