"""What lies in KV USERS (read by ingress-auth alone) and KV SECRETS (read by delivery alone)."""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

from postern_core.contract import Version
from postern_core.policy import SendingRates

# eight characters of the id, then five groups of six: 150 random bits
APP_PASSWORD: Final = re.compile(r"([a-z2-7]{8})(?:-[a-z2-7]{6}){5}")


class AppPassword(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One more password of a user, for one device; its text begins with its id."""

    id: str
    password_hash: str  # argon2id, PHC string


class SmtpUser(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One SMTP user, KV USERS key `user_key(name)`."""

    version: Version = 1  # left out while it is 1
    name: str
    password_hash: str  # argon2id, PHC string
    enabled: bool = True
    app_passwords: tuple[AppPassword, ...] = ()
    senders: tuple[str, ...] = ()  # addresses, domains, `*.domain`; none: as the listener says
    rates: SendingRates | None = None  # None: the listener's
    scram: str = ""  # verifier of the password (postern_core.scram); "" where it was set before there were any
    certificates: tuple[str, ...] = ()  # names in client certificates that are his, lower case (SASL EXTERNAL)


class CertificateOwner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose certificate it is, KV USERS key `certificate_key(name in the certificate)`."""

    version: Version = 1  # left out while it is 1
    user: str


class RouteSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Credentials for a route's smart host, KV SECRETS key `route.<name>`."""

    version: Version = 1  # left out while it is 1
    user: str
    password: str


def user_key(name: str) -> str:
    """KV key of an SMTP user: names are caseless, and may hold characters that a key may not."""
    encoded = base64.b32encode(name.casefold().encode()).decode("ascii").rstrip("=").lower()
    return f"user.{encoded}"


# below the users, so that who may read one may read all; the digits 0 and 1 begin no user's key
DECOY_KEY: Final = "user.0"  # 32 random octets: what salts of users who do not exist are made from (postern_core.scram.decoy)


def certificate_key(name: str) -> str:
    """KV key under which the owner of a client certificate stands, by a name in it."""
    return user_key(name).replace("user.", "user.1", 1)


def route_secret_key(route: str) -> str:
    """KV key of a route's credentials."""
    return f"route.{route}"
