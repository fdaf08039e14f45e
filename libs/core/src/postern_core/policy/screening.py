"""What the screener needs to know: the ordered rules, and which route each recipient's domain takes."""

from __future__ import annotations

import enum

import msgspec

from postern_core.contract import Version, written
from postern_core.policy.domains import RelayDomain
from postern_core.verdict import Action


class AttachmentMatch(enum.StrEnum):
    """What an attachment rule compares (OLD-PRODUCT 2.10)."""

    NAME = "name"  # the whole file name, caseless
    EXTENSION = "extension"  # any of its extensions, without the dot, caseless
    SIZE = "size"  # decoded size in bytes, greater than


class KeywordScope(enum.StrEnum):
    """Where a keyword is looked for (OLD-PRODUCT 2.02)."""

    HEADER = "header"
    BODY = "body"
    BOTH = "both"


class SenderCondition(msgspec.Struct, frozen=True, kw_only=True, tag="sender"):
    """Addresses (`a@example.com`), domains (`example.com`) or wildcards (`*.example.com`), any of them, against the
    reverse-path and the addresses of From:."""

    patterns: tuple[str, ...]


class AttachmentCondition(msgspec.Struct, frozen=True, kw_only=True, tag="attachment", omit_defaults=True):
    """One attachment criterion with its values, any of them."""

    match: AttachmentMatch
    values: tuple[str, ...] = ()  # for name and extension
    larger_than_bytes: int = 0  # for size


class KeywordCondition(msgspec.Struct, frozen=True, kw_only=True, tag="keyword", omit_defaults=True):
    """Literal phrases, any of them, caseless, found also inside longer words unless `whole_word`."""

    phrases: tuple[str, ...]
    scope: KeywordScope = KeywordScope.BOTH
    whole_word: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule. Only enabled rules are in a snapshot; they stand in the order in which they decide."""

    id: str
    name: str
    condition: SenderCondition | AttachmentCondition | KeywordCondition
    action: Action
    forward_to: str = ""  # with action forward


class ScreeningPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Section `screening`. Rules decide by first match, in this order."""

    version: Version = msgspec.field(default_factory=written)
    revision: int
    rules: tuple[Rule, ...] = ()
    relay_domains: tuple[RelayDomain, ...] = ()  # domain → route
    default_route: str = "default"
    max_deliveries: int = 4  # screening that crashed or timed out this often makes a message poison
    screening_timeout_s: float = 10.0
