"""docs/reference/smtp.md says what the code does."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import msgspec
import pytest

from postern_core.bus.connection import PUBLISH_DEADLINE_S
from postern_core.envelope import Gate
from postern_core.errors import Reply
from postern_core.ids import new_queue_id
from postern_core.policy import GateLimits
from postern_smtp import (
    acceptance,
    commands,
    connection,
    conversation,
    data,
    lines,
    listener,
    paths,
    proxy_protocol,
    receiving,
    replies,
    resolver,
    reverse_dns,
    tls_door,
    transactions,
)
from postern_smtp.dialogue import Dialogue
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.session import Session

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "smtp.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<code>\d{3}(?: \d\.\d+\.\d+)?)` \| (?P<text>.+?) \| .+ \| (?:both|anon|auth|TLS) \|$", re.MULTILINE)


class Anybody:
    max_attempts = 3

    async def verify(self, name: str, password: str, client_address: str) -> str | Reply:
        return name


def test_every_reply_stands_on_the_page_and_no_other() -> None:
    queue_id = new_queue_id()
    given = [value for value in vars(replies).values() if isinstance(value, Reply)]
    given += [replies.greeting("*host*"), replies.hello("*host*"), replies.queued(queue_id)]
    expected = [str(reply).replace(queue_id, "*queue id*") for reply in given] + ["334 *base64, or nothing*"]
    rows = [f"{row['code']} {row['text']}" for row in ROW.finditer(PAGE)]
    assert sorted(rows) == sorted(expected)


def _shown(value: object) -> str:
    return "null" if value is None else str(int(value) if isinstance(value, float) else value)


def test_every_limit_stands_on_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\S+) \| (?:yes|no) \|", PAGE, re.MULTILINE))
    defaults = msgspec.to_builtins(GateLimits())
    assert rows == {name: _shown(value) for name, value in defaults.items()}
    switchable = set(re.findall(r"^\| `([a-z_]+)` \| \S+ \| yes \|", PAGE, re.MULTILINE))
    optional = {field.name for field in msgspec.structs.fields(GateLimits) if "None" in str(field.type)}
    assert switchable == optional


@pytest.mark.parametrize(
    "row",
    [
        f"| command line | {lines.MAX_COMMAND_OCTETS} octets",
        f"| line of an AUTH exchange | {lines.MAX_AUTH_OCTETS} octets",
        f"| path | {paths.MAX_PATH_OCTETS} octets",
        f"| line of a message | {data.MAX_LINE_OCTETS} octets",
        f"| recipients of a transaction | {transactions.MAX_PATH_OCTETS} octets of addresses and parameters",
        f"counting {transactions.RECIPIENT_OCTETS} more for each",
        f"| {transactions.MAX_IDLE_COMMANDS}, then each counts as an error",
        f"| {receiving._PROGRESS_OCTETS} octets, else `421 4.4.2`",
        f"| {conversation._BARE_NEWLINE_GRACE_S:.0f} seconds, then `501 5.5.2`",
        f"| quiet before a session has to make room, over `max_connections` | {listener._QUIET_S:.0f} seconds",
        f"| PROXY header | {proxy_protocol.HEADER_S:.0f} seconds; version 1: {proxy_protocol._MAX_TEXT_OCTETS} octets, version 2: {proxy_protocol.MAX_BINARY_OCTETS} octets",
        f"take {reverse_dns.REVERSE_DNS_S:.0f} seconds at most",
        f"| TLS handshake | {tls_door.TLS_HANDSHAKE_S:.0f} seconds",
        f"| storing a message | {PUBLISH_DEADLINE_S:.0f} seconds for each write, {acceptance.ACCEPTANCE_CAP_S:.0f} seconds in all",
        f"| {connection._LINGER_S:.0f} seconds, then the connection is cut",
        f"A lookup takes {resolver.LOOKUP_S:.0f} seconds at most",
        f"up to {resolver._MAX_ENTRIES} answers",
        f"one name of at most {commands._MAX_HOST_OCTETS} octets",
        "`"
        + "`, `".join(sorted(commands.NOT_IMPLEMENTED, key="EXPN ETRN ATRN TURN SEND SOML SAML BURL".index))
        + "`; `STARTTLS`",
    ],
)
def test_every_fixed_value_stands_on_the_page(row: str) -> None:
    assert row in PAGE


def test_the_extensions_are_those_that_ehlo_tells() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    anonymous = GateProfile(gate=Gate.ANON, fallback_hostname="x")
    authenticated = GateProfile(gate=Gate.AUTH, fallback_hostname="x", tls=context, tls_required=True, authenticator=Anybody())
    rules = GateRules(revision=1, hostname="mx.example", limits=GateLimits(), decide_recipient=lambda path: path.address)
    told = []
    for profile, tls in ((anonymous, ""), (authenticated, ""), (authenticated, "TLSv1.3")):
        talk = Dialogue(Session("192.0.2.1", tls=tls), profile, lambda: rules, lambda: None)
        told.append(talk.take(b"EHLO client.example").wire.decode().replace("\r\n", "\n"))
    assert re.findall(r"^```\n(250.+?)```$", PAGE, re.MULTILINE | re.DOTALL) == told
