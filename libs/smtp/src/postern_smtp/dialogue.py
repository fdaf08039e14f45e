"""The dialogue: one command line in, one answer out, and what to do next. Pure: no socket, no clock, no bus.

Enforces the order of commands (session.py), the limits of the policy, and the recipients that the gate takes. A transaction keeps the
rules under which it began; the next one sees the newest. Limits, each with its reply: errors a session (421 4.7.0), transactions a connection
(421 4.7.0 to the MAIL after the last), bytes a session (421 4.7.0: the client comes back on a new connection), SIZE= (552 5.3.4),
recipients (452 4.5.3, earlier ones kept: RFC 5321 section 4.5.3.1.10), commands before TLS (421 4.7.0). Past a hundred commands in a row
that bring no mail (NOOP, RSET, EHLO…), each further one counts as an error.

What has to be asked of somebody else (checks.py) leaves here as a question, and comes back with its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from postern_core.envelope import BodyType, Recipient
from postern_core.errors import Reply
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import GateLimits, ListenerExtensions
from postern_smtp import replies
from postern_smtp.answers import Answer, Then, brings_data, is_chunk, say
from postern_smtp.checks import Ask, Question
from postern_smtp.chunks import ChunkedData
from postern_smtp.command_filter import Violation
from postern_smtp.commands import Auth, Bdat, Command, CommandRefused, Hello, Mail, Plain, Rcpt, Verb, chunk_of, parse, split_verb
from postern_smtp.data import DataReader
from postern_smtp.demands import unmet_demand
from postern_smtp.extensions import extensions, message_limit, session_left
from postern_smtp.filters import Filters
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.lines import LineTooLong
from postern_smtp.session import Session, Transaction
from postern_smtp.utf8_address import octets

__all__ = ["Answer", "Dialogue", "Then", "brings_data", "say"]

# a transaction's RCPT lines together; the envelope must fit one broker message, whatever max_recipients says
_MAX_PATH_OCTETS: Final = 1024 * 1024
_RECIPIENT_OCTETS: Final = 32  # that a recipient takes there beside its address and parameters
# commands that bring no mail, in a row; each further one counts as an error
_MAX_IDLE_COMMANDS: Final = 100
_IDLE: Final = frozenset({Verb.HELO, Verb.EHLO, Verb.NOOP, Verb.RSET, Verb.VRFY, Verb.HELP})
_EMPTY_CHUNK: Final = Bdat(0, last=False)
_EXTENSIONS: Final = ListenerExtensions()  # while there is no policy

_NO_FILTERS: Final = Filters()  # while there is no policy

_SIMPLE: Final = {Verb.NOOP: replies.OK, Verb.VRFY: replies.CANNOT_VERIFY, Verb.HELP: replies.HELP}


def _untold(kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None:
    """For a dialogue that nobody listens to."""


class Dialogue:
    """One session's dialogue. `newest_rules` gives the policy in force, None when there is none yet; `unavailable` the reply to
    MAIL while mail cannot be stored, None when it can; `notice` is told of what the filters refuse."""

    def __init__(
        self,
        session: Session,
        profile: GateProfile,
        newest_rules: Callable[[], GateRules | None],
        unavailable: Callable[[], Reply | None],
        notice: TellNotice = _untold,
    ) -> None:
        self.session = session
        self._gate_profile = profile
        self._newest_rules = newest_rules
        self._under: tuple[GateRules | None, GateProfile] = (None, profile)
        self._unavailable = unavailable
        self._notice = notice

    @property
    def limits(self) -> GateLimits:
        """The limits in force: the transaction's, else the newest."""
        if self.session.transaction is not None:
            return self.session.transaction.rules.limits
        rules = self._newest_rules()
        return rules.limits if rules is not None else GateLimits()

    @property
    def filters(self) -> Filters:
        """The filters in force: the transaction's, else the newest."""
        rules = self.session.transaction.rules if self.session.transaction is not None else self._newest_rules()
        return rules.filters if rules is not None else _NO_FILTERS

    @property
    def offered(self) -> ListenerExtensions:
        """The extensions in force: the transaction's, else the newest."""
        rules = self.session.transaction.rules if self.session.transaction is not None else self._newest_rules()
        return rules.listener.extensions if rules is not None else _EXTENSIONS

    @property
    def _profile(self) -> GateProfile:
        """The gate with TLS and AUTH as the rules in force have them: the transaction's, else the newest."""
        transaction = self.session.transaction
        rules = transaction.rules if transaction is not None else self._newest_rules()
        if rules is None:
            return self._gate_profile
        if rules is not self._under[0]:
            self._under = (rules, self._gate_profile.under(rules.listener))
        return self._under[1]

    @property
    def tls_required(self) -> bool:
        """Whether nothing goes before TLS."""
        return self._profile.tls_required

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those of AUTH that the client may use now."""
        return self.session.mechanisms(self._profile)

    @property
    def hostname(self) -> str:
        rules = self._newest_rules()
        return rules.hostname if rules is not None else self._gate_profile.fallback_hostname

    def opening(self) -> Question | None:
        """What has to be asked before the greeting."""
        rules = self._newest_rules()
        if rules is None or not rules.checks.connection:
            return None
        return Question(tuple(partial(check, self.session) for check in rules.checks.connection), lambda: replies.OK)

    def greeting(self) -> Answer:
        return say(replies.greeting(self.hostname))

    def checked(self, question: Question, refusal: Reply | None) -> Answer:
        """The answer to the command behind `question`, when it was asked."""
        return self.counted(say(refusal if refusal is not None else question.go_on()))

    def take(self, line: bytes | LineTooLong, *, more_waits: bool = False) -> Answer:
        """The answer to one line (without its CRLF). `more_waits`: the client did not wait for it."""
        session = self.session
        session.commands += 1
        try:
            answer = self._take(line)
        except CommandRefused as refused:
            answer = say(refused.reply)
        # STARTTLS and QUIT are always allowed, they are what we wait for
        if answer.then is Then.GO_ON and self._before_tls and session.commands > self.limits.tls_deadline_commands:
            return say(replies.NO_TLS_IN_TIME)
        if answer.then is Then.GO_ON and answer.reply is not None and answer.reply.code >= 400 and brings_data(line):
            # message text must not be read as commands
            if is_chunk(line):
                return self._refused_chunk(line, answer.reply)
            if more_waits:  # RFC 2920 section 3.1: DATA is the last of its group
                return say(replies.OUT_OF_STEP if answer.reply.code >= 500 else answer.reply, Then.CLOSE)
        return self.counted(answer)

    def counted(self, answer: Answer) -> Answer:
        """`answer`, or 421 when it is one refusal too many, or one more of too many commands that bring no mail."""
        session = self.session
        if (answer.reply is not None and answer.reply.code >= 500) or session.idle_commands > _MAX_IDLE_COMMANDS:
            session.errors += 1
            limit = self.limits.max_errors
            if limit is not None and session.errors > limit:
                return say(replies.TOO_MANY_ERRORS)
        return answer

    def auth_line_refusal(self, line: bytes | LineTooLong) -> Reply | None:
        """Why a further line of an AUTH exchange is not taken; None when it is."""
        violation = self.filters.commands.auth_violation(line)
        if violation is None:
            return None
        self._tell(violation)
        return violation.reply

    def data_reader(self) -> DataReader:
        """For the message that the transaction waits for."""
        limit, over_limit = self._room()
        return DataReader(limit, bare_newline=self.limits.bare_newline, over_limit=over_limit)

    def _chunked_data(self, transaction: Transaction) -> ChunkedData:
        """As `data_reader`, for BDAT."""
        limit, over_limit = self._room()
        binary = transaction.mail.body_type is BodyType.BINARY_MIME
        return ChunkedData(limit, bare_newline=self.limits.bare_newline, over_limit=over_limit, binary=binary)

    def _room(self) -> tuple[int | None, Reply]:
        """How large the next message may be, and what to say when it is larger."""
        session, limits = self.session, self.limits
        limit, left = message_limit(limits), session_left(session, limits)
        if left is not None and (limit is None or left < limit):
            return left, replies.SESSION_TOO_BIG
        return limit, replies.TOO_BIG

    @property
    def _before_tls(self) -> bool:
        return self._profile.tls_required and not self.session.tls

    def _take(self, line: bytes | LineTooLong) -> Answer:
        violation = self.filters.commands.violation(line)
        if violation is not None:
            self._tell(violation)
            if violation.reply is not None:
                before_tls = self._before_tls and not violation.closes
                return say(replies.TLS_FIRST if before_tls else violation.reply, Then.CLOSE if violation.closes else Then.GO_ON)
        if isinstance(line, LineTooLong):
            return say(replies.TLS_FIRST if self._before_tls else replies.LINE_TOO_LONG)
        try:
            verb, argument = split_verb(line, utf8=self.offered.smtputf8)
        except CommandRefused as refused:
            # RFC 3207 section 4: before TLS all but a few commands get 530, known or not
            raise CommandRefused(replies.TLS_FIRST if self._before_tls else refused.reply) from refused
        # before the argument is looked at: credentials sent too early are never read
        refusal = self.session.refusal(verb, self._profile, self.offered)
        if refusal is not None:
            raise CommandRefused(refusal)
        if verb is Verb.MAIL or verb is Verb.RCPT:
            argument = self.filters.completed(argument)
        command = parse(verb, argument, self.offered)
        self.session.idle_commands = self.session.idle_commands + 1 if verb in _IDLE or command == _EMPTY_CHUNK else 0
        refusal = unmet_demand(command, argument, self.session)
        return say(refusal) if refusal is not None else self._obey(command)

    def _tell(self, violation: Violation) -> None:
        if violation.reply is not None and violation.reply.code == 421:
            self.session.errors += 1  # `counted` counts 5yz
        self._notice(violation.kind, self.session.client_address, verb=violation.verb, octets=violation.octets)

    def _obey(self, command: Command) -> Answer:
        match command:
            case Mail():
                return self._mail(command)
            case Rcpt():
                return self._rcpt(command)
            case Bdat():
                return self._bdat(command)
            case Hello():
                return self._hello(command)
            case Auth():
                return Answer(None, b"", Then.AUTHENTICATE, command)
            case Plain(verb):
                return self._plain(verb)

    def _plain(self, verb: Verb) -> Answer:
        match verb:
            case Verb.DATA:
                return self._data()
            case Verb.QUIT:
                return say(replies.BYE, Then.CLOSE)
            case Verb.STARTTLS:
                return say(replies.START_TLS, Then.START_TLS)
            case Verb.RSET:
                self.session.transaction = None
                return say(replies.OK)
            case _:
                return say(_SIMPLE[verb])

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

    def _hello(self, command: Hello) -> Answer:
        session = self.session
        session.host, session.extended, session.transaction = command.host, command.extended, None
        if not command.extended:
            return say(replies.hello(self.hostname))
        offered = self.filters.commands.announced(extensions(self._profile, session, self.limits, self.offered))
        return Answer(None, replies.ehlo(self.hostname, offered))

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
        size = octets(decided) + octets(command.orcpt) + len(command.notify) + _RECIPIENT_OCTETS
        if limit is not None and len(transaction.recipients) >= limit:
            return say(replies.TOO_MANY_RECIPIENTS)
        if transaction.path_octets + size > _MAX_PATH_OCTETS:
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


def _when_checked(asked: Sequence[Ask], go_on: Callable[[], Reply]) -> Answer:
    return Answer(None, b"", Then.CHECK, question=Question(tuple(asked), go_on)) if asked else say(go_on())
