"""What the screener needs to know: the ordered rules, and which route each recipient's domain takes."""

from __future__ import annotations

import enum

import msgspec

from postern_core.changes import Change
from postern_core.contract import Version, written
from postern_core.policy.conditions import Condition
from postern_core.policy.domains import RelayDomain
from postern_core.policy.engines import Engines
from postern_core.policy.lists import NamedList
from postern_core.policy.unscannable import UnscannablePolicy
from postern_core.verdict import Action


class RuleMode(enum.StrEnum):
    """How far a rule goes."""

    ON = "on"
    MONITOR = "monitor"  # it only records what it would do


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule. Those that are off are not in a snapshot; the others stand in the order in which they decide.

    It matches when `condition` holds and `unless` does not.
    """

    id: str
    name: str
    condition: Condition
    action: Action
    forward_to: str = ""  # with action forward
    unless: Condition | None = None
    mode: RuleMode = RuleMode.ON
    changes: tuple[Change, ...] = ()  # of a message that goes on, and who else hears of it


class ScreeningPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Section `screening`. Rules decide by first match, in this order."""

    version: Version = msgspec.field(default_factory=written)
    revision: int
    rules: tuple[Rule, ...] = ()
    lists: tuple[NamedList, ...] = ()  # those that rules name
    relay_domains: tuple[RelayDomain, ...] = ()  # domain → route
    default_route: str = "default"
    max_deliveries: int = 4  # screening that crashed or timed out this often makes a message poison
    screening_timeout_s: float = 10.0
    excerpts: bool = True  # what matched may be stored with the verdict
    archive: bool = False  # a copy of each message that was screened goes to ARCHIVE
    engines: Engines = Engines()
    unscannable: UnscannablePolicy = UnscannablePolicy()
    hostname: str = ""  # ours, in notices
    postmaster: str = ""  # who writes notices, and gets those without an address; "": postmaster at the hostname
