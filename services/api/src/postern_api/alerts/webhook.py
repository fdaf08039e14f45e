"""An alert as a POST to an address that an administrator configured: JSON, signed, over TLS, and never anywhere else.

What an attacker could make of it is bounded: the address comes from the policy alone; redirects are not followed, since whoever answers could send
us elsewhere; proxies, credentials and certificates of the environment are not looked at; the answer's body is not read and nothing of it is kept, so that
it cannot be used to read what the api can reach. Standards: RFC 9110; RFC 2104 (HMAC) with SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import ssl
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from postern_api.alerts.mail import title_of
from postern_api.alerts.repository import Due
from postern_api.errors import InvalidError

SIGNATURE: Final = "Postern-Signature"
_WHOLE_S: Final = 20.0
_STEP_S: Final = 10.0  # for each of connection, request, answer
_MOST_URL: Final = 2000


class PostError(Exception):
    """The receiver did not take it; the text holds nothing of what it said."""


def checked_webhook(text: str) -> str:
    """An https URL, or http to a loopback address. InvalidError for anything else."""
    url = text.strip()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidError("invalid_webhook", f"{url!r} is not a URL: {error}") from error
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > _MOST_URL or not host:
        raise InvalidError("invalid_webhook", f"{url[:100]!r} is not a URL of printable US-ASCII with a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidError("invalid_webhook", "a webhook's URL holds no user, no password and no fragment: it is not kept secret")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise InvalidError("invalid_webhook", "a webhook is reached by https; by http on a loopback address only")
    return url


def body_of(due: Due, hostname: str) -> bytes:
    """What is posted. `id` is the same when it is posted again."""
    alert = due.alert
    return msgspec.json.encode(
        {
            "id": str(alert.id),
            "relay": hostname,
            "kind": alert.kind,
            "title": title_of(alert.kind),
            "raised_at": alert.raised_at,
            "first_at": alert.first_at,
            "count": alert.count,
            "subjects": alert.subjects,
            "withheld": due.withheld,
            "pauses": due.pauses,
        }
    )


def signature(secret: bytes, body: bytes, at: datetime) -> str:
    """Value of the field `Postern-Signature`: the time in seconds since the epoch, and HMAC-SHA-256 over it, a dot, and the body, in hex."""
    seconds = int(at.timestamp())
    digest = hmac.new(secret, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


class Poster:
    """Posts. `secret` b"": unsigned. `ca_file`: certificates of whom the receivers' come from, None for the public ones."""

    def __init__(self, secret: bytes, ca_file: Path | None) -> None:
        self._secret = secret
        self._ca_file = ca_file

    async def post(self, url: str, body: bytes, now: datetime) -> None:
        """Returns when the receiver answered 2xx. PostError otherwise, at the latest after `_WHOLE_S`."""
        import httpx  # megabytes, for nothing where there is no webhook

        headers = {"Content-Type": "application/json", "User-Agent": "Postern"}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, body, now)
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(self._ca_file)) if self._ca_file else True
        try:
            async with (
                asyncio.timeout(_WHOLE_S),
                httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False, timeout=_STEP_S) as client,
                client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except TimeoutError as error:
            raise PostError(f"no answer in {_WHOLE_S:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise PostError(type(error).__name__) from error
        if not 200 <= status < 300:
            raise PostError(f"it answered {status}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
