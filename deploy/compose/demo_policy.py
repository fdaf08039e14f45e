"""The demonstration's policy, entered through the API as an administrator would: a relay domain, a route, rules, an SMTP user.

Promises: it only adds. Where there is a relay domain already, somebody runs this stack for real, and nothing is changed.
Mail for demo.example and everything from the demo user then goes to the demo smart host.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SECRETS = Path("/run/secrets")
TIMEOUT_S = 30.0
ROUTE = {"name": "default", "smart_hosts": [{"host": "demo-smart-host", "port": 2626}], "tls": "off", "default": True}
RULES = (
    {"name": "rejected senders", "condition": {"type": "sender", "patterns": ["*.spam.example"]}, "action": "delete"},
    {
        "name": "programs",
        "condition": {"type": "attachment", "match": "extension", "values": ["exe", "scr", "js", "vbs"]},
        "action": "hold",
    },
    {"name": "forbidden phrase", "condition": {"type": "keyword", "phrases": ["make money fast"]}, "action": "hold"},
)
# the domains last: their presence says that all of the rest was entered
DOMAINS = ({"pattern": "*.demo.example"}, {"pattern": "demo.example"})


class Api:
    """The REST API at `url` (without /api/v1)."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer. HTTPError for an answer of 400 or more."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, self._headers, method=method)  # noqa: S310  (our own API)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def add(self, collection: str, name: str, body: object) -> None:
        """Create `body`, or put it in the place of the one that an earlier, interrupted run left."""
        try:
            self.call("POST", f"/{collection}", body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            self.call("PUT", f"/{collection}/{name}", body)


def enter(api: Api, password: str) -> bool:
    """True when the policy was entered, False when there is one already."""
    if api.call("GET", "/domains"):
        return False
    api.add("routes", "default", ROUTE)
    present = {rule["name"] for rule in api.call("GET", "/rules")}
    for rule in RULES:
        if rule["name"] not in present:
            api.call("POST", "/rules", rule)
    api.add("users", "demo", {"name": "demo", "password": password})
    for domain in DOMAINS:
        api.add("domains", str(domain["pattern"]), domain)
    return True


def main() -> int:
    """Exit code 0 entered or not needed, 69 (EX_UNAVAILABLE) the API refused or does not answer."""
    token = (SECRETS / "admin" / "admin-token").read_text().strip()
    password = (SECRETS / "demo" / "demo-user.password").read_text().strip()
    try:
        entered = enter(Api(os.environ.get("POSTERN_API_URL", "http://api:8080"), token), password)
    except urllib.error.HTTPError as error:
        print(f"demo-policy: {error.url}: {error.code} {error.read().decode(errors='replace')}", file=sys.stderr)
        return 69
    except OSError as error:
        print(f"demo-policy: {error}", file=sys.stderr)
        return 69
    print("demo-policy: entered" if entered else "demo-policy: there are relay domains already; nothing changed")
    print(f"demo-policy: user of the authenticated gate: demo, password {password}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
