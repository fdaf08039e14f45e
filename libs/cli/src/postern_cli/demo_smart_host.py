"""The demo smart host: an SMTP server that keeps what it receives as files, for a newcomer to look at. Not for anything else.

    python -m postern_cli.demo_smart_host HOST:PORT FOLDER

Each message becomes `<time>-<number>-<queue-id>.eml`, its bytes as received, and `<same>.json` with its envelope. The `.eml` file appears
whole, after its `.json`, and before the 250.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from postern_cli.addresses import split_address

_QUEUE_ID: Final = re.compile(rb"\bid ([0-7][0-9a-z]{25})\b")
_SIZE_LIMIT: Final = 128 * 1024 * 1024


class Keeper:
    """aiosmtpd handler: two files for each message, complete before the 250."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002  (aiosmtpd's name)
        content = envelope.original_content
        if content is None:
            raise TypeError("aiosmtpd gives the bytes of a message")
        self._count += 1
        found = _QUEUE_ID.search(content[:2000])
        queue_id = found.group(1).decode() if found else ""
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S%f}-{self._count:06}-{queue_id or 'unknown'}"
        described = {
            "received_at": now.isoformat(),
            "queue_id": queue_id,
            "reverse_path": (envelope.mail_from or "").removeprefix("<").removesuffix(">"),  # "<>" for the null one
            "recipients": envelope.rcpt_tos,
            "mail_parameters": envelope.mail_options,
            "size_bytes": len(content),
        }
        await asyncio.to_thread(self._write, name, content, json.dumps(described, indent=2).encode())
        return f"250 2.0.0 kept as {name}.eml"

    def _write(self, name: str, content: bytes, envelope: bytes) -> None:
        (self._folder / f"{name}.json").write_bytes(envelope)
        fresh = self._folder / f".{name}.new"
        fresh.write_bytes(content)
        fresh.replace(self._folder / f"{name}.eml")


async def listen(host: str, port: int, folder: Path) -> asyncio.Server:
    """A listening server. OSError when the port is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(folder)
    return await asyncio.get_running_loop().create_server(
        lambda: SMTP(
            keeper, hostname="demo-smart-host", data_size_limit=_SIZE_LIMIT, enable_SMTPUTF8=True, ident="Postern demo smart host"
        ),
        host,
        port,
    )


async def _serve(host: str, port: int, folder: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await listen(host, port, folder)
    await stop.wait()
    server.close()


def main() -> int:
    """Exit code 0 stopped, 64 (EX_USAGE) wrong arguments, 78 (EX_CONFIG) cannot listen or write there."""
    try:
        address, folder = sys.argv[1:]
        host, port = split_address(address)
    except ValueError:
        print("usage: python -m postern_cli.demo_smart_host HOST:PORT FOLDER", file=sys.stderr)
        return 64
    try:
        asyncio.run(_serve(host, port, Path(folder)))
    except OSError as error:
        print(f"postern: smart-host: {address}, {folder}: {error.strerror}", file=sys.stderr)
        return 78
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
