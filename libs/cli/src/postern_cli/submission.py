"""Sends one test message through a gate."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

from postern_cli.control import ended


def compose(sender: str, recipients: Sequence[str], subject: str, body: str, attachments: Sequence[Path]) -> bytes:
    """A message with a text part and attachments, CRLF line ends."""
    message = EmailMessage(policy=SMTP)
    message["Date"] = formatdate(localtime=True)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or "localhost")
    message.set_content(body)
    for path in attachments:
        message.add_attachment(path.read_bytes(), maintype="application", subtype="octet-stream", filename=path.name)
    return message.as_bytes()


def submit(endpoints: dict[str, Any], gate: str, sender: str, recipients: Sequence[str], message: bytes) -> str:
    """Hand `message` in at the gate `anon` or `auth`; returns the gate's answer. Ends the command when it is refused."""
    address = endpoints["anon" if gate == "anon" else "auth_starttls"]
    host, _, port = address.rpartition(":")
    try:
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=60) as client:
            if gate == "auth":
                context = ssl.create_default_context()
                # the embedded stack signed its certificate itself
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                client.starttls(context=context)
                client.login(endpoints["demo_user"]["name"], endpoints["demo_user"]["password"])
            client.ehlo_or_helo_if_needed()
            _expect(client.mail(sender))
            for recipient in recipients:
                _expect(client.rcpt(recipient))
            return _expect(client.data(message))
    except smtplib.SMTPResponseException as error:
        raise ended(f"{address} refused: {error.smtp_code} {_text(error.smtp_error)}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise ended(f"{address}: {error}") from error


def _expect(answer: tuple[int, bytes]) -> str:
    code, text = answer
    if not 200 <= code < 300:
        raise smtplib.SMTPResponseException(code, text)
    return f"{code} {_text(text)}"


def _text(text: bytes | str) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
