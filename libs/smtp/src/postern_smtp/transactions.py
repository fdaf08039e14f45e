"""A mail transaction, from MAIL to the end of data: what is taken, what is refused, and how large it may be. Pure.

Limits, each with its reply: transactions a connection (421 4.7.0 to the MAIL after the last), bytes a session (421 4.7.0: the client comes back on a
new connection), SIZE= (552 5.3.4), recipients and their domains (452 4.5.3, earlier ones kept: RFC 5321 section 4.5.3.1.10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from postern_core.envelope import BodyType, Recipient
from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_core.policy import GateLimits
from postern_smtp import replies
from postern_smtp.answers import Answer, Then, say
from postern_smtp.checks import Ask, Question
from postern_smtp.chunks import ChunkedData
from postern_smtp.commands import Bdat, Mail, Rcpt, chunk_of
from postern_smtp.data import DataReader
from postern_smtp.extensions import message_limit, session_left
from postern_smtp.lines import LineTooLong
from postern_smtp.rules_in_force import RulesInForce
from postern_smtp.session import Transaction
from postern_smtp.utf8_address import octets

# a transaction's RCPT lines together; the envelope must fit one broker message, whatever max_recipients says
MAX_PATH_OCTETS: Final = 1024 * 1024
RECIPIENT_OCTETS: Final = 32  # that a recipient takes there beside its address and parameters
# commands that bring no mail, in a row; each further one counts as an error
MAX_IDLE_COMMANDS: Final = 100


class Transactions(RulesInForce):
    """See the module."""

    def data_reader(self) -> DataReader:
        """For the message that the transaction waits for."""
        limit, over_limit = self._room()
        return DataReader(limit, bare_newline=self.in_force.limits.bare_newline, over_limit=over_limit)

    def _chunked_data(self, transaction: Transaction) -> ChunkedData:
        """As `data_reader`, for BDAT."""
        limit, over_limit = self._room()
        binary = transaction.mail.body_type is BodyType.BINARY_MIME
        return ChunkedData(limit, bare_newline=self.in_force.limits.bare_newline, over_limit=over_limit, binary=binary)

    def _room(self) -> tuple[int | None, Reply]:
        """How large the next message may be, and what to say when it is larger."""
        session, limits = self.session, self.in_force.limits
        limit, left = message_limit(limits), session_left(session, limits)
        if left is not None and (limit is None or left < limit):
            return left, replies.SESSION_TOO_BIG
        return limit, replies.TOO_BIG

    def _mail(self, command: Mail) -> Answer:
        session = self.session
        rules = self._newest_rules()
        if rules is None:
            return say(replies.NO_POLICY)
        refusal = self._mail_refusal(command, rules.limits)
        if refusal is not None:
            return say(refusal)
        rejection = rules.filters.sender_refusal(command.reverse_path.address)
        if rejection is not None:
            self._notice(NoticeKind.SENDER_REFUSED, session.client_address, reverse_path=command.reverse_path.address)
            return say(rejection)
        busy = self._busy()
        if busy is not None:
            return say(busy)

        asked: list[Ask] = [partial(check, session, command) for check in rules.checks.sender]
        if rules.checks.account is not None:
            verdict = rules.checks.account.mail(session, command)
            if isinstance(verdict, Reply):
                return say(verdict)
            if verdict is not None:
                asked.insert(0, verdict)

        def begin() -> Reply:
            session.transactions += 1
            session.transaction = Transaction(command, rules)
            return replies.SENDER_OK

        return _when_checked(asked, begin)

    def _mail_refusal(self, command: Mail, limits: GateLimits) -> Reply | None:
        session = self.session
        if limits.max_messages is not None and session.transactions >= limits.max_messages:
            return replies.TOO_MANY_MESSAGES
        unavailable = self._unavailable()
        if unavailable is not None:
            return unavailable
        size, limit, left = command.size_bytes or 0, message_limit(limits), session_left(session, limits)
        if limit is not None and size > limit:
            return replies.TOO_BIG
        if left is not None and (size > left or left <= 0):
            return replies.SESSION_TOO_BIG
        return None

    def _rcpt(self, command: Rcpt) -> Answer:
        session, transaction = self.session, self.session.transaction
        if transaction is None:  # session.refusal saw to it
            return say(replies.BAD_SEQUENCE)
        decided = transaction.rules.recipient_rule(session.client_address)(command.forward_path)
        if isinstance(decided, Reply):
            return say(decided)
        denial = transaction.rules.filters.recipient_refusal(decided)
        if denial is not None:
            self._notice(NoticeKind.RECIPIENT_REFUSED, session.client_address, recipient=decided)
            return say(denial)
        limit = transaction.rules.limits.max_recipients
        size = octets(decided) + octets(command.orcpt) + len(command.notify) + RECIPIENT_OCTETS
        if limit is not None and len(transaction.recipients) >= limit:
            return say(replies.TOO_MANY_RECIPIENTS)
        if transaction.path_octets + size > MAX_PATH_OCTETS:
            return say(replies.TOO_MANY_RECIPIENTS)
        domain, domains = decided.rpartition("@")[2], session.recipient_domains
        most = transaction.rules.limits.max_recipient_domains
        if most is not None and domain not in domains and len(domains) >= most:
            return say(replies.TOO_MANY_DOMAINS)
        account = transaction.rules.checks.account
        if account is not None and (refusal := account.rcpt(session, transaction)) is not None:
            return say(refusal)
        recipient = Recipient(n=len(transaction.recipients), address=decided, notify=command.notify, orcpt=command.orcpt)

        def take() -> Reply:
            transaction.path_octets += size
            transaction.recipients.append(recipient)
            if most is not None:
                domains.add(domain)
            return replies.RECIPIENT_OK

        return _when_checked(
            [partial(check, session, transaction, recipient) for check in transaction.rules.checks.recipient], take
        )

    def _data(self) -> Answer:
        transaction = self.session.transaction
        if transaction is None or transaction.mail.body_type is BodyType.BINARY_MIME:  # RFC 3030 section 3: by BDAT only
            return say(replies.BAD_SEQUENCE)
        unavailable = self._unavailable()
        return say(unavailable) if unavailable else say(replies.START_MAIL, Then.READ_DATA)

    def _bdat(self, command: Bdat) -> Answer:
        transaction = self.session.transaction
        if transaction is None:  # session.refusal saw to it
            return say(replies.BAD_SEQUENCE)
        if transaction.chunks is None:
            unavailable = self._unavailable()
            if unavailable is not None:
                return say(unavailable)
            transaction.chunks = self._chunked_data(transaction)
        transaction.chunks.begin(command.octets)
        return Answer(None, b"", Then.READ_CHUNK, chunk=command)

    def _refused_chunk(self, line: bytes | LineTooLong, refusal: Reply) -> Answer:
        """RFC 3030 section 2: the octets behind a BDAT that is refused are read all the same. What came before them in this transaction, and
        what comes after, is no message any more."""
        chunk, transaction = None if isinstance(line, LineTooLong) else chunk_of(line), self.session.transaction
        if chunk is None:  # where the next command begins, nobody can tell
            return self.counted(say(refusal, Then.CLOSE))
        if transaction is not None:
            transaction.chunks = transaction.chunks or self._chunked_data(transaction)
            transaction.chunks.discard(refusal)
        return Answer(refusal, b"", Then.READ_CHUNK, chunk=chunk)

    def counted(self, answer: Answer) -> Answer:
        """`answer`, or 421 when it is one refusal too many, or one more of too many commands that bring no mail."""
        session = self.session
        if (answer.reply is not None and answer.reply.code >= 500) or session.idle_commands > MAX_IDLE_COMMANDS:
            session.errors += 1
            limit = self.in_force.limits.max_errors
            if limit is not None and session.errors > limit:
                return say(replies.TOO_MANY_ERRORS)
        return answer


def _when_checked(asked: Sequence[Ask], go_on: Callable[[], Reply]) -> Answer:
    return Answer(None, b"", Then.CHECK, question=Question(tuple(asked), go_on)) if asked else say(go_on())
