"""All checks of one message, once, at the end of data; and what follows from them.

SPF is asked while the client waits for the answer to MAIL, so that its answers are there when the data ends. All of it is time-boxed: what is not known
by then is a temperror, and never a reason to refuse, unless the policy has it so (`defer_unknown`). Work on large messages is off the loop, a few at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from postern_core.authentication import Method, MethodResult
from postern_core.envelope import Client
from postern_core.errors import Reply
from postern_core.policy import DmarcAction, GatePolicy, MailAuthentication
from postern_core.policy.domains import normalise_domain
from postern_core.policy.networks import NetworkSet
from postern_smtp import replies
from postern_smtp.commands import Mail
from postern_smtp.mail_authentication.arc import ArcResult, check_arc
from postern_smtp.mail_authentication.dkim import DkimResult, check_dkim
from postern_smtp.mail_authentication.dmarc import Asked, DmarcResult, author_domain, check_dmarc
from postern_smtp.mail_authentication.examination import Examined
from postern_smtp.mail_authentication.fields import SignedMessage, parse_signed
from postern_smtp.mail_authentication.results import Result
from postern_smtp.mail_authentication.spf import SpfResult, check_spf
from postern_smtp.mail_authentication.stamp import results_field, without_forged
from postern_smtp.resolver import Resolver

if TYPE_CHECKING:
    from postern_smtp.session import Session

log: structlog.stdlib.BoundLogger = structlog.get_logger()
T = TypeVar("T")

EARLY_SPF_S: Final = 5.0  # before the answer to MAIL
SIGNATURES_S: Final = 7.0  # SPF, DKIM and ARC, at once …
DMARC_S: Final = 3.0  # … and then DMARC: ten seconds in all
_LARGE_OCTETS: Final = 64 * 1024
_LARGE_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class ForgeryRemoval:
    """Of the authenticated gate: our own people's mail is not from elsewhere, but must not say that we found it to be."""

    own_names: frozenset[str]

    async def examine(self, client: Client, reverse_path: str, body: bytes) -> Examined:  # noqa: ARG002
        return Examined(await _cleaned(body, self.own_names))


