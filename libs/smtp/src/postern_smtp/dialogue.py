"""The dialogue: one command line in, one answer out, and what to do next. Pure: no socket, no clock, no bus.

Enforces the order of commands (session.py), the SMTP filter (command_filter.py), errors a session (421 4.7.0) and commands before TLS (421 4.7.0). Past a
hundred commands in a row that bring no mail (NOOP, RSET, EHLO…), each further one counts as an error. MAIL to the end of data is in transactions.py.

What has to be asked of somebody else (checks.py) leaves here as a question, and comes back with its answer.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_smtp import replies
from postern_smtp.answers import Answer, Then, brings_data, is_chunk, say
from postern_smtp.checks import Question
from postern_smtp.command_filter import Violation
from postern_smtp.commands import Auth, Bdat, Command, CommandRefused, Hello, Mail, Plain, Rcpt, Verb, parse, split_verb
from postern_smtp.demands import unmet_demand
from postern_smtp.extensions import extensions
from postern_smtp.lines import LineTooLong
from postern_smtp.transactions import Transactions

__all__ = ["Answer", "Dialogue", "Then", "brings_data", "say"]

# commands that bring no mail
_IDLE: Final = frozenset({Verb.HELO, Verb.EHLO, Verb.NOOP, Verb.RSET, Verb.VRFY, Verb.HELP})
_EMPTY_CHUNK: Final = Bdat(0, last=False)

_SIMPLE: Final = {Verb.NOOP: replies.OK, Verb.VRFY: replies.CANNOT_VERIFY, Verb.HELP: replies.HELP}


class Dialogue(Transactions):
    """One session's dialogue."""

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
        if refusal is replies.LISTED_CLIENT:
            self._notice(NoticeKind.CONNECTION_DENIED, self.session.client_address, reply=str(refusal), **self.session.denial)
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
        if answer.then is Then.GO_ON and self._before_tls and session.commands > self.in_force.limits.tls_deadline_commands:
            return say(replies.NO_TLS_IN_TIME)
        if answer.then is Then.GO_ON and answer.reply is not None and answer.reply.code >= 400 and brings_data(line):
            # message text must not be read as commands
            if is_chunk(line):
                return self._refused_chunk(line, answer.reply)
            if more_waits:  # RFC 2920 section 3.1: DATA is the last of its group
                return say(replies.OUT_OF_STEP if answer.reply.code >= 500 else answer.reply, Then.CLOSE)
        return self.counted(answer)

    def auth_line_refusal(self, line: bytes | LineTooLong) -> Reply | None:
        """Why a further line of an AUTH exchange is not taken; None when it is."""
        violation = self.in_force.filters.commands.auth_violation(line)
        if violation is None:
            return None
        self._tell(violation)
        return violation.reply

    def _take(self, line: bytes | LineTooLong) -> Answer:
        rules = self.in_force
        violation = rules.filters.commands.violation(line)
        if violation is not None:
            self._tell(violation)
            if violation.reply is not None:
                before_tls = self._before_tls and not violation.closes
                return say(replies.TLS_FIRST if before_tls else violation.reply, Then.CLOSE if violation.closes else Then.GO_ON)
        if isinstance(line, LineTooLong):
            return say(replies.TLS_FIRST if self._before_tls else replies.LINE_TOO_LONG)
        try:
            verb, argument = split_verb(line, utf8=rules.offered.smtputf8)
        except CommandRefused as refused:
            # RFC 3207 section 4: before TLS all but a few commands get 530, known or not
            raise CommandRefused(replies.TLS_FIRST if self._before_tls else refused.reply) from refused
        # before the argument is looked at: credentials sent too early are never read
        refusal = self.session.refusal(verb, rules.profile, rules.offered)
        if refusal is not None:
            raise CommandRefused(refusal)
        if verb is Verb.MAIL or verb is Verb.RCPT:
            argument = rules.filters.completed(argument)
        command = parse(verb, argument, rules.offered)
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

    def _hello(self, command: Hello) -> Answer:
        session = self.session
        session.host, session.extended, session.transaction = command.host, command.extended, None
        if not command.extended:
            return say(replies.hello(self.hostname))
        rules = self.in_force
        offered = rules.filters.commands.announced(extensions(rules.profile, session, rules.limits, rules.offered))
        return Answer(None, replies.ehlo(self.hostname, offered))
