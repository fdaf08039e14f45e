"""What a listener asks of the accounts behind it: how failed logins are slowed down, which senders are theirs, and how much they may send."""

from __future__ import annotations

import msgspec


class Throttling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Failed logins, counted by client network and by user name over all replicas. None switches a limit off."""

    first_delay_s: float = 1.0  # of the answer to a first failure; doubles with each further one of the network or the name …
    longest_delay_s: float = 16.0  # … up to this
    forget_s: float = 600.0  # without a failure and without a block, all is forgotten
    network_limit: int | None = 50  # failures of a network, then it is not heard for a while: 454 4.7.0
    user_limit: int | None = None  # of a name; off, since whoever knows a name could keep its owner out
    first_block_s: float = 600.0  # doubles with each failure after the limit …
    longest_block_s: float = 3600.0  # … up to this


class SenderRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which reverse-paths a user may send with (RFC 6409 section 6.1)."""

    listed_only: bool = False  # a user without a list of senders may use none; else any
    null_sender: bool = True  # everybody may use the null reverse-path, which receipts have (RFC 8098 section 3)


class SendingRates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much may be sent in sixty minutes and in twenty-four hours. None: as much as one likes."""

    messages_per_hour: int | None = None
    messages_per_day: int | None = None
    recipients_per_hour: int | None = None
    recipients_per_day: int | None = None


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sending rates of a listener, counted over all replicas."""

    user: SendingRates = SendingRates()  # of each user who has none of his own
    domain: SendingRates = SendingRates()  # of each domain in reverse-paths, all users together
