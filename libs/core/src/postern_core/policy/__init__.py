"""The compiled policy: three immutable sections of one revision, each readable only by the services that need it.

The api makes a revision from its editable objects, compiles all three sections, and publishes them to KV POLICY under the keys
of `Section`. Services watch their own key (`postern_core.bus.policy`), compile off the loop and swap.
"""

from postern_core.policy.access import (
    AccessAction,
    AccessEntry,
    ListenerAccess,
    ListenerProxy,
    ListenerReverseDns,
    ReverseDns,
)
from postern_core.policy.accounts import Rates, SenderRules, SendingRates, Throttling
from postern_core.policy.codec import Section, SectionStruct, decode_section, encode_section
from postern_core.policy.conditions import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    ClientCondition,
    Condition,
    Criterion,
    DirectionCondition,
    KeywordCondition,
    KeywordScope,
    MalformedCondition,
    Not,
    RecipientCondition,
    ScheduleCondition,
    SenderCondition,
    SizeCondition,
    UserCondition,
    Weekday,
)
from postern_core.policy.delivery import DeliveryPolicy, NextHop, RetrySchedule, Route, RouteTls
from postern_core.policy.domains import DomainTable, Recipients, RelayDomain
from postern_core.policy.extensions import ListenerExtensions
from postern_core.policy.gates import BareNewline, GateLimits, GatePolicy, ListenerIdentity, ListenerPolicy
from postern_core.policy.operating import GateState, ListenerState, SessionLogging, SessionLogLevel
from postern_core.policy.recipients import (
    CalloutRoute,
    ListenerGreylisting,
    ListenerVerification,
    RecipientList,
    WhenUnavailable,
)
from postern_core.policy.reputation import (
    DmarcAction,
    DnsList,
    ListedAt,
    ListenerDnsLists,
    ListenerGreeting,
    MailAuthentication,
    Switch,
)
from postern_core.policy.screening import Rule, RuleMode, ScreeningPolicy
from postern_core.policy.security import CipherFloor, ListenerAuthentication, ListenerTls, Mechanism, TlsUse, TlsVersion
from postern_core.policy.unscannable import UnscannableAction, UnscannablePolicy

__all__ = [
    "AccessAction",
    "AccessEntry",
    "AllOf",
    "AnyOf",
    "AttachmentCondition",
    "AttachmentMatch",
    "BareNewline",
    "CalloutRoute",
    "CipherFloor",
    "ClientCondition",
    "Condition",
    "Criterion",
    "DeliveryPolicy",
    "DirectionCondition",
    "DmarcAction",
    "DnsList",
    "DomainTable",
    "GateLimits",
    "GatePolicy",
    "GateState",
    "KeywordCondition",
    "KeywordScope",
    "ListedAt",
    "ListenerAccess",
    "ListenerAuthentication",
    "ListenerDnsLists",
    "ListenerExtensions",
    "ListenerGreeting",
    "ListenerGreylisting",
    "ListenerIdentity",
    "ListenerPolicy",
    "ListenerProxy",
    "ListenerReverseDns",
    "ListenerState",
    "ListenerTls",
    "ListenerVerification",
    "MailAuthentication",
    "MalformedCondition",
    "Mechanism",
    "NextHop",
    "Not",
    "Rates",
    "RecipientCondition",
    "RecipientList",
    "Recipients",
    "RelayDomain",
    "RetrySchedule",
    "ReverseDns",
    "Route",
    "RouteTls",
    "Rule",
    "RuleMode",
    "ScheduleCondition",
    "ScreeningPolicy",
    "Section",
    "SectionStruct",
    "SenderCondition",
    "SenderRules",
    "SendingRates",
    "SessionLogLevel",
    "SessionLogging",
    "SizeCondition",
    "Switch",
    "Throttling",
    "TlsUse",
    "TlsVersion",
    "UnscannableAction",
    "UnscannablePolicy",
    "UserCondition",
    "Weekday",
    "WhenUnavailable",
    "decode_section",
    "encode_section",
]
