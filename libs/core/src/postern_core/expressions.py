"""Regular expressions that administrators write: compiled by hyperscan, whose time to match is linear in the text whatever they say.

They are matched against folded text in UTF-8 (docs/reference/screening.md). Back-references and look-around are not in their language, nor
is one that matches nothing at all; what does not compile is told before it is in force: the api runs this module as a program

    python -m postern_core.expressions < a JSON list of expressions

that answers {} or {"index": …, "error": …}. It is a process of its own since compiling is native code that an expression can keep busy, and since the
api then needs no compiler in its memory.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import hyperscan

MAX_EXPRESSIONS: Final = 1000  # of all rules together
MAX_EXPRESSION_CHARACTERS: Final = 500
MAX_DATABASE_BYTES: Final = 32 * 1024 * 1024
COMPILE_CPU_S: Final = 10
_COMPILE_BYTES: Final = 1024 * 1024 * 1024


def compile_expressions(expressions: Sequence[str], *, with_start: bool = False) -> hyperscan.Database:
    """One database; it reports an expression by its place in `expressions`: once for each text, or, `with_start`, each match with both of its
    ends. ValueError when they do not compile."""
    import hyperscan

    flags = hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_MULTILINE
    # one report a scan: an expression that matches everywhere costs no more than others
    flags |= hyperscan.HS_FLAG_SOM_LEFTMOST if with_start else hyperscan.HS_FLAG_SINGLEMATCH
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[expression.encode("utf-8", "replace") for expression in expressions],
            ids=list(range(len(expressions))),
            elements=len(expressions),
            flags=[flags] * len(expressions),
        )
    except hyperscan.error as error:
        raise ValueError(str(error).rstrip(".")) from error
    return database


class Complaint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with a list of expressions; `error` is empty when nothing is."""

    index: int = -1  # of the one that does not compile; -1: it is all of them together
    error: str = ""


def complaint_about(expressions: Sequence[str]) -> Complaint:
    """Of the first that does not compile."""
    for index, expression in enumerate(expressions):
        try:
            compile_expressions([expression])
        except ValueError as error:
            return Complaint(index=index, error=str(error))
    if not expressions:
        return Complaint()
    try:
        size = compile_expressions(expressions).size()
    except ValueError as error:
        return Complaint(error=str(error))
    if size > MAX_DATABASE_BYTES:
        return Complaint(error=f"together they take {size} bytes of memory, at most {MAX_DATABASE_BYTES} are possible")
    return Complaint()


def main() -> int:
    """The program; see the module."""
    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_CPU_S, COMPILE_CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_COMPILE_BYTES, _COMPILE_BYTES))
    expressions = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    sys.stdout.buffer.write(msgspec.json.encode(complaint_about(expressions)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
