"""The AUTH exchange (RFC 4954 section 4): PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 7677) and EXTERNAL (RFC 4422 appendix A), with and without
initial response. Pure: responses in, next step out.

What only somebody else can say (is the password right, which verifier has this user) leaves here as a step, and comes back by `resume`.
Nothing here prints or logs a response.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from postern_core.errors import Reply
from postern_core.policy import Mechanism
from postern_core.scram import Verifier
from postern_smtp import replies
from postern_smtp.gate import Login
from postern_smtp.scram_exchange import ScramExchange, ScramRefused

_MAX_NAME_OCTETS: Final = 255
_MAX_PASSWORD_OCTETS: Final = 1024
_LOGIN_PROMPTS: Final = ("VXNlcm5hbWU6", "UGFzc3dvcmQ6")  # "Username:", "Password:" in base64, as every client expects them


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password to verify; to be resumed with the login, or a refusal."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifierWanted:
    """The verifier of this user's password is needed, a decoy when there is none; to be resumed with it, or a refusal."""

    name: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The client did or did not prove that it knows this user's password; to be resumed with the login, or a refusal."""

    name: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class Certified:
    """The client stands by its certificate, as `user` or, "", as whose it is; to be resumed with the login, or a refusal."""

    user: str


Asked = Credentials | VerifierWanted | Proof | Certified
Step = Reply | Asked


class Exchange:
    """One AUTH command. `start`, `answer` and `resume` return a 334 to send, something to be found out, or the reply that ends it: 235 when
    there is a `login`."""

    def __init__(
        self,
        mechanism: str,
        offered: Sequence[str] = (Mechanism.PLAIN, Mechanism.LOGIN),
        nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18),
    ) -> None:
        self._mechanism = mechanism
        self._offered = offered
        self._responses: list[bytes] = []
        self._scram = ScramExchange(nonce()) if mechanism == Mechanism.SCRAM_SHA_256 else None
        self._asked: Asked | None = None
        self.login: Login | None = None

    def start(self, initial: str | None) -> Step:
        """Begin, with the initial response where there was one ("=" stands for an empty one)."""
        if self._mechanism not in self._offered:
            return replies.UNKNOWN_MECHANISM
        if initial is None:
            return self._next_step()
        return self._take(b"" if initial == "=" else initial.encode("ascii"))

    def answer(self, line: bytes) -> Step:
        """The client's next line, without CRLF."""
        if line == b"*":
            return replies.AUTH_CANCELLED
        return self._take(line)

    def resume(self, found: Login | Verifier | Reply) -> Step:
        """What was asked for."""
        asked, self._asked = self._asked, None
        if isinstance(found, Reply):
            return found
        if isinstance(found, Verifier):
            assert self._scram is not None
            return _challenge(self._scram.challenge(found))
        self.login = found
        if isinstance(asked, Proof) and self._scram is not None:
            # 235 has no room for it: it is a challenge, and the client answers with nothing (RFC 4954 section 4)
            return _challenge(self._scram.confirmation())
        return replies.AUTHENTICATED

    def _take(self, encoded: bytes) -> Step:
        try:
            self._responses.append(base64.b64decode(encoded, validate=True))
        except binascii.Error:
            return replies.BAD_BASE64
        return self._next_step()

    def _next_step(self) -> Step:
        step = self._of_mechanism()
        if not isinstance(step, Reply):
            self._asked = step
        return step

    def _of_mechanism(self) -> Step:
        responses = self._responses
        match self._mechanism:
            case Mechanism.LOGIN:
                if len(responses) < 2:
                    return replies.challenge(_LOGIN_PROMPTS[len(responses)])
                return _checked(responses[0], responses[1])
            case _ if not responses:
                return replies.challenge("")
            case Mechanism.PLAIN:
                return _plain(responses[0])
            case Mechanism.EXTERNAL:
                return _external(responses[0])
            case _:
                return self._of_scram()

    def _of_scram(self) -> Step:
        scram, message = self._scram, self._responses[-1]
        assert scram is not None
        try:
            match len(self._responses):
                case 1:
                    scram.first(message)
                    return VerifierWanted(scram.name)
                case 2:
                    return Proof(scram.name, scram.final(message))
                case _:
                    return replies.BAD_BASE64 if message else replies.AUTHENTICATED
        except ScramRefused:
            return replies.BAD_CREDENTIALS
        except ValueError:  # the grammar, UTF-8
            return replies.BAD_BASE64


def _challenge(message: bytes) -> Reply:
    return replies.challenge(base64.b64encode(message).decode("ascii"))


def _plain(response: bytes) -> Step:
    parts = response.split(b"\0")
    if len(parts) != 3:
        return replies.BAD_BASE64
    authorisation, name, password = parts
    if authorisation not in (b"", name):
        # nobody acts for somebody else
        return replies.BAD_CREDENTIALS
    return _checked(name, password)


def _checked(name: bytes, password: bytes) -> Step:
    if not name or len(name) > _MAX_NAME_OCTETS or len(password) > _MAX_PASSWORD_OCTETS or b"\0" in name + password:
        return replies.BAD_CREDENTIALS
    try:
        return Credentials(name.decode("utf-8"), password.decode("utf-8"))
    except UnicodeDecodeError:
        return replies.BAD_CREDENTIALS


def _external(response: bytes) -> Step:
    if len(response) > _MAX_NAME_OCTETS or b"\0" in response:
        return replies.BAD_CREDENTIALS
    try:
        return Certified(response.decode("utf-8"))
    except UnicodeDecodeError:
        return replies.BAD_CREDENTIALS
