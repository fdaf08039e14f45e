"""The demo smart host keeps what it receives."""

from __future__ import annotations

import asyncio
import json
import smtplib
from pathlib import Path

from postern_cli.demo_smart_host import listen

QUEUE_ID = "01j9zq3v5k7wexamp1e0000000"
MESSAGE = (
    b"Received: from x by y with ESMTP id "
    + QUEUE_ID.encode()
    + b"; now\r\nSubject: caf\xc3\xa9\r\n\r\n.dots\r\n..\r\nend "
    + b"x" * 900
    + b"\r\n"
)


async def test_bytes_and_envelope_are_kept_before_the_250(tmp_path: Path) -> None:
    server = await listen("127.0.0.1", 0, tmp_path / "mail")
    port = server.sockets[0].getsockname()[1]

    def send() -> bytes:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo()
            client.mail("")
            client.rcpt("a@demo.example")
            client.rcpt("b@demo.example")
            return client.data(MESSAGE)[1]

    reply = await asyncio.to_thread(send)
    server.close()
    mail, *more = (tmp_path / "mail").glob("*.eml")
    assert not more
    assert mail.name.encode() in reply
    assert QUEUE_ID in mail.name
    assert mail.read_bytes() == MESSAGE
    envelope = json.loads(mail.with_suffix(".json").read_text())
    assert envelope["queue_id"] == QUEUE_ID
    assert envelope["reverse_path"] == ""
    assert envelope["recipients"] == ["a@demo.example", "b@demo.example"]
    assert not list((tmp_path / "mail").glob(".*"))
