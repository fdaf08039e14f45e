"""Postfix with rspamd as a milter: Debian's configuration of it, plus our rules as multimaps, less every module that asks the network or Redis.

Scanning is done in the proxy itself (`self_scan`), a process a core, which is the faster of the two ways that rspamd's documentation names.
What is caught is discarded. A message that rspamd does not answer for is deferred, never passed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postfix
from bench.measure import Running
from bench.processes import running
from bench.rules import Rules
from fixtures.ports import free_port

_USER = "_rspamd"
# they ask DNS, Redis, HTTP or a fuzzy storage, of which there is none here
_OFF = (
    "rbl surbl spf dkim dkim_signing arc dmarc asn fuzzy_check phishing mx_check url_redirector bimi whitelist rspamd_update greylist "
    "history_redis ratelimit replies neural reputation"
)
_MILTER = """\
smtpd_milters = inet:127.0.0.1:{port}
milter_default_action = tempfail
"""
_MULTIMAP = """\
BENCH_PHRASE { type = "content"; filter = "text"; map = "{etc}/phrases.map"; regexp = true; score = 0.1; }
BENCH_ADDRESS { type = "from"; map = "{etc}/addresses.map"; score = 0.1; }
BENCH_DOMAIN { type = "from"; filter = "email:domain"; map = "{etc}/domains.map"; score = 0.1; }
BENCH_EXTENSION { type = "filename"; filter = "extension"; map = "{etc}/extensions.map"; score = 0.1; }
"""
_CAUGHT = """\
rules { BENCH { action = "reject"; expression = "BENCH_PHRASE | BENCH_ADDRESS | BENCH_DOMAIN | BENCH_EXTENSION"; } }
"""


@contextmanager
def with_rspamd(directory: Path, sink_port: int, rules: Rules) -> Iterator[Running]:
    """Both, each counted as a service of its own."""
    port, milter = free_port(), free_port()
    etc = _configuration(directory / "rspamd", milter, rules)
    command = ["rspamd", "--no-fork", "--config", "/etc/rspamd/rspamd.conf", "--user", _USER, "--group", _USER]
    folders = {"LOCAL_CONFDIR": etc, "DBDIR": etc.parent, "RUNDIR": etc.parent, "LOGDIR": etc.parent}
    command += [f"--var={name}={folder}" for name, folder in folders.items()]
    with running(command, directory / "rspamd.out", cwd=directory) as scanner:
        _wait(milter, etc.parent / "rspamd.log")
        settings = _MILTER.format(port=milter)
        with postfix.running_postfix(directory / "postfix", port, sink_port, settings=settings) as master:
            yield Running(port, {"postfix": [master], "rspamd": [scanner]}, f"{postfix.version()}, {version()}")


def version() -> str:
    shown = subprocess.run(["rspamd", "--version"], capture_output=True, text=True, check=True)
    return f"rspamd {shown.stdout.split()[-1]}"


def _configuration(directory: Path, port: int, rules: Rules) -> Path:
    """Write the folder that stands for /etc/rspamd's local part."""
    etc = directory / "etc"
    for folder in ("local.d", "override.d"):
        (etc / folder).mkdir(parents=True)
    files = {f"{module}.conf": "enabled = false;\n" for module in _OFF.split()}
    files |= {
        # a port where nobody listens answers at once that there is no DNS: nothing leaves loopback
        "options.inc": f'dns {{ nameserver = "127.0.0.1:{free_port()}"; }}\n',
        # in override.d, else rspamd listens on its usual ports as well
        "worker-proxy.inc": f'bind_socket = "127.0.0.1:{port}"; count = {os.cpu_count()};\n'
        'upstream "local" { default = yes; self_scan = yes; }\n'
        "discard_on_reject = true;\n",
        "worker-normal.inc": "enabled = false;\n",
        "worker-controller.inc": f'bind_socket = "127.0.0.1:{free_port()}";\n',
        "multimap.conf": _MULTIMAP.replace("{etc}", str(etc)),
        "force_actions.conf": _CAUGHT,
    }
    for name, text in files.items():
        (etc / ("override.d" if name.startswith("worker-") else "local.d") / name).write_text(text)
    maps = {
        "phrases.map": [f"/{phrase}/i" for phrase in rules.phrases],
        "addresses.map": rules.addresses,
        "domains.map": rules.domains,
        "extensions.map": rules.extensions,
    }
    for name, lines in maps.items():
        (etc / name).write_text("".join(f"{line}\n" for line in lines))
    shutil.chown(directory, _USER)
    return etc


def _wait(port: int, log: Path, timeout_s: float = 120) -> None:
    """Return when rspamd takes milter connections: it compiles the names of all top-level domains before. Its rules it compiles in the warm-up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"rspamd does not listen: {log.read_text()[-500:] if log.exists() else 'no log'}")