@dataclass(frozen=True, slots=True)
class MailExaminer:
    """Of the anonymous gate, for one policy revision."""

    settings: MailAuthentication
    hostname: str  # our authserv-id
    own_names: frozenset[str]
    resolver: Resolver
    relay_clients: NetworkSet | None = None  # those that may relay: their mail is treated like that of the authenticated gate
    clock: Callable[[], float] = time.time
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LARGE_AT_ONCE))

    async def ask_early(self, session: Session, mail: Mail) -> Reply | None:
        """A check of the sender that refuses nobody: the resolver remembers what SPF needs."""
        if session.client_address in (self.relay_clients or ()):
            return None
        await _within(
            EARLY_SPF_S, check_spf(self.resolver, session.client_address, session.host, mail.reverse_path.address), None
        )
        return None

    async def examine(self, client: Client, reverse_path: str, body: bytes) -> Examined:
        if client.address in (self.relay_clients or ()):
            return Examined(await _cleaned(body, self.own_names))
        if len(body) <= _LARGE_OCTETS:
            return await self._examine(client, reverse_path, body)
        async with self.large:
            return await self._examine(client, reverse_path, body)

    async def _examine(self, client: Client, reverse_path: str, body: bytes) -> Examined:
        message = parse_signed(body)
        now = self.clock()
        is_helo = not reverse_path
        asked = client.helo if is_helo else reverse_path
        spf, dkim, arc = await asyncio.gather(
            _within(
                SIGNATURES_S,
                check_spf(self.resolver, client.address, client.helo, reverse_path),
                SpfResult(Result.TEMPERROR, "", asked, is_helo),
            ),
            _within(SIGNATURES_S, check_dkim(message, self.resolver, now), [DkimResult(Result.TEMPERROR)]),
            _within(SIGNATURES_S, check_arc(message, self.resolver, now), ArcResult(Result.TEMPERROR)),
        )
        dmarc = await self._dmarc(message, spf, dkim)
        hold, refusal = self._follow(dmarc, arc)
        log.info(
            "message.authenticated",
            client=client.address,
            spf=spf.result.value,
            dkim=[f"{each.domain}:{each.result}" for each in dkim],
            dmarc=dmarc.result.value,
            author=dmarc.author_domain,
            asked=dmarc.asked.value,
            arc=arc.result.value,
            reply=str(refusal) if refusal else "",
        )
        if refusal is not None:
            return Examined(body, refusal=refusal)
        fields = results_field(self.hostname, spf=spf, dkim=dkim, dmarc=dmarc, arc=arc, client_address=client.address)
        results = (
            MethodResult(method=Method.SPF, result=spf.result),
            *(MethodResult(method=Method.DKIM, result=each.result) for each in dkim or [DkimResult(Result.NONE)]),
            MethodResult(method=Method.DMARC, result=dmarc.result),
            MethodResult(method=Method.ARC, result=arc.result),
        )
        return Examined(await _cleaned(body, self.own_names), fields, hold, results=results)

    async def _dmarc(self, message: SignedMessage, spf: SpfResult, dkim: list[DkimResult]) -> DmarcResult:
        signed_by = [each.domain for each in dkim if each.result is Result.PASS]
        found = await _within(
            DMARC_S,
            check_dmarc(
                message,
                self.resolver,
                spf_domain=spf.domain if spf.result is Result.PASS else "",
                dkim_domains=signed_by,
            ),
            DmarcResult(Result.TEMPERROR, author_domain(message) or ""),
        )
        is_open = Result.TEMPERROR in (spf.result, *(each.result for each in dkim))
        if found.result is Result.FAIL and is_open:
            # what DNS did not say might have passed
            return DmarcResult(Result.TEMPERROR, found.author_domain, found.asked)
        return found

    def _follow(self, dmarc: DmarcResult, arc: ArcResult) -> tuple[str, Reply | None]:
        """Why to hold it, and the refusal."""
        action = self.settings.dmarc
        if action is DmarcAction.NONE:
            return "", None
        if dmarc.result is Result.PERMERROR:
            return "DMARC: the message does not name a single author's domain", None
        if dmarc.result is Result.TEMPERROR and self.settings.defer_unknown:
            return "", replies.AUTHENTICATION_UNKNOWN
        if dmarc.result is not Result.FAIL or dmarc.asked is Asked.NONE or self._is_vouched_for(arc):
            return "", None
        if dmarc.asked is Asked.REJECT and action is DmarcAction.REJECT:
            return "", replies.DMARC_FAILED
        return f"DMARC: {dmarc.author_domain} asks to {dmarc.asked} what does not pass", None

    def _is_vouched_for(self, arc: ArcResult) -> bool:
        """Whether somebody we trust saw DMARC pass before he changed the message."""
        return arc.dmarc_passed and bool(arc.sealers) and arc.sealers[0] in self.settings.trusted_arc_sealers


def own_names(policy: GatePolicy) -> frozenset[str]:
    """The names by which this installation calls itself, at either gate."""
    names = (policy.hostname, policy.anon_listener.identity.hostname, policy.auth_listener.identity.hostname)
    return frozenset(normalise_domain(name) for name in names if name)


def mail_examiner(
    policy: GatePolicy, hostname: str, resolver: Resolver, relay_clients: NetworkSet | None = None
) -> MailExaminer | None:
    """For the anonymous gate; None where it is switched off."""
    settings = policy.anon_listener.mail_authentication
    return MailExaminer(settings, hostname, own_names(policy), resolver, relay_clients) if settings.enabled else None


async def _within(limit_s: float, work: Coroutine[Any, Any, T], otherwise: T) -> T:
    """What `work` comes to; `otherwise` when it takes too long, or has a fault of its own."""
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError:
        log.info("authentication.timed_out", after_s=limit_s)
    except Exception:
        log.exception("authentication.failed")
    return otherwise


async def _cleaned(body: bytes, own_names: Collection[str]) -> bytes:
    """Without forged fields; in a thread when the message is large."""
    return (
        await asyncio.to_thread(without_forged, body, own_names) if len(body) > _LARGE_OCTETS else without_forged(body, own_names)
    )
