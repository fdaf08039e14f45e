"""Whether a message is from whom it says: the methods, and what each comes to, in the words of RFC 8601 section 2.7."""

from __future__ import annotations

import enum

import msgspec


class Method(enum.StrEnum):
    """What was evaluated."""

    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    ARC = "arc"


class Result(enum.StrEnum):
    """Of any method; each uses some of them."""

    NONE = "none"  # nothing to check
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"  # SPF
    NEUTRAL = "neutral"  # SPF: the domain does not say; DKIM: a signature that cannot be read
    POLICY = "policy"  # DKIM: right, but not by what we take
    TEMPERROR = "temperror"  # DNS did not say
    PERMERROR = "permerror"  # what DNS says is wrong


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result, as the gate found it; DKIM has one for each signature."""

    method: Method
    result: Result
