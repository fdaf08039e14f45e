"""Acceptance: durable first, then 250 (RFC 5321 section 4.2.5, RFC 1047).

Between the final dot and the 250 stands the durable write and nothing else: no look-up, no screening; unless the policy switches
mail authentication on (mail_authentication/), which is bounded by ten seconds. What goes wrong is a 4yz, and
the client keeps the mail. A write whose outcome is unknown when the time is up may surface all the same; then the client's second try is
a second message (RFC 1047), which the log line `message.refused` with `stored=unknown` lets one count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from postern_core.bus import BodyStore, Bus, EventSink, GroupCommit
from postern_core.bus.topology import INTAKE
from postern_core.envelope import Client, Envelope, Gate
from postern_core.errors import MailError, Reply
from postern_core.events import EventKind
from postern_core.ids import QueueId, accepted_at, new_queue_id
from postern_smtp import replies
from postern_smtp.loops import count_own_passages
from postern_smtp.mail_authentication.examination import Examined
from postern_smtp.session import Transaction
from postern_smtp.trace import blank_before, count_hops, received_field

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# Well under the ten minutes of RFC 5321 section 4.5.3.2.6. The bus itself gives up a publish after ten seconds. What fits in an entry has the
# time of two commits, which is less (group_commit.py): a timer for each message would be a fiftieth of the gate's work.
ACCEPTANCE_CAP_S: Final = 25.0
_SHOWN_RECIPIENTS: Final = 5
_LARGE_OCTETS: Final = 512 * 1024
_LARGE_AT_ONCE: Final = 16
_MAX_PASSAGES: Final = 1  # a message that was here before may have been forwarded back to us; twice is a loop


class Acceptance:
    """Takes responsibility for messages of one gate."""

    def __init__(self, bus: Bus, bodies: BodyStore, events: EventSink, gate: Gate) -> None:
        self._bus = bus
        self._intake = GroupCommit(bus, INTAKE, f"intake.{gate.value}")
        self._bodies = bodies
        self._events = events
        self._gate = gate
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    def unavailable(self) -> Reply | None:
        """The reply while nothing can be stored, so that no client sends a message in vain; None when it can."""
        return None if self._bus.connected else replies.UNAVAILABLE

    async def accept(
        self,
        transaction: Transaction,
        client: Client,
        body: bytes,
        *,
        extended: bool,
        sessions: int,
        on_its_way: Callable[[], None],
    ) -> Reply:
        """Store the message and return its 250; or return the reply that leaves it with the client. Never raises but when cancelled.

        `sessions` are open at the gate: so many messages may come at the same moment. `on_its_way` is called when it goes to the broker: what
        comes before waits for others (DNS), which says nothing of the broker.
        """
        loop = _loop(transaction, body)
        if loop is not None:
            log.info("message.refused", reverse_path=transaction.mail.reverse_path.address, reply=str(loop))
            return loop
        queue_id, examiner = new_queue_id(), transaction.rules.examiner
        try:
            examined = Examined(body)
            if examiner is not None:
                examined = await examiner.examine(client, transaction.mail.reverse_path.address, body)
                if examined.refusal is not None:
                    log.info("message.refused", id=queue_id, client=client.address, reply=str(examined.refusal))
                    return examined.refusal
            on_its_way()
            size = await self._store(queue_id, transaction, client, examined, extended=extended, sessions=sessions)
        except MailError as error:
            log.warning("message.refused", id=queue_id, reply=str(error.reply), reason=error.reason)
            return error.reply
        except TimeoutError:
            log.warning("message.refused", id=queue_id, reply=str(replies.UNAVAILABLE), stored="unknown")
            return replies.UNAVAILABLE
        except Exception:  # unclassified is transient: the client keeps the mail
            log.exception("message.refused", id=queue_id, reply=str(replies.LOCAL_ERROR), stored="unknown")
            return replies.LOCAL_ERROR
        self._tell(queue_id, transaction, client, size)
        return replies.queued(queue_id)

    async def _store(
        self, queue_id: QueueId, transaction: Transaction, client: Client, examined: Examined, *, extended: bool, sessions: int
    ) -> int:
        body = examined.body
        mail, recipients = transaction.mail, tuple(transaction.recipients)
        at = accepted_at(queue_id)
        field = received_field(
            client=client,
            extended=extended,
            utf8=mail.smtputf8,
            hostname=transaction.rules.hostname,
            queue_id=queue_id,
            at=at,
            only_recipient=recipients[0].address if len(recipients) == 1 else "",
        )
        head = field + examined.fields + blank_before(body)
        size = len(head) + len(body)
        envelope = Envelope(
            id=queue_id,
            gate=self._gate,
            reverse_path=mail.reverse_path.address,
            recipients=recipients,
            size_bytes=size,
            accepted_at=at,
            client=client,
            body_type=mail.body_type,
            ret=mail.ret,
            envid=mail.envid,
            smtputf8=mail.smtputf8,
            requiretls=mail.requiretls,
            hold=examined.hold,
            authentication=examined.results,
        )
        if size > min(self._bodies.inline_limit_bytes, _LARGE_OCTETS):
            await self._store_large(envelope, head, body)
        else:
            await self._intake.publish(envelope, head + body, among=sessions)
        return size

    async def _store_large(self, envelope: Envelope, head: bytes, body: bytes) -> None:
        # of many at once each would get a small share of the bus, and all would be late
        async with asyncio.timeout(ACCEPTANCE_CAP_S), self._large:
            envelope, inline = await self._bodies.stow(envelope, envelope.id, body, head=head)
            await self._intake.publish(envelope, inline)

    def _tell(self, queue_id: QueueId, transaction: Transaction, client: Client, size_bytes: int) -> None:
        recipients = transaction.recipients
        log.info(
            "message.accepted",
            id=queue_id,
            size_bytes=size_bytes,
            reverse_path=transaction.mail.reverse_path.address,
            recipients=len(recipients),
            client=client.address,
            user=client.user,
        )
        self._events.tell(
            queue_id,
            EventKind.ACCEPTED,
            gate=self._gate.value,
            reverse_path=transaction.mail.reverse_path.address,
            recipients=len(recipients),
            to=", ".join(recipient.address for recipient in recipients[:_SHOWN_RECIPIENTS]),
            size_bytes=size_bytes,
            client=client.address,
            helo=client.helo[:100],
            tls=client.tls,
            user=client.user,
        )


def _loop(transaction: Transaction, body: bytes) -> Reply | None:
    """RFC 5321 section 6.3."""
    limit = transaction.rules.limits.max_hops
    if limit is not None and count_hops(body) > limit:
        return replies.TOO_MANY_HOPS
    if count_own_passages(body, transaction.rules.filters.own_names) > _MAX_PASSAGES:
        return replies.MAIL_LOOP
    return None
