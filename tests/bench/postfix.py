"""Postfix in a directory of its own, relaying everything from loopback to the sink: the yardstick, and the ground that other peers stand on.

Debian's package with its own settings, but for limits that a load of one client would meet. Needs root. Like any Postfix it answers 250 to
the end of data when the queue file is synced.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Running
from bench.rules import Rules
from fixtures.ports import free_port

_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = postfix.bench.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink_port}
smtp_host_lookup = native
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
default_process_limit = 250
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
message_size_limit = 52428800
maillog_file_prefixes = {directory}
maillog_file = {directory}/mail.log
alias_maps =
local_recipient_maps =
biff = no
"""
_CHECKS = """\
header_checks = pcre:{etc}/header_checks
mime_header_checks = pcre:{etc}/mime_header_checks
body_checks = pcre:{etc}/body_checks
smtpd_sender_restrictions = check_sender_access texthash:{etc}/sender_access
"""


@contextmanager
def running_postfix(
    directory: Path,
    port: int,
    sink_port: int,
    *,
    settings: str = "",
    services: Iterable[str] = (),
    files: dict[str, str] | None = None,
) -> Iterator[int]:
    """Postfix on 127.0.0.1:`port`; gives the pid of its master, whose descendants are all of it.

    `settings` is more for main.cf ({etc} is the folder of the `files`), `services` are more lines for master.cf. The unprivileged daemons
    must be able to reach `directory`. RuntimeError when it does not start.
    """
    etc = directory / "etc"
    etc.mkdir(parents=True)
    for name in ("data", "queue"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix")
    for name, text in (files or {}).items():
        (etc / name).write_text(text)
    (etc / "main.cf").write_text(_MAIN_CF.format(directory=directory, sink_port=sink_port) + settings.replace("{etc}", str(etc)))
    master = Path("/usr/share/postfix/master.cf.dist").read_text()
    (etc / "master.cf").write_text("\n".join((*_services(master, port), *services)) + "\n")
    _postfix(etc, "start")
    try:
        wait_for_greeting(port, "Postfix")
        yield int((directory / "queue/pid/master.pid").read_text().strip())
    finally:
        _postfix(etc, "stop")


@contextmanager
def plain(directory: Path, sink_port: int, _rules: Rules) -> Iterator[Running]:
    """No screening at all."""
    port = free_port()
    with running_postfix(directory, port, sink_port) as master:
        yield Running(port, {"postfix": [master]}, version())


@contextmanager
def with_checks(directory: Path, sink_port: int, rules: Rules) -> Iterator[Running]:
    """Postfix's own checks: pcre tables, a phrase a line. Debian's Postfix does not compile patterns, and alternatives in one took twice as long."""
    port = free_port()
    with running_postfix(directory, port, sink_port, settings=_CHECKS, files=_tables(rules)) as master:
        yield Running(port, {"postfix": [master]}, version())


def version() -> str:
    shown = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True, check=True)
    return f"Postfix {shown.stdout.strip()}"


def _tables(rules: Rules) -> dict[str, str]:
    senders = [sender.replace(".", r"\.") for sender in (*rules.addresses, *(f"[^@>]*@{domain}" for domain in rules.domains))]
    return {
        "header_checks": f"/^From:.*(?:{'|'.join(senders)})/ DISCARD\n",
        "mime_header_checks": f'/name\\s*=\\s*"?[^"]*\\.(?:{"|".join(rules.extensions)})"?\\s*(?:;|$)/ DISCARD\n',
        "body_checks": "".join(f"/{phrase}/ DISCARD\n" for phrase in rules.phrases),
        "sender_access": "".join(f"{sender} DISCARD\n" for sender in (*rules.addresses, *rules.domains)),
    }


def wait_for_greeting(port: int, what: str, timeout_s: float = 30) -> None:
    """Return when an SMTP server greets on 127.0.0.1:`port`; RuntimeError when none does."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                if probe.recv(4).startswith(b"220"):
                    probe.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{what} does not answer on port {port}")


def _services(master: str, port: int) -> Iterator[str]:
    """Debian's master.cf with our port, and without chroot: nothing was copied into the queue directory."""
    for line in master.splitlines():
        fields = line.split()
        if line.startswith("smtp ") and fields[1] == "inet":
            yield f"127.0.0.1:{port} inet n - n - - smtpd"
        elif fields and not line.startswith("#"):
            yield line if line[0].isspace() else " ".join((*fields[:4], "n", *fields[5:]))


def _postfix(etc: Path, verb: str) -> None:
    # to files: the daemons inherit these descriptors and keep them, so that a pipe would never end
    with (etc / "postfix.out").open("w+") as output:
        code = subprocess.run(
            ["postfix", "-c", str(etc), verb], stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=60
        ).returncode
        output.seek(0)
        if code != 0:
            raise RuntimeError(f"postfix {verb}: {output.read().strip()[-500:]}")
