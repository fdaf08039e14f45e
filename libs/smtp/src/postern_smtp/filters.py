"""What a gate refuses or completes by the policy alone, without asking anybody, compiled from the parts of its listener. Pure.

The SMTP filter (command_filter.py), rejected senders, denied recipients, the domain for unqualified addresses, clients that may
relay, and the names by which the relay knows itself in Received: fields. What a part does not ask for costs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from postern_core.errors import Reply
from postern_core.policy import GatePolicy, ListenerPolicy
from postern_core.policy.address_patterns import AddressPatterns
from postern_core.policy.domains import normalise_domain
from postern_core.policy.filters import DeniedAs
from postern_core.policy.networks import NetworkSet
from postern_smtp import replies
from postern_smtp.command_filter import DEFAULT_FILTER, CommandFilter

# `FROM:<ann>`, `TO:<"a b">`: a local-part and no domain; what is no local-part is left to the parser
_UNQUALIFIED: Final = re.compile(
    r'(?P<key>FROM|TO):(?P<gap> *)<(?P<local>[^@<>\s:"\\]+|"(?:[^"\\]|\\.)*")>(?P<rest>.*)', re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Those of one policy revision at one gate."""

    commands: CommandFilter = DEFAULT_FILTER
    rejected_senders: AddressPatterns | None = None
    denied_recipients: AddressPatterns | None = None
    denial: Reply = replies.RECIPIENT_REJECTED
    default_domain: str = ""
    relay_clients: NetworkSet | None = None
    own_names: frozenset[str] = field(default_factory=frozenset)

    def sender_refusal(self, reverse_path: str) -> Reply | None:
        if self.rejected_senders is not None and self.rejected_senders.covers(reverse_path):
            return replies.SENDER_REJECTED
        return None

    def recipient_refusal(self, mailbox: str) -> Reply | None:
        if self.denied_recipients is not None and self.denied_recipients.covers(mailbox):
            return self.denial
        return None

    def completed(self, argument: str) -> str:
        """The argument of MAIL or RCPT, with the default domain where the address has none; `<Postmaster>` alone is left, which RFC 5321
        section 4.5.1 gives a meaning of its own."""
        if not self.default_domain:
            return argument
        found = _UNQUALIFIED.fullmatch(argument)
        if found is None or (found["key"].upper() == "TO" and found["local"].casefold() == "postmaster"):
            return argument
        return f"{found['key']}:{found['gap']}<{found['local']}@{self.default_domain}>{found['rest']}"


def compile_filters(policy: GatePolicy, listener: ListenerPolicy) -> Filters:
    """The parts of `listener` as a gate needs them. ValueError for a pattern, network or domain that is none."""
    recipients = listener.recipient_filter
    return Filters(
        commands=CommandFilter(listener.commands),
        rejected_senders=AddressPatterns(listener.sender_filter.rejected) if listener.sender_filter.rejected else None,
        denied_recipients=AddressPatterns(recipients.denied) if recipients.denied else None,
        denial=replies.NO_SUCH_MAILBOX if recipients.denied_as is DeniedAs.NO_MAILBOX else replies.RECIPIENT_REJECTED,
        default_domain=normalise_domain(listener.addresses.default_domain) if listener.addresses.default_domain else "",
        relay_clients=NetworkSet(listener.relaying.networks) if listener.relaying.networks else None,
        own_names=_own_names(policy),
    )


def _own_names(policy: GatePolicy) -> frozenset[str]:
    """Of both gates. A name without a dot (`localhost`) is everybody's, and tells nobody apart."""
    names = {listener.identity.hostname or policy.hostname for listener in (policy.anon_listener, policy.auth_listener)}
    return frozenset(name for name in map(normalise_domain, names) if "." in name)
