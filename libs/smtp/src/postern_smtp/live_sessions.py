"""Answers the api's requests about the sessions of this replica (`control.<service>.<verb>.<instance>`, postern_core.sessions).

A request is answered at once, from memory. What cannot be done is answered with a ControlError, never with silence.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.bus import Bus, instance_token
from postern_core.control import ControlError
from postern_core.sessions import (
    MOST_SESSIONS,
    GateVerb,
    SessionPage,
    SessionQuery,
    SessionRow,
    SessionSelection,
    SessionsEnded,
    SessionState,
)
from postern_smtp import replies
from postern_smtp.reception import Connection
from postern_smtp.session import State

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_AT_ONCE: Final = 100  # sessions that are ended without letting others have their turn
_STATES: Final = {
    State.START: SessionState.START,
    State.READY: SessionState.READY,
    State.MAIL: SessionState.MAIL,
    State.RCPT: SessionState.RCPT,
}


class LiveSessions:
    """See the module. `connections` gives those that are open now."""

    def __init__(self, bus: Bus, service: str, instance: str, connections: Callable[[], tuple[Connection, ...]]) -> None:
        self._bus = bus
        self._subject = f"control.{service}.*.{instance_token(instance)}"
        self._connections = connections
        self._verbs: dict[str, Callable[[bytes], Awaitable[msgspec.Struct]]] = {
            GateVerb.LIST: self._list,
            GateVerb.END: self._end,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        subscription = await self._bus.client.subscribe(self._subject, cb=self._answer)
        try:
            await stop.wait()
        finally:
            if self._bus.connected:
                await subscription.unsubscribe()

    async def _answer(self, msg: Msg) -> None:
        verb = msg.subject.split(".")[2]
        answer: msgspec.Struct
        try:
            answer = await self._verbs[verb](msg.data)
        except KeyError:
            answer = ControlError(message=f"the gate knows no {verb}")
        except ValueError as error:  # the request does not decode, or its network is none
            answer = ControlError(message=str(error))
        except Exception:  # the one handler of a request: whoever asked gets an answer, the log the rest
            log.exception("control.failed", verb=verb)
            answer = ControlError(message="internal error, see the gate's log")
        try:
            await msg.respond(msgspec.json.encode(answer))
        except (nats.errors.Error, OSError) as error:
            log.warning("control.unanswered", verb=verb, reason=f"{type(error).__name__}: {error}")

    async def _list(self, data: bytes) -> SessionPage:
        query = msgspec.json.decode(data, type=SessionQuery)
        found = self._of(query.client)
        wanted = (connection for connection in found if connection.session.id > query.after)
        limit = min(max(query.limit, 1), MOST_SESSIONS)
        now = asyncio.get_running_loop().time()
        page = heapq.nsmallest(limit, wanted, key=lambda connection: connection.session.id)
        return SessionPage(rows=tuple(row_of(connection, now) for connection in page), total=len(found))

    async def _end(self, data: bytes) -> SessionsEnded:
        chosen = msgspec.json.decode(data, type=SessionSelection)
        found = self._of(chosen.client)
        if chosen.id:
            found = [connection for connection in found if connection.session.id == chosen.id]
        for number, connection in enumerate(found, 1):
            connection.expire(replies.SESSION_ENDED)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if found:
            log.info("sessions.ended", session=chosen.id, client=chosen.client, sessions=len(found), actor=chosen.actor)
        return SessionsEnded(ended=len(found))

    def _of(self, client: str) -> list[Connection]:
        """Those of an address or a network. ValueError when it is neither."""
        if not client:
            return list(self._connections())
        network = ipaddress.ip_network(client, strict=False)
        return [connection for connection in self._connections() if _is_in(connection.session.client_address, network)]


def row_of(connection: Connection, now: float) -> SessionRow:
    """`connection` as an administrator sees it at `now`, the loop's time."""
    session = connection.session
    state = SessionState.DATA if connection.is_busy else _STATES[session.state]
    return SessionRow(
        id=session.id,
        client=session.client_address,
        server=session.server_address,
        host=session.host,
        tls=session.tls,
        user=session.user,
        state=SessionState.STORING if connection.is_storing else state,
        age_s=round(now - connection.opened_at, 3),
        idle_s=round(now - connection.quiet_since, 3),
        received_bytes=session.octets_in,
        sent_bytes=session.octets_out,
        commands=session.commands,
        errors=session.errors,
        messages=session.accepted,
        recipients=session.recipients,
    )


def _is_in(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed in network or (mapped is not None and mapped in network)
