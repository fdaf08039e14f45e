"""The server's side of one SCRAM-SHA-256 exchange: RFC 5802 sections 5 and 7, RFC 7677. Pure: messages in, messages out.

Without channel binding: a client that insists on it is refused, as section 6 asks for. A message that is not of the grammar is a
`ValueError`, one that is of it and wrong is `ScramRefused`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from postern_core.saslprep import saslprep
from postern_core.scram import Verifier

_MAX_NAME_OCTETS: Final = 255
_NONCE: Final = r"[\x21-\x2b\x2d-\x7e]{1,512}"  # printable, no comma
_FIRST: Final = re.compile(
    rf"(?P<gs2>(?P<binding>n|y|p=[A-Za-z0-9.-]+),(?:a=(?P<authorisation>[^,\0]+))?,)"
    rf"(?P<bare>(?P<extension>m=[^,]*,)?n=(?P<name>[^,\0]+),r=(?P<nonce>{_NONCE})(?:,[A-Za-z]=[^,\0]+)*)"
)
_FINAL: Final = re.compile(
    rf"(?P<unproven>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>{_NONCE})(?:,[A-Za-z]=[^,\0]+)*),p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_ESCAPED: Final = re.compile(r"=2C|=3D|=")


class ScramRefused(Exception):  # noqa: N818  (what the client said is wrong, not the program)
    """The exchange fails (RFC 5802 section 7)."""


class ScramExchange:
    """One exchange: `first` and `final` take the client's messages, `challenge` and `confirmation` are the server's."""

    def __init__(self, nonce: str) -> None:
        """`nonce` is the server's part: printable, without a comma, and never used before."""
        self.name = ""  # in client-first-message, prepared
        self._own_nonce = nonce
        self._nonce = ""
        self._gs2 = ""
        self._bare = ""
        self._challenge = ""
        self._verifier: Verifier | None = None
        self._auth_message = b""

    def first(self, message: bytes) -> None:
        """Take client-first-message."""
        found = _FIRST.fullmatch(message.decode("utf-8"))
        if found is None:
            raise ValueError("no client-first-message")
        name = _unescaped(found["name"])
        if found["binding"].startswith("p"):
            raise ScramRefused("it asks for channel binding, which was not offered")
        if found["extension"]:
            raise ScramRefused("it asks for an extension that is not known")
        if found["authorisation"] is not None and _unescaped(found["authorisation"]) != name:
            raise ScramRefused("nobody acts for somebody else")
        try:
            prepared = saslprep(name)
        except ValueError as error:
            raise ScramRefused(f"the name: {error}") from error
        if len(prepared.encode()) > _MAX_NAME_OCTETS:
            raise ScramRefused("the name is too long")
        self.name = prepared
        self._gs2, self._bare, self._nonce = found["gs2"], found["bare"], found["nonce"] + self._own_nonce

    def challenge(self, verifier: Verifier) -> bytes:
        """server-first-message, for the user whose verifier this is."""
        self._verifier = verifier
        salt = base64.b64encode(verifier.salt).decode("ascii")
        self._challenge = f"r={self._nonce},s={salt},i={verifier.iterations}"
        return self._challenge.encode("ascii")

    def final(self, message: bytes) -> bool:
        """Whether client-final-message proves the password."""
        assert self._verifier is not None
        found = _FINAL.fullmatch(message.decode("utf-8"))
        if found is None:
            raise ValueError("no client-final-message")
        try:
            binding, proof = base64.b64decode(found["binding"], validate=True), base64.b64decode(found["proof"], validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from error
        if binding != self._gs2.encode():
            raise ScramRefused("somebody changed what was said of channel binding")
        if found["nonce"] != self._nonce:
            raise ScramRefused("the nonce is not ours")
        self._auth_message = f"{self._bare},{self._challenge},{found['unproven']}".encode()
        return self._verifier.proves(proof, self._auth_message)

    def confirmation(self) -> bytes:
        """server-final-message of an exchange that went well."""
        assert self._verifier is not None
        return b"v=" + base64.b64encode(self._verifier.signature(self._auth_message))


def _unescaped(name: str) -> str:
    """saslname (section 5.1): ScramRefused for an equals sign that is not one of the two escapes."""

    def plain(found: re.Match[str]) -> str:
        match found[0]:
            case "=2C":
                return ","
            case "=3D":
                return "="
            case _:
                raise ScramRefused("an escape in the name that is none")

    return _ESCAPED.sub(plain, name)
