"""The demo policy: what a newcomer finds in a fresh embedded stack, and the way to the demo smart host."""

from __future__ import annotations

from typing import Any, Final

import structlog

from postern_cli.addresses import reachable, split_address

log: structlog.stdlib.BoundLogger = structlog.get_logger()

RELAY_DOMAINS: Final = ("demo.example", "*.demo.example")
USER: Final = "demo"
CAUGHT_PHRASE: Final = "make money fast"
ROUTE: Final = "default"


def demo_policy(smart_host: str, password: str) -> dict[str, Any]:
    """The api's bootstrap file: two relay domains, one route to the demo smart host, a rule of each family and one SMTP user."""
    return {
        "hostname": "postern.localhost",
        "domains": [{"pattern": pattern} for pattern in RELAY_DOMAINS],
        "routes": [{"name": ROUTE, "smart_hosts": [_hop(smart_host)], "tls": "off", "default": True}],
        "rules": [
            {"name": "rejected senders", "condition": {"type": "sender", "patterns": ["*.spam.example"]}, "action": "delete"},
            {
                "name": "programs",
                "condition": {"type": "attachment", "match": "extension", "values": ["exe", "scr", "js", "vbs"]},
                "action": "hold",
            },
            {"name": "forbidden phrase", "condition": {"type": "keyword", "phrases": [CAUGHT_PHRASE]}, "action": "hold"},
        ],
        "users": [{"name": USER, "password": password}],
    }


def _hop(address: str) -> dict[str, Any]:
    host, port = split_address(reachable(address))
    return {"host": f"[{host}]", "port": port}


def follow_smart_host(api: str, token: str, before: str, now: str) -> None:
    """Make the default route lead to where the demo smart host is now, when it still leads to where it was at the last start.

    Else mail would wait for a smart host that is gone. A route that leads anywhere else is the administrator's and stays.
    """
    if reachable(before) == reachable(now):
        return
    import httpx  # hardly ever needed, and `postern up` would keep it for as long as it runs

    try:
        with httpx.Client(base_url=f"http://{api}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
            answer = client.get(f"/routes/{ROUTE}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                return
            route = answer.raise_for_status().json()
            if [{"host": hop["host"], "port": hop["port"]} for hop in route["smart_hosts"]] != [_hop(before)]:
                return
            client.put(f"/routes/{ROUTE}", json=route | {"smart_hosts": [_hop(now)]}).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("demo_route.change_failed", before=before, now=now, reason=str(error))
