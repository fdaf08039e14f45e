"""Haraka from npm, with plugins that do what our rules do, handing each message on before it answers (`queue/smtp_forward`).

It writes nothing to disk: it is as durable as the server behind it, which here is a sink that keeps nothing. Worker processes are as many as cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postfix
from bench.measure import Running
from bench.processes import running
from bench.rules import Rules
from fixtures.ports import free_port

PACKAGES = ("Haraka@3.3.4", "haraka-plugin-access@1.4.0", "haraka-plugin-attachment@1.2.1", "haraka-plugin-headers@1.2.0")
_PLUGINS = ("rcpt_to.in_host_list", "access", "headers", "attachment", "keywords", "queue/discard", "queue/smtp_forward")
_KEYWORDS = Path(__file__).with_name("haraka_keywords.js")


@contextmanager
def with_haraka(directory: Path, sink_port: int, rules: Rules, *, installed: Path) -> Iterator[Running]:
    """Haraka from the `node_modules` below `installed`."""
    port = free_port()
    config = directory / "config"
    (directory / "plugins").mkdir(parents=True)
    (directory / "queue").mkdir()
    config.mkdir()
    shutil.copy(_KEYWORDS, directory / "plugins/keywords.js")
    package = installed / "node_modules/Haraka"
    # ours stands for the whole of the one that it ships, of which only the size is to change
    connection = re.sub(r"(?m)^bytes=.*$", "bytes=52428800", (package / "config/connection.ini").read_text())
    for name, text in ({"connection.ini": connection} | _files(sink_port, port, rules)).items():
        (config / name).write_text(text)
    command = ["node", str(package / "bin/haraka"), "-c", str(directory)]
    with running(command, directory / "haraka.log", cwd=directory) as master:
        postfix.wait_for_greeting(port, "Haraka", 60)
        yield Running(port, {"haraka": [master]}, f"Haraka {json.loads((package / 'package.json').read_text())['version']}")


def _files(sink_port: int, port: int, rules: Rules) -> dict[str, str]:
    return {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes={os.cpu_count()}\n",
        "log.ini": "[main]\nlevel=notice\n",
        "plugins": "".join(f"{name}\n" for name in _PLUGINS),
        "host_list": "relay.example\n",
        "smtp_forward.ini": f"host=127.0.0.1\nport={sink_port}\n",
        "me": "haraka.bench.example\n",
        "access.ini": "[check]\nconn=false\nhelo=false\nmail=true\nrcpt=false\nany=false\n",
        "mail_from.access.blacklist": "".join(f"{address}\n" for address in rules.addresses),
        "mail_from.access.blacklist_regex": "".join(f".*@{re.escape(domain)}\n" for domain in rules.domains),
        "attachment.ini": f"disallowed_extensions={','.join(rules.extensions)}\n[archive]\nextensions=none\n",
        "attachment.filename.regex": f"\\.(?:{'|'.join(rules.extensions)})$\n",
        "keywords": "".join(f"{phrase}\n" for phrase in rules.phrases),
    }
