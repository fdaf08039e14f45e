"""The client's values: what is to be sent, what the next hop said about it, and the two ways in which that fails.

A refused recipient is a result (`RecipientOutcome`), not an exception; an exception says that no answer could be had.
Nothing here decides whether a reply means retry or bounce: delivery does.
Standards: RFC 5321 sections 4.2 (replies), 4.5.3.2 (time-outs), RFC 3463 (status), RFC 3461 (DSN parameters), RFC 1047.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, RouteTls


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to talk to a next hop. All times in seconds."""

    helo_name: str
    use_helo: bool = False  # HELO at once, and with it no extension at all
    tls: RouteTls = RouteTls.OPPORTUNISTIC
    credentials: tuple[str, str] | None = None  # user and password; sent inside TLS only, or not at all
    connect_timeout_s: float = 30.0  # each of: name look-up, TCP connection to one address, TLS handshake
    command_timeout_s: float = 300.0  # one reply, or one block of data taken by the peer (RFC 5321 section 4.5.3.2)
    data_timeout_s: float = 600.0  # the reply to the final dot (section 4.5.3.2.6)

    def __repr__(self) -> str:
        """Without the password, so that no log line can hold it."""
        return f"ClientOptions(helo_name={self.helo_name!r}, tls={self.tls.value!r}, auth={self.credentials is not None})"


class ServerReply(msgspec.Struct, frozen=True):
    """What the peer said (RFC 5321 section 4.2), or, where the client refuses by itself, what it says in the peer's place."""

    code: int  # 200–599
    status: str  # enhanced status code (RFC 3463) that agrees with the code's class, "" when none
    text: str  # all lines joined by blanks, without the status, controls removed, at most 500 characters

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.status, self.text)))


class Transaction(msgspec.Struct, frozen=True):
    """One message for one next hop. `body` as it is to arrive: not dot-stuffed, lines ended by CRLF unless it is BINARYMIME."""

    reverse_path: str  # "" is the null reverse-path
    recipients: tuple[Recipient, ...]  # at least one
    body: bytes | memoryview
    body_type: BodyType
    ret: str = ""  # RET=, passed on when the peer offers DSN
    envid: str = ""  # ENVID=, still in xtext
    smtputf8: bool = False  # it came with SMTPUTF8, and goes with it where that is offered (RFC 6531)
    requiretls: bool = False  # over verified TLS to a peer that offers REQUIRETLS, or not at all (RFC 8689)


class RecipientOutcome(msgspec.Struct, frozen=True):
    """The final reply for one recipient: 2yz delivered, 4yz and 5yz as said.

    `stage` says to what the reply came: "mail", "rcpt", "data" or "end-of-data" (also "connect", "ehlo", "starttls" and "auth"
    where delivery makes one of a `ConnectionFailed`).
    """

    recipient: Recipient
    reply: ServerReply
    stage: str
    peer_reports: bool = False  # the peer offers DSN, and with the mail took over the duty to report (RFC 3461 section 5.2.1)


class ConnectionFailed(Exception):  # noqa: N818 - names what happened, as ConnectionLost does
    """No session came about, so no transaction took place: try the next hop that is left, or later.

    `reply` is what the peer said, None when it said nothing usable. It is 5yz at stage "connect" (greeting) and "ehlo" only, as
    said. At "starttls" and "auth" a refusal is handed on as 454 4.7.0 with the peer's reply in its text: our configuration and
    theirs disagree, mail has to wait for an administrator and not to bounce.
    """

    def __init__(
        self,
        stage: str,
        reason: str,
        reply: ServerReply | None = None,
        next_hop: NextHop | None = None,
        *,
        insecure: bool = False,
    ) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage  # "connect", "ehlo", "starttls", "auth"
        self.reason = reason
        self.reply = reply
        self.next_hop = next_hop
        self.insecure = insecure  # it answered, and has no TLS, or none to trust


class ConnectionLost(Exception):  # noqa: N818 - as above
    """The session ended in the middle of a transaction, or the peer fell silent or out of step; it is closed.

    `outcomes` holds what is final all the same. `in_doubt` holds the recipients for whom the final dot was sent and no reply
    came (RFC 1047): they may have their copy; it is empty unless `stage` is "end-of-data". Nobody else got anything.
    """

    def __init__(
        self,
        stage: str,
        reason: str,
        outcomes: tuple[RecipientOutcome, ...] = (),
        in_doubt: tuple[Recipient, ...] = (),
        next_hop: NextHop | None = None,
        *,
        silent: bool = False,
    ) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage  # "mail", "rcpt", "data", "end-of-data"; from a pool also the stages of ConnectionFailed
        self.reason = reason
        self.outcomes = outcomes
        self.in_doubt = in_doubt
        self.next_hop = next_hop
        self.silent = silent  # a time-out ended it
