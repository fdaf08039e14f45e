"""The AUTH exchange: PLAIN (RFC 4616) and LOGIN, with and without initial response (RFC 4954 section 4). Pure: responses in, next step out.

Nothing here prints or logs a response.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from postern_core.errors import Reply
from postern_smtp import replies

MECHANISMS: Final[tuple[str, ...]] = ("PLAIN", "LOGIN")
_MAX_NAME_OCTETS: Final = 255
_MAX_PASSWORD_OCTETS: Final = 1024
_LOGIN_PROMPTS: Final = ("VXNlcm5hbWU6", "UGFzc3dvcmQ6")  # "Username:", "Password:" in base64, as every client expects them


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password to verify."""

    name: str
    password: str = field(repr=False)


class Exchange:
    """One AUTH command. `start` and `answer` return a 334 to send, credentials to verify, or the reply that ends it."""

    def __init__(self, mechanism: str) -> None:
        self._mechanism = mechanism
        self._responses: list[bytes] = []

    def start(self, initial: str | None) -> Reply | Credentials:
        """Begin, with the initial response where there was one ("=" stands for an empty one)."""
        if self._mechanism not in MECHANISMS:
            return replies.UNKNOWN_MECHANISM
        if initial is None:
            return self._next_step()
        return self._take(b"" if initial == "=" else initial.encode("ascii"))

    def answer(self, line: bytes) -> Reply | Credentials:
        """The client's next line, without CRLF."""
        if line == b"*":
            return replies.AUTH_CANCELLED
        return self._take(line)

    def _take(self, encoded: bytes) -> Reply | Credentials:
        try:
            self._responses.append(base64.b64decode(encoded, validate=True))
        except binascii.Error:
            return replies.BAD_BASE64
        return self._next_step()

    def _next_step(self) -> Reply | Credentials:
        if self._mechanism == "PLAIN":
            return _plain(self._responses[0]) if self._responses else replies.challenge("")
        if len(self._responses) < 2:
            return replies.challenge(_LOGIN_PROMPTS[len(self._responses)])
        return _checked(self._responses[0], self._responses[1])


def _plain(response: bytes) -> Reply | Credentials:
    parts = response.split(b"\0")
    if len(parts) != 3:
        return replies.BAD_BASE64
    authorisation, name, password = parts
    if authorisation not in (b"", name):
        # nobody acts for somebody else
        return replies.BAD_CREDENTIALS
    return _checked(name, password)


def _checked(name: bytes, password: bytes) -> Reply | Credentials:
    if not name or len(name) > _MAX_NAME_OCTETS or len(password) > _MAX_PASSWORD_OCTETS or b"\0" in name + password:
        return replies.BAD_CREDENTIALS
    try:
        return Credentials(name.decode("utf-8"), password.decode("utf-8"))
    except UnicodeDecodeError:
        return replies.BAD_CREDENTIALS
