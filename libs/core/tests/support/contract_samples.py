"""What each file in `contracts/` says: file name → (what it decodes to, body behind it). A file is never changed, only added to."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from postern_core.accounts import (
    AccountNews,
    FailureClearing,
    FailurePage,
    FailureQuery,
    FailureRow,
    FailuresCleared,
    FailuresOf,
    PasswordUse,
    PasswordUses,
    SentBy,
)
from postern_core.alerts import AlertRaised
from postern_core.archive import ArchivedMessage
from postern_core.authentication import Method, MethodResult, Result
from postern_core.changes import AddDisclaimer, AddHeader, CopyTo, Notify, RemoveHeader, StripAttachments, TagSubject
from postern_core.control import (
    BadmailPage,
    BadmailRow,
    CertificateStatus,
    ControlError,
    EngineState,
    EngineStatus,
    QueueAction,
    QueueChanged,
    QueuePage,
    QueueQuery,
    QueueRow,
    QueueState,
    ServiceStatus,
    UnboundAddress,
)
from postern_core.credentials import AppPassword, CertificateOwner, RouteSecret, SmtpUser
from postern_core.disposition import Disposition, DispositionBatch, DispositionKind
from postern_core.envelope import BodyRef, BodyType, Client, Envelope, Gate, HostCheck, Recipient
from postern_core.events import EventBatch, EventKind, TraceEvent
from postern_core.greylist import GreylistNews, SeenClient, SeenTriplet
from postern_core.ids import QueueId
from postern_core.job import Badmail, Job
from postern_core.notices import Notice, NoticeBatch, NoticeKind
from postern_core.policy import (
    AccessAction,
    AccessEntry,
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    AuthenticationCondition,
    BareNewline,
    Bind,
    CalloutRoute,
    CharsetCondition,
    CipherFloor,
    ClamdEngine,
    ClientCondition,
    DeliveryPolicy,
    DirectionCondition,
    DmarcAction,
    DnsList,
    Engines,
    GateLimits,
    GatePolicy,
    GateState,
    HeaderCondition,
    HeaderMatch,
    KeywordCondition,
    KeywordScope,
    LanguageCondition,
    ListedAt,
    ListenerAccess,
    ListenerAuthentication,
    ListenerBinds,
    ListenerDnsLists,
    ListenerExtensions,
    ListenerGreeting,
    ListenerGreylisting,
    ListenerPolicy,
    ListenerProxy,
    ListenerReverseDns,
    ListenerState,
    ListenerTls,
    ListenerVerification,
    ListKind,
    MailAuthentication,
    MalformedCondition,
    Mechanism,
    NamedList,
    NextHop,
    Not,
    OnFailure,
    OnVirus,
    Rates,
    RecipientCondition,
    RecipientList,
    Recipients,
    RelayDomain,
    RetrySchedule,
    ReverseDns,
    Route,
    RouteTls,
    RspamdEngine,
    Rule,
    RuleMode,
    ScheduleCondition,
    ScreeningPolicy,
    Script,
    ScriptCondition,
    SenderCondition,
    SenderRules,
    SendingRates,
    SessionLogging,
    SessionLogLevel,
    SizeCondition,
    SpamCondition,
    Switch,
    Throttling,
    TlsUse,
    TlsVersion,
    UnscannableAction,
    UnscannablePolicy,
    UserCondition,
    VirusCondition,
    Weekday,
    WhenUnavailable,
    YaraCondition,
    YaraEngine,
    YaraFile,
)
from postern_core.policy.commands import CommandRule, ListenerCommands, OnViolation
from postern_core.policy.filters import DeniedAs, ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders
from postern_core.session_log import SessionBatch, SessionRecord
from postern_core.sessions import (
    SessionPage,
    SessionQuery,
    SessionRow,
    SessionSelection,
    SessionsEnded,
    SessionState,
)
from postern_core.trial import TrialAnswer, TrialMessage, TrialPlace, TrialRequest, Tried, TriedShare
from postern_core.verdict import (
    Action,
    ChangeMade,
    Decision,
    Engine,
    EngineAnswer,
    Finding,
    HeldMessage,
    HoldReason,
    Obstacle,
    TextLanguage,
    Unscannable,
    Verdict,
)

ID = QueueId("01m872jv7bexwrfkmpb6w2jh6c")
ACCEPTED = datetime(2026, 11, 24, 15, 26, 27, 250_000, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 15, 41, 27, 1, tzinfo=UTC)
MAIL = b"Received: from [192.0.2.7]\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\n\x00\xff binary\r\n"

ENVELOPE = Envelope(
    id=ID,
    gate=Gate.AUTH,
    reverse_path="ann@example.org",
    recipients=(
        Recipient(n=0, address="bob@relay.example", notify="FAILURE,DELAY", orcpt="rfc822;bob+2Bx@relay.example"),
        Recipient(n=1, address='"c d"@relay.example'),
    ),
    size_bytes=len(MAIL),
    accepted_at=ACCEPTED,
    client=Client(address="2001:db8::7", helo="mx.example.org", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", user="ann"),
    body_type=BodyType.EIGHT_BIT_MIME,
    smtputf8=True,
    ret="HDRS",
    envid="QQ314159",
)
STOWED = msgspec.structs.replace(
    ENVELOPE, size_bytes=3_000_000, body=BodyRef(name=f"ingress-auth.{ID}", chunks=3, size_bytes=3_000_000, sha256="ab" * 32)
)
STOWED_XXH3 = msgspec.structs.replace(
    ENVELOPE, size_bytes=700_000, body=BodyRef(name=f"ingress-anon.{ID}", chunks=1, size_bytes=700_000, xxh3="cd" * 16)
)
INTERNATIONAL = msgspec.structs.replace(
    ENVELOPE,
    reverse_path="jösé@xn--bcher-kva.example",
    recipients=(Recipient(n=0, address="用户@relay.example", orcpt="utf-8;用户@例え.example"),),
    requiretls=True,
)
LEAST = Envelope(
    id=ID,
    gate=Gate.ANON,
    reverse_path="",
    recipients=(Recipient(n=0, address="bob@relay.example"),),
    size_bytes=2,
    accepted_at=ACCEPTED,
    client=Client(address="192.0.2.7"),
)
NAMED = msgspec.structs.replace(LEAST, client=Client(address="192.0.2.7", host="mx.example.org", host_check=HostCheck.VERIFIED))
JOB = Job(route="main", envelope=ENVELOPE, recipients=ENVELOPE.recipients[1:], generation=2, maybe_duplicate=True, is_dsn=True)
VERDICT = Verdict(
    revision=42,
    decision=Decision.HOLD,
    findings=(Finding(rule_id="r7", rule_name="no programs", part="1.2", offset=17, excerpt="setup.exe"),),
    hold_reason=HoldReason.RULE,
    forward_to="abuse@relay.example",
    detail="rule no programs",
    screening_ms=1.25,
)
CHANGED_VERDICT = Verdict(
    revision=42,
    decision=Decision.PASS,
    findings=(Finding(rule_id="r8", rule_name="tagged", part="envelope", continued=True),),
    changes=(
        ChangeMade(kind="strip-attachments", rule_id="r8", rule_name="tagged", part="2", detail="a.exe was removed"),
        ChangeMade(kind="add-disclaimer", rule_id="r8", rule_name="tagged", detail="the message is signed", skipped=True),
        ChangeMade(kind="copy-to", rule_id="r9", rule_name="watched", address="audit@relay.example", monitored=True),
    ),
)
DOMAINS = (RelayDomain(pattern="relay.example", route="main"), RelayDomain(pattern="*.far.example", accept=False))

END = Disposition(
    id=ID,
    n=1,
    recipients_total=2,
    kind=DispositionKind.BOUNCED,
    gate=Gate.AUTH,
    accepted_at=ACCEPTED,
    at=LATER,
    recipient='"c d"@relay.example',
    generation=2,
    route="main",
    next_hop="192.0.2.25:25",
    reply="550 5.1.1 no such user",
    detail="refused for good",
    successor_id=ID,
)

FRAMED: dict[str, tuple[msgspec.Struct, bytes]] = {
    "envelope-1.mail": (ENVELOPE, MAIL),
    "envelope-1-stowed.mail": (STOWED, b""),
    "envelope-1-stowed-xxh3.mail": (STOWED_XXH3, b""),
    "envelope-1-international.mail": (INTERNATIONAL, MAIL),
    "envelope-1-least.mail": (LEAST, b"\r\n"),
    "envelope-1-held.mail": (
        msgspec.structs.replace(LEAST, hold="DMARC: example.org asks to quarantine what does not pass"),
        b"\r\n",
    ),
    "envelope-1-authenticated.mail": (
        msgspec.structs.replace(
            LEAST,
            authentication=(
                MethodResult(method=Method.SPF, result=Result.SOFTFAIL),
                MethodResult(method=Method.DKIM, result=Result.NONE),
                MethodResult(method=Method.DMARC, result=Result.FAIL),
            ),
        ),
        b"\r\n",
    ),
    "envelope-1-named.mail": (NAMED, b"\r\n"),
    "envelope-1-binary.mail": (msgspec.structs.replace(LEAST, body_type=BodyType.BINARY_MIME), b"\0\n\r\xff"),
    "job-1.mail": (JOB, MAIL),
    "job-1-batched.mail": (msgspec.structs.replace(JOB, batch=ID), MAIL),
    "job-1-least.mail": (Job(route="default", envelope=LEAST, recipients=LEAST.recipients), b"\r\n"),
    "held-message-1-unscannable.mail": (
        HeldMessage(
            envelope=STOWED,
            verdict=Verdict(
                revision=43,
                decision=Decision.HOLD,
                hold_reason=HoldReason.INCOMPLETE,
                detail="part 2: message/partial: its content is elsewhere and cannot be screened",
                obstacles=(
                    Obstacle(
                        kind=Unscannable.INCOMPLETE,
                        part="2",
                        reason="message/partial: its content is elsewhere and cannot be screened",
                    ),
                    Obstacle(kind=Unscannable.MALFORMED, part="1", reason="2 content-type fields"),
                ),
            ),
        ),
        b"",
    ),
    "held-message-1.mail": (HeldMessage(envelope=STOWED, verdict=VERDICT, subject="grüße", generation=1), b""),
    "archived-message-1.mail": (ArchivedMessage(envelope=ENVELOPE, verdict=VERDICT, subject="grüße"), MAIL),
    "held-message-1-engines.mail": (
        HeldMessage(
            envelope=STOWED,
            verdict=Verdict(
                revision=42,
                decision=Decision.HOLD,
                hold_reason=HoldReason.ENGINE_FAILED,
                detail="clamd failed: cannot connect",
                answers=(
                    EngineAnswer(engine=Engine.CLAMD, result="failed", detail="cannot connect", ms=1.5),
                    EngineAnswer(engine=Engine.RSPAMD, result="add header", detail="7.5 of 15"),
                ),
                unscanned=(Engine.CLAMD,),
            ),
        ),
        b"",
    ),
    "held-message-1-inside.mail": (
        HeldMessage(
            envelope=LEAST,
            verdict=msgspec.structs.replace(
                VERDICT,
                findings=(
                    Finding(rule_id="r7", rule_name="no programs", part="2", chain=("a.zip", "b.tar.gz", "x.exe"), excerpt="exe"),
                ),
            ),
        ),
        b"\r\n",
    ),
    "held-message-1-changes.mail": (HeldMessage(envelope=STOWED, verdict=CHANGED_VERDICT), b""),
    "held-message-1-share.mail": (
        HeldMessage(
            envelope=msgspec.structs.replace(STOWED, gate=Gate.INTERNAL), verdict=VERDICT, subject="s", came_in_at=Gate.ANON
        ),
        b"",
    ),
    "badmail-1.mail": (
        Badmail(job=JOB, recipients=JOB.recipients, reason="there is nobody to tell", last_reply="550 5.1.1 no such user"),
        MAIL,
    ),
}

PLAIN: dict[str, msgspec.Struct] = {
    "disposition-1.json": END,
    "disposition-batch-1.json": DispositionBatch(dispositions=(END, msgspec.structs.replace(END, n=3))),
    "event-batch-1.json": EventBatch(
        events=(
            TraceEvent(
                id=ID,
                kind=EventKind.ATTEMPTED,
                at=LATER,
                service="delivery",
                fields={"route": "main", "attempts": 2, "seconds": 0.5, "tls": True},
            ),
        )
    ),
    "trial-request-1.json": TrialRequest(
        policy_octets=7, messages=(TrialMessage(envelope=ENVELOPE, octets=len(MAIL)),), places=True
    ),
    "trial-answer-1.json": TrialAnswer(
        tried=(
            Tried(
                verdict=VERDICT,
                subject="grüße",
                places=(
                    TrialPlace(rule_ids=("r1", "r2"), part="1", offset=3, length=5, chain=("a.zip", "b.exe"), excerpt="grüße"),
                ),
                steps_ms={"screen": 0.25},
            ),
            Tried(verdict=VERDICT, shares=(TriedShare(recipients=("a@relay.example",), verdict=VERDICT),)),
            Tried(failure="not done after 20 s"),
        ),
        compile_ms=12.5,
    ),
    "trial-answer-1-deferral.json": TrialAnswer(tried=(Tried(verdict=VERDICT, deferral="clamd failed: cannot connect"),)),
    "event-batch-1-verdict.json": EventBatch(
        events=(
            TraceEvent(
                id=ID,
                kind=EventKind.SCREENED,
                at=LATER,
                service="screener",
                fields={"decision": "pass"},
                verdict=Verdict(
                    revision=42,
                    decision=Decision.PASS,
                    findings=(
                        Finding(
                            rule_id="r1",
                            rule_name="programs",
                            part="2",
                            offset=7,
                            length=5,
                            chain=("inner.zip", "a.exe"),
                            excerpt="grüße",
                            monitored=True,
                        ),
                    ),
                    criteria=("6LnmD7dg",),
                    criteria_cut=True,
                    unasked=("AAAAAAAA",),
                ),
            ),
        )
    ),
    "event-batch-1-language.json": EventBatch(
        events=(
            TraceEvent(
                id=ID,
                kind=EventKind.SCREENED,
                at=LATER,
                service="screener",
                fields={"decision": "pass"},
                verdict=Verdict(
                    revision=42,
                    decision=Decision.PASS,
                    language=TextLanguage(code="de", percent=97, confidence=0.99, letters=1204),
                ),
            ),
        )
    ),
    "notice-batch-1.json": NoticeBatch(
        notices=(
            Notice(
                kind=NoticeKind.COMMAND_TOO_LONG,
                about="192.0.2.7",
                at=LATER,
                service="ingress-anon",
                instance="mx-1",
                count=3,
                fields={"verb": "NOOP", "octets": 1041},
            ),
        )
    ),
    "gate-policy-1.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        relay_domains=DOMAINS,
        anon=GateLimits(max_message_bytes=1000, max_recipients=None, bare_newline=BareNewline.NORMALISE),
    ),
    "gate-policy-1-security.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(
            tls=ListenerTls(use=TlsUse.REQUIRED, min_version=TlsVersion.TLS_1_3, ciphers=CipherFloor.BITS_256)
        ),
        auth_listener=ListenerPolicy(authentication=ListenerAuthentication(mechanisms=(Mechanism.SCRAM_SHA_256,))),
    ),
    "gate-policy-1-accounts.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        auth_listener=ListenerPolicy(
            throttling=Throttling(
                first_delay_s=0.5, longest_delay_s=8.0, network_limit=20, user_limit=40, longest_block_s=7200.0
            ),
            senders=SenderRules(listed_only=True, null_sender=False),
            rates=Rates(user=SendingRates(messages_per_hour=100), domain=SendingRates(recipients_per_day=5000)),
        ),
    ),
    "gate-policy-1-access.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        anon=GateLimits(max_connections_per_network=300, command_timeout_s=60.0, data_block_timeout_s=90.0),
        anon_listener=ListenerPolicy(
            access=ListenerAccess(
                entries=(
                    AccessEntry(action=AccessAction.DENY, who="192.0.2.0/24"),
                    AccessEntry(action=AccessAction.ALLOW, who="*.partner.example"),
                ),
                otherwise=AccessAction.DENY,
            ),
            reverse_dns=ListenerReverseDns(mode=ReverseDns.STAMP),
            proxy=ListenerProxy(trusted_networks=("2001:db8::/32",)),
        ),
    ),
    "gate-policy-1-filters.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(
            commands=ListenerCommands(
                rules=(CommandRule(verb="NOOP", max_octets=6), CommandRule(verb="X-EXPS", enabled=False)),
                on_too_long=OnViolation.CLOSE,
            ),
            sender_filter=ListenerSenders(rejected=("*.bulk.example", "news-*@else.example")),
            recipient_filter=ListenerRecipients(denied=("everybody@relay.example",), denied_as=DeniedAs.NO_MAILBOX),
            relaying=ListenerRelaying(networks=("192.0.2.0/28", "2001:db8::/64")),
        ),
        auth_listener=ListenerPolicy(addresses=ListenerAddresses(default_domain="relay.example")),
    ),
    "gate-policy-1-paused-by-alert.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        auth_listener=ListenerPolicy(state=ListenerState(state=GateState.PAUSED, by_alert="account-suspected")),
    ),
    "gate-policy-1-binds.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        auth_listener=ListenerPolicy(
            binds=ListenerBinds(
                binds=(Bind(address="*", port=587), Bind(address="192.0.2.1", port=465, tls=True)),
            )
        ),
    ),
    "gate-policy-1-extensions.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        anon=GateLimits(max_recipient_domains=5),
        anon_listener=ListenerPolicy(extensions=ListenerExtensions(chunking=False, binarymime=False, dsn=False, limits=False)),
    ),
    "gate-policy-1-international.json": GatePolicy(
        revision=42,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(extensions=ListenerExtensions(dsn=False, smtputf8=False, requiretls=False)),
    ),
    "gate-policy-1-operated.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(
            state=ListenerState(state=GateState.DRAINED), logging=SessionLogging(level=SessionLogLevel.COMMANDS)
        ),
        auth_listener=ListenerPolicy(
            state=ListenerState(state=GateState.PAUSED), logging=SessionLogging(level=SessionLogLevel.OFF)
        ),
    ),
    "gate-policy-1-mailboxes.json": GatePolicy(
        revision=44,
        hostname="mx.relay.example",
        relay_domains=(RelayDomain(pattern="relay.example", route="main", recipients=Recipients.CALLOUT),),
        anon_listener=ListenerPolicy(
            verification=ListenerVerification(when_unavailable=WhenUnavailable.ACCEPT, timeout_s=5.0, max_at_once_per_client=3),
            greylisting=ListenerGreylisting(enabled=True, whitelist_after=None, exempt_networks=("192.0.2.0/24",)),
        ),
        recipient_lists=(RecipientList(domain="*.relay.example", addresses=("Ann@a.relay.example",), case_sensitive=True),),
        callout_routes=(CalloutRoute(name="main", next_hops=(NextHop(host="mail.relay.example"),), tls=RouteTls.VERIFY),),
        default_route="main",
    ),
    "gate-policy-1-reputation.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(
            dns_lists=ListenerDnsLists(
                lists=(
                    DnsList(zone="bad.example", weight=2.5, answers=("127.0.0.2/31",)),
                    DnsList(zone="good.example", weight=-1.0),
                ),
                threshold=2.0,
                refuse_at=ListedAt.CONNECTION,
            ),
            greeting=ListenerGreeting(
                pause_s=5.0, hello_syntax=Switch.REFUSE, hello_own=Switch.REFUSE, hello_resolves=Switch.REFUSE
            ),
        ),
    ),
    "gate-policy-1-authentication.json": GatePolicy(
        revision=43,
        hostname="mx.relay.example",
        anon_listener=ListenerPolicy(
            mail_authentication=MailAuthentication(
                enabled=True, dmarc=DmarcAction.REJECT, defer_unknown=True, trusted_arc_sealers=("lists.example.org",)
            ),
        ),
    ),
    "screening-policy-1-conditions.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(
                id="r1",
                name="programs from outside",
                condition=AllOf(
                    of=(
                        DirectionCondition(gates=(Gate.ANON,)),
                        AnyOf(of=(ClientCondition(networks=("192.0.2.0/24",)), Not(of=UserCondition(names=("ann",))))),
                        SizeCondition(larger_than_bytes=1000),
                    )
                ),
                unless=MalformedCondition(),
                action=Action.ALLOW,
                mode=RuleMode.MONITOR,
            ),
            Rule(
                id="r2",
                name="sales at night",
                condition=AllOf(
                    of=(
                        RecipientCondition(patterns=("sales-*@relay.example",)),
                        ScheduleCondition(timezone="Europe/Vienna", days=(Weekday.FRIDAY,), begin=1320, end=360),
                    )
                ),
                action=Action.HOLD,
            ),
        ),
    ),
    "screening-policy-1-unscannable.json": ScreeningPolicy(
        revision=43,
        unscannable=UnscannablePolicy(
            encrypted=UnscannableAction.PASS, incomplete=UnscannableAction.DELETE, poison=UnscannableAction.DELETE
        ),
    ),
    "screening-policy-1-kept.json": ScreeningPolicy(revision=42, excerpts=False, archive=True),
    "screening-policy-1-language.json": ScreeningPolicy(
        revision=42,
        rules=(Rule(id="r1", name="ours", condition=Not(of=LanguageCondition(languages=("de", "en"))), action=Action.HOLD),),
    ),
    "screening-policy-1-engines.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(id="r1", name="viruses", condition=VirusCondition(names=("Win.*",)), action=Action.DELETE),
            Rule(id="r2", name="spam", condition=SpamCondition(at_least=7.5, actions=("reject",)), action=Action.HOLD),
            Rule(id="r3", name="yara", condition=YaraCondition(rules=("A",), tags=("macro",)), action=Action.HOLD),
        ),
        engines=Engines(
            clamd=ClamdEngine(
                enabled=True,
                address="/run/clamd.sock",
                timeout_s=5.0,
                on_failure=OnFailure.HOLD,
                max_bytes=1000,
                max_connections=2,
                on_virus=OnVirus.DELETE,
            ),
            rspamd=RspamdEngine(
                enabled=True,
                url="http://rspamd:11333",
                timeout_s=5.0,
                on_failure=OnFailure.DEFER,
                max_bytes=1000,
                max_connections=2,
            ),
            yara=YaraEngine(
                enabled=True,
                timeout_s=3,
                on_failure=OnFailure.PASS,
                files=(YaraFile(name="own.yar", source="rule A : macro { condition: true }"),),
            ),
            hold_after_s=3600.0,
        ),
    ),
    "screening-policy-1-attachments.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(
                id="r1",
                name="programs, wherever they are",
                condition=AnyOf(
                    of=(
                        AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",), inside=True),
                        AttachmentCondition(match=AttachmentMatch.REAL_TYPE, values=("program",), inside=True),
                        AttachmentCondition(match=AttachmentMatch.WILDCARD, values=("*.pdf.*",)),
                        AttachmentCondition(match=AttachmentMatch.DECLARED_TYPE, values=("application/x-msdownload",)),
                        AttachmentCondition(match=AttachmentMatch.COUNT, more_than=20),
                        AttachmentCondition(match=AttachmentMatch.NESTING, more_than=2),
                        AttachmentCondition(match=AttachmentMatch.ENCRYPTED),
                        AttachmentCondition(match=AttachmentMatch.MACRO),
                        AttachmentCondition(match=AttachmentMatch.TYPE_MISMATCH),
                        AttachmentCondition(match=AttachmentMatch.DECEPTIVE_NAME),
                        AttachmentCondition(match=AttachmentMatch.UNOPENED),
                    )
                ),
                action=Action.HOLD,
            ),
        ),
    ),
    "screening-policy-1-texts.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(
                id="r1",
                name="what it is written in",
                condition=AnyOf(
                    of=(
                        HeaderCondition(name="X-Mailer"),
                        HeaderCondition(name="X-Mailer", match=HeaderMatch.CONTAINS, values=("bulk",), lists=("words",)),
                        CharsetCondition(charsets=("koi8-r",)),
                        ScriptCondition(scripts=(Script.CYRILLIC, Script.HAN), more_than_percent=12.5),
                        AuthenticationCondition(method=Method.DMARC, results=(Result.FAIL, Result.PERMERROR)),
                        KeywordCondition(
                            phrases=("alpha",),
                            expressions=(r"\bv[i1]agra\b",),
                            lists=("words",),
                            scope=KeywordScope.ALL,
                            at_least=2,
                        ),
                        SenderCondition(lists=("senders",)),
                        AttachmentCondition(match=AttachmentMatch.EXTENSION, lists=("programs",)),
                        ClientCondition(lists=("networks",)),
                        UserCondition(lists=("users",)),
                    )
                ),
                action=Action.HOLD,
            ),
        ),
        lists=(
            NamedList(name="words", kind=ListKind.PHRASES, text="beta\ngamma"),
            NamedList(name="senders", kind=ListKind.SENDERS, text="*.bulk.example"),
            NamedList(name="programs", kind=ListKind.EXTENSIONS, text="exe\nscr"),
            NamedList(name="networks", kind=ListKind.NETWORKS, text="192.0.2.0/24"),
            NamedList(name="users", kind=ListKind.USERS, text="ann"),
        ),
    ),
    "screening-policy-1-changes.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(
                id="r1",
                name="changed",
                condition=MalformedCondition(),
                action=Action.CONTINUE,
                changes=(
                    TagSubject(text="[odd]"),
                    RemoveHeader(name="X-Spam"),
                    AddHeader(name="X-Spam", value="yes"),
                    StripAttachments(),
                    StripAttachments(every=True),
                    AddDisclaimer(text="from outside", html="<p>from outside</p>"),
                    CopyTo(address="audit@relay.example"),
                    Notify(address="admin@relay.example"),
                    Notify(),
                ),
            ),
        ),
        hostname="mx.relay.example",
        postmaster="postmaster@relay.example",
    ),
    "screening-policy-1.json": ScreeningPolicy(
        revision=42,
        rules=(
            Rule(id="r1", name="spammers", condition=SenderCondition(patterns=("*.spam.example",)), action=Action.DELETE),
            Rule(
                id="r2",
                name="no programs",
                condition=AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)),
                action=Action.HOLD,
            ),
            Rule(
                id="r3",
                name="large",
                condition=AttachmentCondition(match=AttachmentMatch.SIZE, larger_than_bytes=1_000_000),
                action=Action.HOLD,
            ),
            Rule(
                id="r4",
                name="secrets",
                condition=KeywordCondition(phrases=("Überweisung",), scope=KeywordScope.BODY, whole_word=True),
                action=Action.FORWARD,
                forward_to="audit@relay.example",
            ),
        ),
        relay_domains=DOMAINS,
        default_route="main",
        max_deliveries=3,
        screening_timeout_s=5.5,
    ),
    "delivery-policy-1.json": DeliveryPolicy(
        revision=42,
        hostname="mx.relay.example",
        routes=(
            Route(
                name="main",
                next_hops=(NextHop(host="mail.inside.example"), NextHop(host="192.0.2.25", port=2525)),
                tls=RouteTls.VERIFY,
                auth=True,
                use_helo=True,
                max_connections=3,
                max_messages_per_connection=None,
                max_recipients=10,
                timeout_s=60.0,
            ),
        ),
        relay_domains=DOMAINS,
        default_route="main",
        schedule=RetrySchedule(intervals_s=(1.0, 2.5), delay_notice_s=None, expiry_s=60.0),
        postmaster="postmaster@relay.example",
        ndr_copy_to="copies@relay.example",
    ),
    "smtp-user-1.json": SmtpUser(name="Ann", password_hash="$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", enabled=False),
    "smtp-user-1-scram.json": SmtpUser(
        name="Ann",
        password_hash="$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
        scram="SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        certificates=("ann@example.org",),
    ),
    "certificate-owner-1.json": CertificateOwner(user="Ann"),
    "smtp-user-1-more.json": SmtpUser(
        name="Ann",
        password_hash="$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
        app_passwords=(AppPassword(id="abcdefgh", password_hash="$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"),),
        senders=("ann@example.org", "*.example.org"),
        rates=SendingRates(messages_per_hour=10, messages_per_day=50, recipients_per_hour=100, recipients_per_day=500),
    ),
    "account-news-1.json": AccountNews(
        origin="0123456789abcdef",
        asks=True,
        failed=(("192.0.2.7", "ann", True),),
        succeeded=(("192.0.2.8", "bert"),),
        cleared=("user:ann",),
        sent=(SentBy("user:ann", 3600, 500000, 1, 2),),
        suspected=("user:ann hour 500000",),
        used=(PasswordUse("ann", "abcdefgh", LATER),),
        failures=(FailuresOf("address:192.0.2.7", 3, 12.5, 600.0, True),),
        totals=(SentBy("domain:example.org", 86400, 20000, 3, 4),),
    ),
    "greylist-news-1.json": GreylistNews(
        origin="0123456789abcdef",
        asks=True,
        triplets=(SeenTriplet(b"0123456789ab", 400.5, 20.0, True),),
        clients=(SeenClient("192.0.2.0/24", 3, 20.0),),
    ),
    "failure-query-1.json": FailureQuery(limit=5),
    "failure-page-1.json": FailurePage(
        rows=(FailureRow(key="address:192.0.2.7", count=52, last_at=ACCEPTED, blocked_until=LATER),), total=3, unknown_names=2
    ),
    "failure-clearing-1.json": FailureClearing(key="user:ann", actor="ops"),
    "failures-cleared-1.json": FailuresCleared(cleared=3),
    "password-uses-1.json": PasswordUses(uses=(PasswordUse("ann", "abcdefgh", LATER),)),
    "route-secret-1.json": RouteSecret(user="relay", password="päss word"),
    "service-status-1.json": ServiceStatus(
        service="screener",
        instance="one",
        started_at=ACCEPTED,
        at=LATER,
        ready=True,
        revision=42,
        policy_error="rule r9: no phrases",
        pid=77,
        in_flight=3,
        detail="2 workers",
    ),
    "service-status-1-engines.json": ServiceStatus(
        service="screener",
        instance="one",
        started_at=ACCEPTED,
        at=LATER,
        ready=True,
        engines=(
            EngineStatus(
                engine=Engine.CLAMD,
                state=EngineState.OPEN,
                on_failure=OnFailure.DEFER,
                error="cannot connect",
                asked=12,
                failed=5,
                seconds=1.5,
            ),
        ),
    ),
    "service-status-1-listening.json": ServiceStatus(
        service="ingress-auth", instance="one", started_at=ACCEPTED, at=LATER, ready=True, listens=("[::]:587", "[::]:465 (TLS)")
    ),
    "alert-raised-1.json": AlertRaised(
        kind="account-suspected",
        title="An account may be stolen: it sends more than it may",
        at=LATER,
        first_at=ACCEPTED,
        count=3,
        about=("ann",),
        pauses=("auth",),
    ),
    "service-status-1-counters.json": ServiceStatus(
        service="delivery",
        instance="one",
        started_at=ACCEPTED,
        at=LATER,
        ready=True,
        counters={"settled": {"delivered|main": 7.0}, "sent-messages": {"main": 3.0}},
        gauges={"retry-queue": {"waiting|main": 2.0}, "connections": {"main": 1.0}},
    ),
    "service-status-1-unbound.json": ServiceStatus(
        service="ingress-anon",
        instance="one",
        started_at=ACCEPTED,
        at=LATER,
        ready=True,
        listens=("[::]:25",),
        unbound=(UnboundAddress(address="192.0.2.1:25", problem="Address already in use"),),
    ),
    "service-status-1-certificates.json": ServiceStatus(
        service="ingress-anon",
        instance="one",
        started_at=ACCEPTED,
        at=LATER,
        ready=True,
        certificates=(
            CertificateStatus(
                file="/tls/cert.pem", names=("mx.relay.example", "*.far.example"), not_after=LATER, problem="it has expired"
            ),
        ),
    ),
    "queue-query-1.json": QueueQuery(route="main", after="x", limit=5),
    "queue-action-1.json": QueueAction(job_id=f"{ID}-main-0", queue_id=ID, route="main", with_ndr=True, actor="ops"),
    "queue-page-1.json": QueuePage(
        rows=(
            QueueRow(
                job_id=f"{ID}-main-0",
                queue_id=ID,
                route="main",
                state=QueueState.FROZEN,
                reverse_path="ann@example.org",
                recipients=("bob@relay.example",),
                attempts=2,
                accepted_at=ACCEPTED,
                next_attempt_at=LATER,
                expires_at=LATER,
                last_reply="451 4.3.0 later",
                size_bytes=100,
            ),
        ),
        total=7,
    ),
    "queue-changed-1.json": QueueChanged(changed=3),
    "badmail-page-1.json": BadmailPage(
        rows=(
            BadmailRow(
                job_id=f"{ID}-main-0",
                queue_id=ID,
                reverse_path="",
                recipients=("bob@relay.example",),
                reason="there is nobody to tell",
                at=LATER,
                last_reply="550 5.1.1 no such user",
            ),
        ),
        total=1,
    ),
    "control-error-1.json": ControlError(message="no such verb"),
    "session-query-1.json": SessionQuery(client="192.0.2.0/24", after=f"s-{ID}", limit=5),
    "session-page-1.json": SessionPage(
        rows=(
            SessionRow(
                id=f"s-{ID}",
                client="192.0.2.7",
                state=SessionState.STORING,
                age_s=12.5,
                idle_s=0.25,
                server="[2001:db8::1]:25",
                host="mx.example.org",
                tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
                user="ann",
                received_bytes=100,
                sent_bytes=50,
                commands=5,
                errors=1,
                messages=2,
                recipients=3,
            ),
        ),
        total=7,
    ),
    "session-selection-1.json": SessionSelection(id=f"s-{ID}", client="192.0.2.7/32", actor="ops"),
    "sessions-ended-1.json": SessionsEnded(ended=3),
    "session-batch-1.json": SessionBatch(
        gate=Gate.AUTH,
        instance="one",
        records=(
            SessionRecord(
                session=f"s-{ID}",
                n=4,
                at=LATER,
                client="192.0.2.7",
                server="192.0.2.1:465",
                host="mx.example.org",
                user="ann",
                tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
                verb="DATA",
                argument=ID,
                code=250,
                received_bytes=100,
                sent_bytes=50,
                taken_ms=12,
            ),
            SessionRecord(
                session=f"s-{ID}",
                at=LATER,
                client="192.0.2.7",
                verb="SESSION",
                argument="closing the connection",
                commands=5,
                errors=1,
                messages=2,
                recipients=3,
            ),
        ),
        dropped=2,
    ),
}
