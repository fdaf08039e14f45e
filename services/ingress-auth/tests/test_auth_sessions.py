"""The authenticated gate's sessions: who they are, and pausing at the port where TLS begins at once."""

from __future__ import annotations

import base64
import ssl

import msgspec

from fixtures.gates import GateUnderTest
from postern_core.policy import GateState, ListenerPolicy, ListenerState, SessionLogging, SessionLogLevel
from postern_core.session_log import SessionRecord
from postern_core.sessions import GateVerb, SessionPage, SessionQuery

PAUSED = ListenerPolicy(state=ListenerState(state=GateState.PAUSED))
PASSWORD = base64.b64encode("\0Anna@example.com\0wörd pass".encode()).decode()


async def test_a_session_is_listed_with_its_user_and_its_tls(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await (await gate.connect(1, client_tls)).greeted()
    await wire.expect(f"AUTH PLAIN {PASSWORD}", "235")
    answer = await gate.api.request(
        f"control.ingress-auth.{GateVerb.LIST}.test", msgspec.json.encode(SessionQuery()), timeout_s=5
    )
    (row,) = msgspec.json.decode(answer, type=SessionPage).rows
    assert (row.user, row.server) == ("Anna@example.com", str(gate.listener.addresses[1]))
    assert row.tls.startswith("TLSv1.")


async def test_a_paused_gate_says_so_inside_tls_and_goes_on_with_its_sessions(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire = await (await gate.connect(1, client_tls)).greeted()
    await gate.policy(listener=PAUSED)
    for port, tls in ((0, None), (1, client_tls)):
        newcomer = await gate.connect(port, tls)
        assert await newcomer.reply() == "421 4.3.2 not taking mail now, try again later"
        assert await newcomer.is_closed()
    await wire.expect(f"AUTH PLAIN {PASSWORD}", "235")
    await gate.policy()
    await (await gate.connect(1, client_tls)).greeted()


async def test_the_session_log_has_no_credentials(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    records: list[SessionRecord] = []
    gate.listener.tell_session = records.append
    await gate.policy(listener=ListenerPolicy(logging=SessionLogging(level=SessionLogLevel.COMMANDS)))
    wire = await gate.connect(0)
    assert (await wire.reply()).startswith("220")
    await wire.expect("EHLO client.example", "250")
    await wire.expect(f"AUTH PLAIN {PASSWORD}", "538")
    await wire.start_tls(client_tls)
    await wire.expect("EHLO client.example", "250")
    await wire.expect("AUTH PLAIN", "334")
    await wire.expect(base64.b64encode(b"\0Anna@example.com\0wrong").decode(), "535")
    await wire.expect(f"AUTH PLAIN {PASSWORD}", "235")
    await wire.expect("QUIT", "221")
    await gate.wait_for(lambda: records[-1:] != [] and records[-1].verb == "SESSION")
    assert [(each.verb, each.argument, each.code) for each in records[:-1]] == [
        ("EHLO", "client.example", 250),
        ("AUTH", "PLAIN", 538),
        ("STARTTLS", "", 220),
        ("EHLO", "client.example", 250),
        ("AUTH", "PLAIN", 535),
        ("AUTH", "PLAIN", 235),
        ("QUIT", "", 221),
    ]
    assert PASSWORD not in str(records)
    assert records[-1].user == "Anna@example.com"
