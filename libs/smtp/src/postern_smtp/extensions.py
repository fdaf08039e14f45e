"""What EHLO announces: an extension that this session cannot use now is not named (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

from typing import Final

from postern_core.policy import GateLimits, ListenerExtensions
from postern_smtp.gate import GateProfile
from postern_smtp.session import Session

_MOST: Final = 999_999  # that can be said (RFC 9422 section 4.1)


def extensions(profile: GateProfile, session: Session, limits: GateLimits, offered: ListenerExtensions) -> list[str]:
    """The lines behind the first one. `offered` are the switches of the listener."""
    limit = message_limit(limits)
    lines = ["PIPELINING", f"SIZE {limit}" if limit is not None else "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES"]
    if offered.chunking:
        lines += ["CHUNKING", "BINARYMIME"] if offered.binarymime else ["CHUNKING"]  # RFC 3030 section 3: never without
    if offered.dsn:
        lines.append("DSN")
    if offered.smtputf8:
        lines.append("SMTPUTF8")
    if offered.requiretls and session.tls:  # RFC 8689 section 2: inside TLS only
        lines.append("REQUIRETLS")
    if offered.limits and (told := _limits(limits)):
        lines.append(f"LIMITS {told}")
    if profile.tls is not None and not session.tls:
        lines.append("STARTTLS")
    mechanisms = session.mechanisms(profile)
    if mechanisms:
        lines.append(f"AUTH {' '.join(mechanisms)}")
    return lines


def _limits(limits: GateLimits) -> str:
    """RFC 9422 section 4: a limit that is off, or more than six digits, is not named."""
    named = {
        "MAILMAX": limits.max_messages,
        "RCPTMAX": limits.max_recipients,
        "RCPTDOMAINMAX": limits.max_recipient_domains,
    }
    return " ".join(f"{name}={value}" for name, value in named.items() if value is not None and 0 < value <= _MOST)


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
