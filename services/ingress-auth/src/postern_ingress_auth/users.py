"""Users as KV USERS has them. Whoever logs in is read anew; whoever sends, when he was not in the last 30 seconds.

So a user who is disabled, deleted, or whose password is revoked, sends nothing more half a minute later, in open sessions too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec

from postern_core.bus import Bus
from postern_core.bus.topology import KV_USERS
from postern_core.credentials import SmtpUser, user_key
from postern_core.errors import TransientError
from postern_ingress_auth.senders import SenderList

RECENT_S: Final = 30.0
_REMEMBERED: Final = 10_000
_APP: Final = "app:"


@dataclass(frozen=True)
class KnownUser:
    """A user, and when he was read."""

    user: SmtpUser
    read_at: float

    @cached_property
    def senders(self) -> SenderList:
        """Made when he sends: made at login, a long list would tell by its time that there is such a user."""
        return SenderList(self.user.senders)

    def still_stands(self, credential: str) -> bool:
        """Whether a login with `credential` (postern_smtp.gate.Login) would still be one."""
        return self.user.enabled and credential in self._credentials

    @cached_property
    def _credentials(self) -> frozenset[str]:
        apps = (app_credential(each.id) for each in self.user.app_passwords)
        certificates = map(certificate_credential, self.user.certificates)
        return frozenset(("", main_credential(self.user), *apps, *certificates))


def main_credential(user: SmtpUser) -> str:
    """Names the user's own password; another one has another name. Tells nothing of it."""
    return f"main:{hashlib.sha256(user.password_hash.encode()).hexdigest()[:16]}"


def app_credential(password_id: str) -> str:
    return f"{_APP}{password_id}"


def app_password_id(credential: str) -> str | None:
    """The id behind the name of a credential, None when that is no app-password's."""
    return credential.removeprefix(_APP) if credential.startswith(_APP) else None


def certificate_credential(name: str) -> str:
    return f"certificate:{name}"


class Users:
    """See the module."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: OrderedDict[str, KnownUser] = OrderedDict()

    def recent(self, name: str) -> KnownUser | None:
        """The user as he was read in the last 30 seconds; None: read him."""
        known = self.last(name)
        return known if known is not None and known.read_at + RECENT_S > asyncio.get_running_loop().time() else None

    def last(self, name: str) -> KnownUser | None:
        """The user as he was read last."""
        return self._known.get(name.casefold())

    async def read(self, name: str) -> KnownUser | None:
        """The user as he is now, None when there is none. TransientError when he cannot be read."""
        now = asyncio.get_running_loop().time()
        key = name.casefold()
        data = await self._bus.kv_get(KV_USERS, user_key(name))
        if data is None:
            self._known.pop(key, None)
            return None
        try:
            user = msgspec.json.decode(data, type=SmtpUser)
        except msgspec.DecodeError as error:
            raise TransientError(
                454, "4.7.0", "cannot check credentials now", reason=f"user entry does not decode: {error}"
            ) from error
        known = self._known[key] = KnownUser(user, now)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known
