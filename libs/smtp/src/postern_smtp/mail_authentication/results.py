"""What a check comes to, in the words of RFC 8601 section 2.7."""

from __future__ import annotations

import enum


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
