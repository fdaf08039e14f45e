"""What a gate asks the world about clients and domains, through the API: what reaches the gates, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.api import RunningApi
from postern_core.policy import (
    DmarcAction,
    DnsList,
    GatePolicy,
    ListedAt,
    ListenerDnsLists,
    ListenerGreeting,
    MailAuthentication,
    Switch,
    decode_section,
)

BODIES: dict[str, dict[str, Any]] = {
    "dns_lists": {
        "lists": [
            {"zone": "Bad.Example.", "weight": 2.5, "answers": ["127.0.0.2/31", "127.0.0.4"]},
            {"zone": "good.example", "weight": -1},
        ],
        "threshold": 2,
        "refuse_at": "connection",
    },
    "greeting": {"pause_s": 5, "hello_own": "refuse"},
    "mail_authentication": {"enabled": True, "dmarc": "reject", "trusted_arc_sealers": ["Lists.Example.", "lists.example"]},
}


async def test_the_parts_reach_the_gates_in_canonical_form_and_are_shown_again(api: RunningApi) -> None:
    for part, body in BODIES.items():
        (await api.client.put(f"/listeners/anon/{part}", json=body)).raise_for_status()
    data = await api.bus.kv_get("POLICY", "gates")
    assert data is not None
    anon = decode_section(data, GatePolicy).anon_listener
    assert anon.dns_lists == ListenerDnsLists(
        lists=(
            DnsList(zone="bad.example", weight=2.5, answers=("127.0.0.2/31", "127.0.0.4/32")),
            DnsList(zone="good.example", weight=-1.0),
        ),
        threshold=2.0,
        refuse_at=ListedAt.CONNECTION,
    )
    assert anon.greeting == ListenerGreeting(pause_s=5.0, hello_own=Switch.REFUSE)
    assert anon.mail_authentication == MailAuthentication(
        enabled=True, dmarc=DmarcAction.REJECT, trusted_arc_sealers=("lists.example",)
    )
    for part in BODIES:
        shown = await api.get(f"/listeners/anon/{part}")
        assert (await api.client.put(f"/listeners/anon/{part}", json=shown)).json() == shown


@pytest.mark.parametrize(
    ("part", "body"),
    [
        ("dns_lists", {"lists": [{"zone": "not a zone"}]}),
        ("dns_lists", {"lists": [{"zone": "bad.example", "answers": ["192.0.2.1"]}]}),
        ("dns_lists", {"lists": [{"zone": "bad.example", "answers": ["0.0.0.0/0"]}]}),
        ("dns_lists", {"lists": [{"zone": "bad.example", "answers": ["::1"]}]}),
        ("dns_lists", {"lists": [{"zone": "bad.example", "weight": "2"}]}),
        ("dns_lists", {"threshold": 0}),
        ("greeting", {"pause_s": 61}),
        ("greeting", {"hello_own": "sometimes"}),
        ("mail_authentication", {"enabled": "yes"}),
        ("mail_authentication", {"dmarc": "quarantine"}),
        ("mail_authentication", {"trusted_arc_sealers": ["*"]}),
    ],
)
async def test_what_cannot_be_is_refused(api: RunningApi, part: str, body: dict[str, Any]) -> None:
    answer = await api.client.put(f"/listeners/anon/{part}", json=body)
    assert answer.status_code in (400, 422), answer.text
