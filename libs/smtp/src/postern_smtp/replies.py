"""Every reply that a gate gives, in one place, each with the section that asks for it.

Enhanced status codes (RFC 3463, RFC 2034) stand in all but the greeting, the answers to HELO and EHLO, and 3yz. No text names a rule,
a path, a user or an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from postern_core.errors import Reply
from postern_core.ids import QueueId

# --- 2yz and 3yz: done, go on
BYE: Final = Reply(221, "2.0.0", "closing the connection")  # RFC 5321 section 4.1.1.10
HELP: Final = Reply(214, "2.0.0", "see RFC 5321")  # section 4.1.1.8
OK: Final = Reply(250, "2.0.0", "OK")  # NOOP, RSET: sections 4.1.1.9 and 4.1.1.5
SENDER_OK: Final = Reply(250, "2.1.0", "sender OK")  # section 4.1.1.2
RECIPIENT_OK: Final = Reply(250, "2.1.5", "recipient OK")  # section 4.1.1.3
CHUNK_TAKEN: Final = Reply(250, "2.0.0", "chunk received")  # RFC 3030 section 2: not the last one
CANNOT_VERIFY: Final = Reply(252, "2.5.0", "will not verify; send mail and see")  # VRFY switched off: section 7.3
START_MAIL: Final = Reply(354, "", "end data with <CR><LF>.<CR><LF>")  # section 4.1.1.4
START_TLS: Final = Reply(220, "2.0.0", "ready to start TLS")  # RFC 3207 section 4
AUTHENTICATED: Final = Reply(235, "2.7.0", "authentication succeeded")  # RFC 4954 section 6

# --- 4yz: not now
SHUTTING_DOWN: Final = Reply(421, "4.3.2", "service is shutting down, try again later")  # RFC 5321 section 3.8
NOT_TAKING_MAIL: Final = Reply(
    421, "4.3.2", "not taking mail now, try again later"
)  # an administrator paused the gate: section 3.8
SESSION_ENDED: Final = Reply(421, "4.3.2", "session ended, connect again")  # by an administrator
TOO_MANY_CONNECTIONS: Final = Reply(421, "4.3.2", "too many connections, try again later")  # section 4.2.1: 421 to anything
TOO_BUSY: Final = Reply(421, "4.3.2", "too busy, try again later")  # section 4.2.1
TOO_MANY_OF_YOURS: Final = Reply(421, "4.7.0", "too many connections from your address, try again later")
TOO_MANY_OF_NETWORK: Final = Reply(421, "4.7.0", "too many connections from your network, try again later")
NAME_UNKNOWN: Final = Reply(421, "4.7.25", "cannot verify your host name now, try again later")  # RFC 7372 section 3.3
# both are for whoever set up the balancer or the gate wrongly, and his senders keep their mail meanwhile
PROXY_REFUSED: Final = Reply(421, "4.7.0", "no PROXY header is taken from your address")
PROXY_HEADER_WRONG: Final = Reply(421, "4.5.0", "a valid PROXY header must come first")
IDLE_TOO_LONG: Final = Reply(421, "4.4.2", "timed out, closing the connection")  # section 4.5.3.2
SESSION_TOO_LONG: Final = Reply(421, "4.4.2", "session lasted too long, connect again")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "too many errors, closing the connection")
TOO_MANY_MESSAGES: Final = Reply(421, "4.7.0", "enough messages for this connection, connect again")
SESSION_TOO_BIG: Final = Reply(421, "4.7.0", "enough mail for this connection, connect again")
SESSION_FAILED: Final = Reply(421, "4.3.0", "local error, closing the connection")  # in DATA, AUTH or STARTTLS: no way to go on
NO_TLS_IN_TIME: Final = Reply(421, "4.7.0", "TLS was not started in time, closing the connection")
TOO_LONG_CLOSING: Final = Reply(421, "4.7.0", "line too long, closing the connection")
NOT_ALLOWED_CLOSING: Final = Reply(421, "4.7.0", "command not allowed here, closing the connection")
LINE_FLOOD: Final = Reply(421, "4.7.0", "that is no command, closing the connection")
NO_POLICY: Final = Reply(451, "4.3.5", "not configured yet, try again later")  # RFC 3463: system incorrectly configured
LOCAL_ERROR: Final = Reply(451, "4.3.0", "local error, try again later")  # RFC 5321 section 4.2.2
UNAVAILABLE: Final = Reply(451, "4.3.0", "mail system temporarily unavailable, try again later")
SENDING_TOO_MUCH: Final = Reply(450, "4.7.1", "you have sent too much for now, try again later")  # RFC 6409 section 6.1
CANNOT_ASK: Final = Reply(451, "4.3.0", "cannot verify the recipient now, try again later")  # section 3.3: a temporary failure
NO_DIRECTORY: Final = Reply(451, "4.4.3", "cannot look the recipient up now, try again later")  # RFC 3463
GREYLISTED: Final = Reply(451, "4.7.1", "greylisted, try again in a few minutes")  # RFC 6647 section 2.2
TOO_SLOW: Final = Reply(451, "4.3.2", "too busy, try again later")  # RFC 3463 section 3.4: system not accepting network messages
FULL: Final = Reply(452, "4.3.1", "mail system full, try again later")  # the words of postern_core.bus.publishing
AUTHENTICATION_UNKNOWN: Final = Reply(
    451, "4.7.1", "cannot check the author's domain now, try again later"
)  # RFC 7489 section 6.6.3
OUT_OF_MEMORY: Final = Reply(452, "4.3.1", "too busy, try again later")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "too many recipients, send the rest in another transaction")  # 4.5.3.1.10
TOO_MANY_DOMAINS: Final = Reply(452, "4.5.3", "too many recipient domains, send the rest on another connection")  # RFC 9422
AUTH_UNAVAILABLE: Final = Reply(454, "4.7.0", "cannot check credentials now, try again later")  # RFC 4954 section 6
AUTH_THROTTLED: Final = Reply(454, "4.7.0", "too many failed attempts, try again later")
AUTH_ATTEMPTS_USED: Final = Reply(421, "4.7.0", "too many failed attempts, closing the connection")

# --- 5yz: no
UNKNOWN_COMMAND: Final = Reply(500, "5.5.2", "command not recognised")  # RFC 5321 section 4.2.4
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "line too long")  # section 4.5.3.1.10
EIGHT_BIT_COMMAND: Final = Reply(500, "5.5.2", "commands are ASCII")  # section 2.4
NOT_UTF8: Final = Reply(501, "5.5.2", "octets that are no UTF-8")  # RFC 6531 section 3.3
STRAY_CONTROL: Final = Reply(501, "5.5.2", "control characters, bare CR or bare LF in a command")  # section 2.3.8
SYNTAX: Final = Reply(501, "5.5.4", "syntax error in parameters")
NO_ARGUMENT: Final = Reply(501, "5.5.4", "this command takes no argument")
NEEDS_DOMAIN: Final = Reply(501, "5.5.4", "say which host you are")  # section 4.1.1.1
BAD_SENDER: Final = Reply(501, "5.1.7", "syntax error in the sender address")
BAD_RECIPIENT: Final = Reply(501, "5.1.3", "syntax error in the recipient address")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "command not implemented")
BAD_SEQUENCE: Final = Reply(503, "5.5.1", "bad sequence of commands")
NO_RECIPIENTS: Final = Reply(503, "5.5.1", "no valid recipients")
ALREADY_AUTHENTICATED: Final = Reply(503, "5.5.1", "already authenticated")  # RFC 4954 section 4
ALREADY_SECURE: Final = Reply(503, "5.5.1", "TLS is active already")
UNKNOWN_MECHANISM: Final = Reply(504, "5.5.4", "authentication mechanism not supported")  # RFC 4954 section 4
TLS_FIRST: Final = Reply(530, "5.7.0", "must issue a STARTTLS command first")  # RFC 3207 section 4
REQUIRETLS_NEEDS_TLS: Final = Reply(530, "5.7.10", "REQUIRETLS is for sessions inside TLS")  # RFC 8689 section 2
AUTH_FIRST: Final = Reply(530, "5.7.0", "authentication required")  # RFC 4954 section 6
BAD_CREDENTIALS: Final = Reply(535, "5.7.8", "authentication credentials invalid")  # the same for an unknown user
AUTH_NEEDS_TLS: Final = Reply(538, "5.7.11", "encryption required for authentication")  # RFC 4954 section 6
AUTH_CANCELLED: Final = Reply(501, "5.5.2", "authentication cancelled")  # RFC 4954 section 4: 501
BAD_BASE64: Final = Reply(501, "5.5.2", "cannot decode that")  # RFC 4954 section 4: 501 5.5.2
AUTH_LINE_TOO_LONG: Final = Reply(500, "5.5.6", "authentication exchange line is too long")  # RFC 4954 section 4
ACCESS_DENIED: Final = Reply(554, "5.7.1", "no SMTP service for you here")  # RFC 5321 section 3.1: in place of the greeting
LISTED: Final = Reply(
    554, "5.7.1", "your address is on a list of senders of unwanted mail"
)  # section 3.1: in place of the greeting
TALKED_EARLY: Final = Reply(554, "5.5.1", "you spoke before the greeting")  # section 4.3.1: the client waits for it
NAME_UNVERIFIED: Final = Reply(554, "5.7.25", "your address has no host name that leads back to it")  # RFC 7372 section 3.3
LISTED_CLIENT: Final = Reply(
    550, "5.7.1", "your address is on lists of senders of unwanted mail"
)  # section 4.3.2: RCPT has no 554
HELLO_UNQUALIFIED: Final = Reply(550, "5.7.1", "your HELO or EHLO names no host")  # section 4.1.1.1
HELLO_OURS: Final = Reply(550, "5.7.1", "your HELO or EHLO names this host")
HELLO_UNKNOWN: Final = Reply(550, "5.7.1", "what your HELO or EHLO names is not in DNS")  # section 2.3.5
DMARC_FAILED: Final = Reply(550, "5.7.1", "refused as the author's domain asks (DMARC)")  # RFC 7489 section 10.3
RELAY_DENIED: Final = Reply(550, "5.7.1", "relaying denied")
SENDER_REJECTED: Final = Reply(550, "5.7.1", "sender address rejected")
RECIPIENT_REJECTED: Final = Reply(550, "5.7.1", "recipient address rejected")
NO_SUCH_MAILBOX: Final = Reply(550, "5.1.1", "no such mailbox here")
LITERAL_DENIED: Final = Reply(550, "5.1.2", "address literals are not accepted")
NOT_YOUR_SENDER: Final = Reply(553, "5.7.1", "this is none of your sender addresses")  # RFC 6409 section 6.1
NOT_ASCII: Final = Reply(553, "5.6.7", "SMTPUTF8 is not offered here")  # RFC 6531 section 3.5
NEEDS_SMTPUTF8: Final = Reply(553, "5.6.7", "say SMTPUTF8 to use other characters than ASCII")  # RFC 6531 section 3.5
UNKNOWN_PARAMETER: Final = Reply(555, "5.5.4", "parameter not recognised or not implemented")  # RFC 5321 section 4.1.1.11
TOO_BIG: Final = Reply(552, "5.3.4", "message size exceeds the limit")  # RFC 1870 section 6
BARE_NEWLINE: Final = Reply(550, "5.5.2", "bare CR or LF in message data")  # RFC 5321 section 2.3.8
NUL_IN_DATA: Final = Reply(550, "5.6.0", "NUL in message data")  # RFC 5322 section 4: obsolete
LONG_LINE: Final = Reply(554, "5.6.0", "a line of the message is too long")  # RFC 5321 section 4.5.3.1.6
TOO_MANY_HOPS: Final = Reply(554, "5.4.6", "too many hops, mail loop suspected")  # RFC 5321 section 6.3
MAIL_LOOP: Final = Reply(554, "5.4.6", "this message was here twice before, mail loop")  # RFC 5321 section 6.3
OUT_OF_STEP: Final = Reply(554, "5.5.0", "message data sent before the go-ahead")  # RFC 2920 section 3.1


QUEUED_AS: Final = "OK: queued as "


def greeting(hostname: str) -> Reply:
    """The opening line (RFC 5321 section 4.2.4: it names the host)."""
    return Reply(220, "", f"{hostname} ESMTP Postern")


def hello(hostname: str) -> Reply:
    """The answer to HELO."""
    return Reply(250, "", hostname)


def queued(queue_id: QueueId) -> Reply:
    """The answer to a message that is stored: from here on it is ours (RFC 5321 section 4.2.5)."""
    return Reply(250, "2.0.0", f"{QUEUED_AS}{queue_id}")


def challenge(encoded: str) -> Reply:
    """One step of an authentication exchange (RFC 4954 section 4); `encoded` is base64 or empty."""
    return Reply(334, "", encoded)


def ehlo(hostname: str, extensions: Iterable[str]) -> bytes:
    """The answer to EHLO, as it goes on the wire (RFC 5321 section 4.1.1.1)."""
    lines = [hostname, *extensions]
    return b"".join(f"250{' ' if k == len(lines) - 1 else '-'}{line}\r\n".encode("ascii") for k, line in enumerate(lines))
