"""Recipients for a client that may relay: a mailbox of any domain.

Not an address literal (`a@[192.0.2.1]`): mail leaves by routes, which go by domain. A source route is dropped (RFC 5321 appendix C).
`<Postmaster>` alone goes to the first relay domain (section 4.5.1). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.paths import ForwardPath


@dataclass(frozen=True, slots=True)
class AnyRecipient:
    """Decides for one policy revision."""

    postmaster_domain: str

    def decide(self, path: ForwardPath) -> str | Reply:
        """The mailbox, or the refusal."""
        if path.is_literal:
            return replies.LITERAL_DENIED
        if path.domain:
            return path.address
        if not self.postmaster_domain:
            return replies.NO_SUCH_MAILBOX
        return f"{path.local_part}@{self.postmaster_domain}"
