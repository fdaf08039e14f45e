"""The filters of a listener through the API: what reaches the gates, what is refused, and presets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fixtures.api import RunningApi
from postern_core.policy import GateLimits, GatePolicy, decode_section
from postern_core.policy.commands import DEFAULT_COMMANDS, CommandRule, ListenerCommands, OnViolation
from postern_core.policy.filters import DeniedAs, ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "smtp.md"


async def gates(api: RunningApi) -> GatePolicy:
    data = await api.bus.kv_get("POLICY", "gates")
    assert data is not None
    return decode_section(data, GatePolicy)


async def test_the_whole_table_is_shown_and_what_differs_is_kept(api: RunningApi) -> None:
    shown = await api.get("/listeners/anon/commands")
    assert [row["verb"] for row in shown["rules"]] == [rule.verb for rule in DEFAULT_COMMANDS]
    assert {row["verb"] for row in shown["rules"] if not row["enabled"]} == {"EXPN", "ETRN", "*"}
    # what was read can be written back, and changes nothing
    same = await api.client.put("/listeners/anon/commands", json=shown)
    assert (same.json(), same.headers["Postern-Revision"]) == (shown, "1")
    changed = shown | {
        "rules": [*shown["rules"][1:], {"verb": "x-exps", "enabled": False, "max_octets": 20}],
        "on_disabled": "close",
    }
    changed["rules"][6] |= {"max_octets": 6}
    assert changed["rules"][6]["verb"] == "NOOP"
    answer = (await api.client.put("/listeners/anon/commands", json=changed)).raise_for_status().json()
    assert [row["verb"] for row in answer["rules"]] == [*(rule.verb for rule in DEFAULT_COMMANDS), "X-EXPS"]
    policy = await gates(api)
    assert policy.anon_listener.commands == ListenerCommands(
        rules=(CommandRule(verb="NOOP", max_octets=6), CommandRule(verb="X-EXPS", enabled=False, max_octets=20)),
        on_disabled=OnViolation.CLOSE,
    )
    assert policy.auth_listener.commands == ListenerCommands()


async def test_the_other_filters_reach_the_gates_in_canonical_form(api: RunningApi) -> None:
    for part, body in (
        ("sender_filter", {"rejected": ["Bulk.Example.", "bulk.example", "*.bücher.example", "Joe@else.example"]}),
        ("recipient_filter", {"denied": ["Everybody@relay.example"], "denied_as": "no-mailbox"}),
        ("relaying", {"networks": ["192.0.2.7", "2001:DB8::/32"]}),
    ):
        (await api.client.put(f"/listeners/anon/{part}", json=body)).raise_for_status()
    (await api.client.put("/listeners/auth/addresses", json={"default_domain": "Example.COM."})).raise_for_status()
    policy = await gates(api)
    anon = policy.anon_listener
    assert anon.sender_filter == ListenerSenders(rejected=("bulk.example", "*.xn--bcher-kva.example", "joe@else.example"))
    assert anon.recipient_filter == ListenerRecipients(denied=("everybody@relay.example",), denied_as=DeniedAs.NO_MAILBOX)
    assert anon.relaying == ListenerRelaying(networks=("192.0.2.7/32", "2001:db8::/32"))
    assert policy.auth_listener.addresses == ListenerAddresses(default_domain="example.com")
    assert (await api.get("/listeners/anon/relaying")) == {"networks": ["192.0.2.7/32", "2001:db8::/32"], "users": True}
    diff = (await api.get("/revisions/1/diff/5"))["differences"]
    assert {each["object"] for each in diff} == {
        "listeners/anon/sender_filter",
        "listeners/anon/recipient_filter",
        "listeners/anon/relaying",
        "listeners/auth/addresses",
    }


def command(**row: Any) -> dict[str, Any]:
    return {"rules": [row]}


REFUSALS: list[tuple[str, Any, tuple[int, str]]] = [
    ("anon/commands", command(verb="NOOP", max_octets=5), (400, "invalid_command")),
    ("anon/commands", command(verb="NOOP", max_octets=2049), (400, "invalid_command")),
    ("anon/commands", command(verb="AUTH", max_octets=12289), (400, "invalid_command")),
    ("anon/commands", command(verb="TURN", enabled=False), (400, "invalid_command")),
    ("anon/commands", command(verb="atrn"), (400, "invalid_command")),
    ("anon/commands", command(verb="MAIL FROM"), (400, "invalid_command")),
    ("anon/commands", command(verb="**"), (400, "invalid_command")),
    ("anon/commands", {"rules": [{"verb": "FROB"}, {"verb": "frob"}]}, (409, "command_exists")),
    ("anon/commands", command(verb="NOOP", max_octets="6"), (422, "malformed_payload")),
    ("anon/commands", {"on_disabled": "drop"}, (422, "malformed_payload")),
    ("anon/sender_filter", {"rejected": ["*"]}, (400, "invalid_pattern")),
    ("anon/sender_filter", {"rejected": ["*@*"]}, (400, "invalid_pattern")),
    ("anon/recipient_filter", {"denied": ["a b@c.example"]}, (400, "invalid_pattern")),
    ("anon/relaying", {"networks": ["192.0.2.1/24"]}, (400, "invalid_network")),
    ("anon/relaying", {"networks": ["mx.example"]}, (400, "invalid_network")),
    ("anon/relaying", {"networks": ["0.0.0.0/0"]}, (400, "open_relay")),
    ("anon/relaying", {"networks": ["::/1"]}, (400, "open_relay")),
    ("auth/relaying", {"networks": ["192.0.2.0/24"]}, (400, "wrong_gate")),
    ("anon/relaying", {"users": False}, (400, "wrong_gate")),
    ("anon/addresses", {"default_domain": "example.com"}, (400, "wrong_gate")),
    ("auth/dns_lists", {"lists": [{"zone": "list.example"}]}, (400, "wrong_gate")),
    ("auth/greeting", {"hello_own": "refuse"}, (400, "wrong_gate")),
    ("auth/greylisting", {"enabled": True}, (400, "wrong_gate")),
    ("auth/mail_authentication", {"enabled": True, "dmarc": "reject"}, (400, "wrong_gate")),
    ("auth/addresses", {"default_domain": "no domain"}, (400, "invalid_domain")),
    ("anon/preset", {"preset": "exchange"}, (422, "malformed_payload")),
]


async def test_what_makes_no_filter_is_refused_with_a_stable_name(api: RunningApi) -> None:
    for path, body, expected in REFUSALS:
        answer = await api.client.put(f"/listeners/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]) == expected, (path, body)
    assert (await api.get("/revisions"))["newest"] == 1


async def test_a_preset_replaces_limits_and_filter_and_nothing_else(api: RunningApi) -> None:
    presets = {preset["name"]: preset for preset in await api.get("/presets")}
    assert set(presets) == {"standard", "isa2000", "large"}
    (await api.client.put("/listeners/anon/sender_filter", json={"rejected": ["bulk.example"]})).raise_for_status()
    before = (await gates(api)).auth
    answer = (await api.client.put("/listeners/anon/preset", json={"preset": "isa2000"})).raise_for_status()
    assert answer.headers["Postern-Revision"] == "3"
    parts = answer.json()["parts"]
    assert {name: parts[name] for name in ("limits", "commands")} == presets["isa2000"]["gates"]["anon"]
    assert parts["sender_filter"] == {"rejected": ["bulk.example"]}
    policy = await gates(api)
    assert (policy.anon.max_hops, policy.anon.max_message_bytes, policy.anon.max_session_bytes) == (15, 2097152, 10485760)
    assert policy.auth == before
    # applied as if by hand: written once more, it changes nothing
    for part in ("limits", "commands"):
        body = presets["isa2000"]["gates"]["anon"][part]
        assert (await api.client.put(f"/listeners/anon/{part}", json=body)).headers["Postern-Revision"] == "3"
    (await api.client.put("/listeners/anon/preset", json={"preset": "standard"})).raise_for_status()
    policy = await gates(api)
    assert (policy.anon, policy.anon_listener.commands) == (GateLimits(), ListenerCommands())
    assert policy.anon_listener.sender_filter == ListenerSenders(rejected=("bulk.example",))


async def test_the_old_products_values_are_those_of_its_documentation(api: RunningApi) -> None:
    preset = next(preset for preset in await api.get("/presets") if preset["name"] == "isa2000")["gates"]
    rows = {gate: {row["verb"]: row for row in preset[gate]["commands"]["rules"]} for gate in ("anon", "auth")}
    lengths = {verb: row["max_octets"] for verb, row in rows["anon"].items() if row["enabled"]}
    assert lengths == {
        "HELO": 71, "EHLO": 71, "MAIL": 266, "RCPT": 266, "DATA": 6, "RSET": 6, "QUIT": 6, "NOOP": 6, "HELP": 6,
        "VRFY": 255, "EXPN": 255, "AUTH": 1024, "STARTTLS": 10,
    }  # fmt: skip
    shown = re.findall(r"^\| `([A-Z*]+)` \| (?:\d+|off) \| (\d+|off) \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {verb: int(octets) for verb, octets in shown if octets != "off"} == lengths
    assert rows["auth"]["MAIL"]["max_octets"] == 266 + 1024
    assert (preset["anon"]["commands"]["on_too_long"], preset["anon"]["commands"]["on_disabled"]) == ("close", "close")


async def test_an_auditor_sees_presets_and_changes_nothing(api: RunningApi) -> None:
    issued = (await api.client.post("/tokens", json={"name": "a", "scope": "auditor"})).raise_for_status().json()
    header = {"Authorization": f"Bearer {issued['token']}"}
    assert (await api.client.get("/presets", headers=header)).status_code == 200
    for path in ("preset", "commands", "relaying"):
        refused = await api.client.put(
            f"/listeners/anon/{path}", json={"preset": "isa2000"} if path == "preset" else {}, headers=header
        )
        assert refused.status_code == 403
