"""What `make chaos` needs of a stack, whatever runs it: `embedded.EmbeddedTarget` and `containers.ContainerTarget` are the two there are."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from chaos.schedule import Menu, PlannedFault


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message at the smart host, copies included."""

    at_s: float  # by time.monotonic()
    reverse_path: str  # empty: an NDR of ours
    recipients: tuple[str, ...]
    queue_id: str  # in the Received: field that our gate put in front
    returned: frozenset[str]  # queue ids that an NDR names


class Target(Protocol):
    """A stack under chaos. Its relay domain is relay.example, and it has no rule that catches a mail of the load."""

    menu: Menu  # what can go wrong with it
    refuses: bool  # whether its smart host can be told to refuse a recipient
    sample_every_s: float  # how often it can be asked for the numbers of the timeline without being slowed down by it
    tls_context: ssl.SSLContext

    # as its clients see it

    @property
    def endpoints(self) -> dict[str, Any]: ...
    def client(self, gate: str, timeout: float = 30) -> AbstractContextManager[smtplib.SMTP]: ...

    # as its administrator sees and changes it

    @property
    def api(self) -> httpx.Client: ...
    def postern(self, *arguments: str, check: bool = True) -> str: ...
    def all_dispositions(self, queue_ids: list[str]) -> dict[str, dict[str, str]]: ...
    def wait_balanced(self) -> dict[str, Any]: ...
    def schedule(self, **changes: Any) -> AbstractContextManager[None]: ...
    def rule(self, rule: dict[str, Any]) -> AbstractContextManager[str]: ...

    # as its smart host sees it

    def recipient_refused(self, recipient: str) -> AbstractContextManager[None]:
        """Inside the block its smart host refuses the recipient for good; does nothing unless `refuses`."""
        ...

    def arrivals(self) -> list[Arrival]:
        """Everything that its smart host took since this target was made."""
        ...

    def arrived_count(self) -> int | None:
        """How many messages its smart host has taken; None: it cannot be asked now."""
        ...

    def backlog(self) -> int | None:
        """Messages in the streams `timeline.ON_THE_WAY`; None: it cannot be asked now."""
        ...

    # misfortune

    def strike(self, fault: PlannedFault) -> None:
        """Carry out a fault of `menu`; returns when it is over and everything answers again."""
        ...
