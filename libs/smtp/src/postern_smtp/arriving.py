"""How a connection arrives: behind a trusted load balancer, a PROXY header says whose it is; from anybody else such a header is refused."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from postern_core.notices import NoticeKind
from postern_smtp import replies
from postern_smtp.conversation import Conversation, Ended
from postern_smtp.dialogue import Then, say
from postern_smtp.lines import LineTooLong
from postern_smtp.proxy_protocol import HEADER_S, SIGNATURE, TEXT_START, ProxyHeaderError, read_header

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Arriving(Conversation):
    """See the module."""

    is_busy: bool  # receiving.py

    async def _arrive(self) -> None:
        """Learn whose connection it is. At a port where TLS starts at once that is known by now (tls_door.py)."""
        session = self.session
        if session.proxy_address or not self._reception.awaits_header(self):
            return
        try:
            async with asyncio.timeout(HEADER_S):
                announced = await read_header(self._reader.read)
        except TimeoutError:
            error = ProxyHeaderError("no PROXY header in time")
        except ProxyHeaderError as wrong:
            error = wrong
        else:
            session.proxy_address, session.client_address = session.client_address, announced or session.client_address
            return
        self._end = f"no PROXY header: {error}"
        if error.is_silence:  # a look whether the port is open is nobody's fault
            raise Ended
        self._deny(str(error), is_proxy=True)
        self._write(say(replies.PROXY_HEADER_WRONG))

    async def _refuse_early_talk(self) -> None:
        """Wait with the greeting as long as the policy says; whoever talks meanwhile does not listen, and gets no further (RFC 5321 section 4.3.1)."""
        rules, session = self._reception.newest_rules(), self.session
        if rules is None or not rules.listener.greeting.pause_s or rules.welcomes(session.client_address, session.host_names):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rules.listener.greeting.pause_s):
                if not await self._reader.read(1):
                    self._end = "closed by client before the greeting"
                    raise Ended
            log.warning("connection.denied", client=session.client_address, reply=str(replies.TALKED_EARLY))
            self._reception.notice(NoticeKind.CONNECTION_DENIED, session.client_address, reply=str(replies.TALKED_EARLY))
            self._write(say(replies.TALKED_EARLY, Then.CLOSE))

    def _refuse_header(self, first_line: bytes | LineTooLong) -> None:
        """End the session when it begins with a PROXY header that nobody asked for."""
        if isinstance(first_line, LineTooLong):
            return
        is_header = first_line.startswith(TEXT_START) or (not first_line and self._lines.begins_with(SIGNATURE[2:]))
        if is_header:
            self._deny("a PROXY header from outside the trusted networks", is_proxy=False)
            self._write(say(replies.PROXY_REFUSED))

    def _deny(self, reason: str, *, is_proxy: bool) -> None:
        client = self.session.client_address
        log.warning("proxy.refused", peer=client, reason=reason)
        self._reception.notice(NoticeKind.CONNECTION_DENIED, client, reason=reason, trusted_proxy=is_proxy)
