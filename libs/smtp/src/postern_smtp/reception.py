"""What a connection needs of the gate that took it; listener.py is the one that has it."""

from __future__ import annotations

import ipaddress
from typing import Protocol

from postern_core.counters import Counters
from postern_core.envelope import Client
from postern_core.errors import Reply
from postern_core.notices import TellNotice
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.journal import TellSession
from postern_smtp.memory import Memory
from postern_smtp.session import Session, Transaction


class Connection(Protocol):
    """What the gate needs of a connection."""

    session: Session
    is_busy: bool  # message data is being read or stored
    is_storing: bool
    opened_at: float  # the loop's time
    quiet_since: float  # the loop's time of the last line, or of the last kilobytes of data

    def expire(self, reply: Reply) -> None:
        """End the session with `reply`; a message that is being stored gets its answer first."""
        ...

    def abort(self) -> None:
        """End the session without a word."""
        ...


class Reception(Protocol):
    """See the module."""

    profile: GateProfile
    memory: Memory
    counters: Counters
    is_draining: bool

    notice: TellNotice
    tell_session: TellSession

    def newest_rules(self) -> GateRules | None:
        """The policy in force, None while there is none."""
        ...

    def farewell(self, session: Session) -> Reply | None:
        """The reply with which the session is sent home now, None when it may go on."""
        ...

    def unavailable(self) -> Reply | None:
        """The reply while nothing can be stored, None when it can."""
        ...

    def transaction_refusal(self) -> Reply | None:
        """Why the next transaction may not begin, for want of room or speed; None when it may, and is taken to begin."""
        ...

    def awaits_header(self, connection: Connection) -> bool:
        """Whether its peer is a trusted load balancer, which has to say first whose connection it is."""
        ...

    def admit(self, connection: Connection) -> Reply | None:
        """Count a connection in; the reply that turns it away, or None."""
        ...

    def release(self, connection: Connection) -> None:
        """Count a connection out; more than once does no harm."""
        ...

    async def store(self, transaction: Transaction, client: Client, body: bytes, *, extended: bool) -> Reply:
        """Store a message, and return the reply. To be run to its end, whatever becomes of the connection."""
        ...


def client_network(address: str) -> str:
    """Who counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
