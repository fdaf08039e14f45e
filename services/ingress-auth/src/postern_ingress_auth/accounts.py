"""What a user may send: from which addresses, and how much in an hour and in a day. Asked with every MAIL and RCPT.

In this order: is his login still good (else 530, as if he had not logged in), is the sender his (553), has he sent too much (450). A
transaction counts when it begins and a recipient when it is taken, so that sessions side by side cannot pass a limit together; those
of another replica are known half a second later, and so much may come on top. Who reaches a limit is told of once an hour, or a day:
a password that was stolen shows like this. The header's From: is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from postern_core.errors import Reply, TransientError
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import SendingRates
from postern_ingress_auth.counts import DAY_S, HOUR_S
from postern_ingress_auth.shared import Shared
from postern_ingress_auth.throttle import name_key
from postern_ingress_auth.users import KnownUser, Users
from postern_smtp import replies
from postern_smtp.checks import Ask
from postern_smtp.commands import Mail
from postern_smtp.gate import GateRules
from postern_smtp.session import Session, Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_UNLIMITED: Final = SendingRates()
_WINDOWS: Final = {HOUR_S: "hour", DAY_S: "day"}


class Accounts:
    """The account check of the gate (postern_smtp.checks.AccountCheck). `attach` gives it what it needs of a gate that runs."""

    def __init__(self, users: Users, shared: Shared) -> None:
        self._users = users
        self._shared = shared
        self._newest_rules: Callable[[], GateRules | None] = lambda: None
        self._notice: TellNotice | None = None

    def attach(self, newest_rules: Callable[[], GateRules | None], notice: TellNotice) -> None:
        self._newest_rules, self._notice = newest_rules, notice

    def mail(self, session: Session, mail: Mail) -> Reply | Ask | None:
        known = self._users.recent(session.user)
        return partial(self._read_and_decide, session, mail) if known is None else self._decide(session, mail, known)

    def rcpt(self, session: Session, transaction: Transaction) -> Reply | None:
        known = self._users.last(session.user)
        if known is None:  # deleted since MAIL
            return self._logged_out(session)
        for key, limits in self._limited(known, transaction.mail.reverse_path.address):
            if (refusal := self._excess(session, key, limits)) is not None:
                return refusal
        self._count(known, transaction.mail.reverse_path.address, recipients=1)
        return None

    async def _read_and_decide(self, session: Session, mail: Mail) -> Reply | None:
        try:
            known = await self._users.read(session.user)
        except TransientError as error:
            log.warning("user.unverified", client=session.client_address, user=session.user, reason=error.reason)
            return replies.UNAVAILABLE
        return self._logged_out(session) if known is None else self._decide(session, mail, known)

    def _decide(self, session: Session, mail: Mail, known: KnownUser) -> Reply | None:
        sender = mail.reverse_path.address
        if not known.still_stands(session.credential):
            return self._logged_out(session)
        if not self._is_his(known, sender):
            log.info("sender.refused", client=session.client_address, user=session.user, reverse_path=sender)
            self._tell(NoticeKind.SENDER_REFUSED, session, sender=sender)
            return replies.NOT_YOUR_SENDER
        for key, limits in self._limited(known, sender):
            if (refusal := self._excess(session, key, limits, messages=1)) is not None:
                return refusal
        self._count(known, sender, messages=1)
        return None

    def _logged_out(self, session: Session) -> Reply:
        log.warning(
            "user.logged_out", client=session.client_address, user=session.user, reason="disabled, or the password was revoked"
        )
        session.user = session.credential = ""
        session.transaction = None
        return replies.AUTH_FIRST

    def _is_his(self, known: KnownUser, sender: str) -> bool:
        rules = self._newest_rules()
        listener = rules.listener.senders if rules is not None else None
        if not sender:
            return listener is None or listener.null_sender
        if known.senders.is_empty:
            return listener is None or not listener.listed_only
        return known.senders.holds(sender)

    def _limited(self, known: KnownUser, sender: str) -> list[tuple[str, SendingRates]]:
        rules = self._newest_rules()
        if rules is None:
            return []
        rates, own = rules.listener.rates, known.user.rates
        limited = [(name_key(known.user.name), own if own is not None else rates.user)]
        if sender:
            limited.append((f"domain:{sender.rpartition('@')[2]}", rates.domain))
        return [(key, limits) for key, limits in limited if limits != _UNLIMITED]

    def _count(self, known: KnownUser, sender: str, *, messages: int = 0, recipients: int = 0) -> None:
        now = time.time()
        for key, _ in self._limited(known, sender):
            self._shared.counts.add(key, now, messages=messages, recipients=recipients)

    def _excess(self, session: Session, key: str, limits: SendingRates, *, messages: int = 0) -> Reply | None:
        """The refusal when so many messages more, or one recipient more, are too much: whoever has no recipients left may not begin one either."""
        now = time.time()
        for window_s, most_messages, most_recipients in (
            (HOUR_S, limits.messages_per_hour, limits.recipients_per_hour),
            (DAY_S, limits.messages_per_day, limits.recipients_per_day),
        ):
            sent = self._shared.counts.sent(key, window_s, now)
            too_many = most_messages is not None and messages and sent.messages + messages > most_messages
            too_wide = most_recipients is not None and sent.recipients + 1 > most_recipients
            if too_many or too_wide:
                window = _WINDOWS[window_s]
                log.warning(
                    "user.sends_too_much",
                    client=session.client_address,
                    user=session.user,
                    key=key,
                    window=window,
                    messages=sent.messages,
                    recipients=sent.recipients,
                )
                if self._shared.suspect(f"{key} {window} {now // window_s:.0f}"):
                    self._tell(
                        NoticeKind.ACCOUNT_SUSPECTED,
                        session,
                        counted=key,
                        window=window,
                        messages=sent.messages,
                        recipients=sent.recipients,
                    )
                return replies.SENDING_TOO_MUCH
        return None

    def _tell(self, kind: NoticeKind, session: Session, **fields: str | int) -> None:
        if self._notice is not None:
            self._notice(kind, session.user, client=session.client_address, user=session.user, **fields)
