"""The yardstick: plain Postfix in a directory of its own, relaying everything from loopback to the sink. Debian's package, needs root."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
default_process_limit = 200
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
message_size_limit = 52428800
maillog_file = /var/log/postern-bench-postfix.log
alias_maps =
local_recipient_maps =
biff = no
"""


@contextmanager
def running_postfix(directory: Path, port: int, sink_port: int) -> Iterator[list[int]]:
    """Postfix on 127.0.0.1:`port`; gives the pid of its master, whose descendants are all of it."""
    if shutil.which("postfix") is None:
        raise RuntimeError("Postfix is not installed: apt-get install postfix")
    configuration = directory / "etc"
    configuration.mkdir(parents=True)
    (directory / "data").mkdir()
    (directory / "queue").mkdir()
    shutil.chown(directory / "data", "postfix")
    # the unprivileged daemons must reach their queue
    for folder in (directory, *directory.parents):
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    (configuration / "main.cf").write_text(_MAIN_CF.format(directory=directory, sink_port=sink_port))
    master = Path("/usr/share/postfix/master.cf.dist").read_text()
    (configuration / "master.cf").write_text("\n".join(_services(master, port)) + "\n")
    _postfix(configuration, "start")
    try:
        _wait_for(port)
        yield [int((directory / "queue/pid/master.pid").read_text().strip())]
    finally:
        _postfix(configuration, "stop")


def _services(master: str, port: int) -> Iterator[str]:
    """Debian's master.cf with our port, and without chroot: nothing was copied into the queue directory."""
    for line in master.splitlines():
        fields = line.split()
        if line.startswith("smtp ") and fields[1] == "inet":
            yield f"127.0.0.1:{port} inet n - n - - smtpd"
        elif fields and not line.startswith("#"):
            yield line if line[0].isspace() else " ".join((*fields[:4], "n", *fields[5:]))


def _postfix(configuration: Path, verb: str) -> None:
    done = subprocess.run(["postfix", "-c", str(configuration), verb], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"postfix {verb}: {done.stderr.strip()}")


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                if probe.recv(4).startswith(b"220"):
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Postfix does not answer on port {port}")
