"""SCRAM-SHA-256 (RFC 5802, RFC 7677): what is kept of a password, and the proof of knowing it. Pure but for the salt.

Who reads a verifier cannot log in with it; he can try passwords against it, which is why it is derived with many rounds. In the text form of
RFC 5803 and PostgreSQL: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from postern_core.saslprep import saslprep

# each login costs the client this (30 ms); RFC 7677 section 4 asks for 4096 at least. Whoever changes it tells users whose passwords were set
# before from names that do not exist, for which it is the number of today
ITERATIONS: Final = 100_000
MIN_ITERATIONS: Final = 4096
SALT_OCTETS: Final = 16
_KEY_OCTETS: Final = 32
_FORM: Final = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server keeps of one password (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def text(self) -> str:
        """In the form of RFC 5803."""
        salt, stored, server = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def proves(self, proof: bytes, auth_message: bytes) -> bool:
        """Whether `proof` was made by somebody who knows the password, for this exchange."""
        signature = _mac(self.stored_key, auth_message)
        if len(proof) != len(signature):
            return False
        client_key = _xor(proof, signature)
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)

    def signature(self, auth_message: bytes) -> bytes:
        """By which the client knows that the server knows it, too."""
        return _mac(self.server_key, auth_message)


def parse_verifier(text: str) -> Verifier:
    """ValueError for anything but what `Verifier.text` makes, and for fewer rounds than RFC 7677 asks for."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("no SCRAM-SHA-256 verifier")
    try:
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
    except binascii.Error as error:
        raise ValueError(f"no SCRAM-SHA-256 verifier: {error}") from error
    if int(found[1]) < MIN_ITERATIONS or len(stored_key) != _KEY_OCTETS or len(server_key) != _KEY_OCTETS:
        raise ValueError("no SCRAM-SHA-256 verifier: too few rounds, or keys of another length")
    return Verifier(salt, int(found[1]), stored_key, server_key)


def verifier_of(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
    """For a password that is set; takes its time. ValueError when the password cannot be prepared (RFC 4013)."""
    salt = salt or secrets.token_bytes(SALT_OCTETS)
    salted = salted_password(password, salt, iterations)
    client_key = _mac(salted, b"Client Key")
    return Verifier(salt, iterations, hashlib.sha256(client_key).digest(), _mac(salted, b"Server Key"))


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Hi() of RFC 5802 section 2.2."""
    return hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)


def decoy(secret: bytes, name: str) -> Verifier:
    """For a user who does not exist, or cannot use SCRAM: nothing proves anything to it. The same name gets the same salt wherever `secret`
    is the same, as a user would (RFC 5802 section 9)."""
    salt = _mac(secret, name.casefold().encode())[:SALT_OCTETS]
    return Verifier(salt, ITERATIONS, secrets.token_bytes(_KEY_OCTETS), secrets.token_bytes(_KEY_OCTETS))


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
