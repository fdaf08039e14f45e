"""What EHLO announces: an extension that this session cannot use now is not named (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

from postern_core.policy import GateLimits
from postern_smtp.gate import GateProfile
from postern_smtp.session import Session


def extensions(profile: GateProfile, session: Session, limits: GateLimits) -> list[str]:
    """The lines behind the first one."""
    limit = message_limit(limits)
    offered = ["PIPELINING", f"SIZE {limit}" if limit is not None else "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"]
    if profile.dsn:
        offered.append("DSN")
    if profile.tls is not None and not session.tls:
        offered.append("STARTTLS")
    mechanisms = session.mechanisms(profile)
    if mechanisms:
        offered.append(f"AUTH {' '.join(mechanisms)}")
    return offered


def message_limit(limits: GateLimits) -> int | None:
    """The largest message that can pass at all, in octets: one over the session's limit could on no connection. None: any."""
    message, session = limits.max_message_bytes, limits.max_session_bytes
    if message is None or session is None:
        return session if message is None else message
    return min(message, session)


def session_left(session: Session, limits: GateLimits) -> int | None:
    """How many octets of message data this session may still bring. None: any number."""
    if limits.max_session_bytes is None:
        return None
    return max(limits.max_session_bytes - session.received_bytes, 0)
