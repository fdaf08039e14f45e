"""Writes the broker's configuration and each user's password file: `python -m postern_core.broker.files --conf … --secrets DIR`.

`--authorization` writes the block with our users alone, to be included by the configuration of a broker of your own (deploy/nats/).

Promises: idempotent. A password that is there stays, so that services keep theirs when it runs again; the configuration always follows the
permissions of this version. Every file appears whole or not at all, is on disk when this returns, and is readable by its owner alone.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from postern_core.broker.names import PROVISIONER, SERVICES
from postern_core.broker.permissions import BrokerAddress, broker_authorization, broker_config


def write_broker_files(configuration: Path, secrets_dir: Path, address: BrokerAddress, *, server_name: str = "postern") -> None:
    """`configuration` for nats-server, and `secrets_dir`/<user>/nats.password for each service and the provisioner.

    OSError when a file cannot be read or written.
    """
    write_private(configuration, broker_config(address, broker_passwords(secrets_dir), server_name=server_name))


def broker_passwords(secrets_dir: Path) -> dict[str, str]:
    """The password of every broker user, each in its file; those that have none yet are made up."""
    return {user: ensure_secret(secrets_dir / user / "nats.password") for user in (*SERVICES, PROVISIONER)}


def ensure_secret(path: Path) -> str:
    """The secret in `path`, made up first (256 bits, URL-safe characters) when there is none."""
    if not path.exists():
        write_private(path, f"{secrets.token_urlsafe(32)}\n")
    return path.read_text(encoding="utf-8").strip()


def write_private(path: Path, text: str) -> None:
    """`path` holds `text`, durably, readable by its owner alone. Untouched when it does already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, survives a loss of power
    finally:
        os.close(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 73 (EX_CANTCREAT) a file cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m postern_core.broker.files", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--secrets", type=Path, required=True, help="folder with one folder for each broker user")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--conf", type=Path, help="write a complete configuration to this file")
    wanted.add_argument("--authorization", type=Path, help="write only the block with our users to this file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=4222, help="client port (default: %(default)s)")
    parser.add_argument("--monitor-port", type=int, default=8222, help="monitoring port (default: %(default)s)")
    parser.add_argument("--store", default="/data", help="folder of the streams, as the broker sees it (default: %(default)s)")
    parser.add_argument("--name", default="postern", help="name of the server (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.conf is not None:
            address = BrokerAddress(options.host, options.port, options.monitor_port, options.store)
            write_broker_files(options.conf, options.secrets, address, server_name=options.name)
        else:
            write_private(options.authorization, broker_authorization(broker_passwords(options.secrets)))
    except OSError as error:
        print(f"postern: broker files: {error}", file=sys.stderr)
        return 73
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
