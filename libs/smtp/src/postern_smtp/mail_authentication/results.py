"""What a check comes to, in the words of RFC 8601 section 2.7: in `postern_core`, since rules of the screener ask for it."""

from __future__ import annotations

from postern_core.authentication import Result

__all__ = ["Result"]
