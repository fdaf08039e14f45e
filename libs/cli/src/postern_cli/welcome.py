"""What `postern up` prints when all of it is ready: addresses, credentials, and three commands to paste.

The commands name everything by absolute path, so that they work in any other terminal, wherever that is.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from postern_cli.addresses import Addresses, reachable
from postern_cli.demo import CAUGHT_PHRASE, RELAY_DOMAINS, USER
from postern_cli.layout import Layout


def welcome(layout: Layout, addresses: Addresses) -> str:
    """The whole text."""
    postern = shlex.quote(str(Path(sys.executable).parent / "postern"))
    state = shlex.quote(str(layout.state))
    send = f"{postern} send --state {state} --to somebody@{RELAY_DOMAINS[0]}"
    password = layout.demo_password.read_text(encoding="utf-8").strip()
    return f"""
Postern is up. Ctrl-C stops it; {layout.state} keeps queue, quarantine and policy.

  anonymous gate      {addresses.anon}  takes mail for {" and ".join(RELAY_DOMAINS)}
  authenticated gate  {addresses.auth_starttls} (STARTTLS), {addresses.auth_tls} (TLS)
                      user {USER}, password {password}
  API                 http://{reachable(addresses.api)}/docs
                      token in {layout.admin_token}
  demo smart host     {addresses.smart_host}  keeps what arrives in {layout.smart_host_mail}
  logs                {layout.logs}

Try it, in another terminal: send a clean message, send one that a rule catches, see what became of both.

  {send} --subject 'Hello'
  {send} --subject 'How to {CAUGHT_PHRASE}'
  {postern} trace --state {state} --last 2 --wait 10
"""
