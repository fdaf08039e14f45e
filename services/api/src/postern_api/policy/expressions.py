"""Whether the regular expressions of a draft compile: asked of a process of its own (`postern_core.expressions`), within bounds of time and memory,
before the draft is saved. What was asked once and found well is not asked again, so that other changes wait for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from postern_api.errors import InvalidError, UnavailableError
from postern_api.policy.list_checks import criteria_of
from postern_api.policy.objects import Snapshot
from postern_core.expressions import MAX_EXPRESSIONS, Complaint
from postern_core.policy import HeaderCondition, HeaderMatch, KeywordCondition, ListKind

_PATIENCE_S: Final = 30.0


class ExpressionCheck:
    """Remembers the expressions that compiled together last."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    async def check(self, draft: Snapshot) -> None:
        """InvalidError names the first that does not compile; UnavailableError when it cannot be told."""
        expressions = list(dict.fromkeys(_expressions(draft)))
        if self._known.issuperset(expressions):
            return
        if len(expressions) > MAX_EXPRESSIONS:
            raise InvalidError("too_many", f"{len(expressions)} regular expressions: at most {MAX_EXPRESSIONS} are possible")
        complaint = await _ask(expressions)
        if complaint.error:
            which = f"expression {expressions[complaint.index]!r}" if complaint.index >= 0 else "the regular expressions"
            raise InvalidError("invalid_expression", f"{which}: {complaint.error}")
        self._known = frozenset(expressions)


def _expressions(draft: Snapshot) -> Iterator[str]:
    """Those of rules that are off, too: they may be on next time, and were told to be well."""
    for rule in draft.rules:
        for criterion in criteria_of(rule):
            match criterion:
                case KeywordCondition(expressions=own) | HeaderCondition(match=HeaderMatch.REGEX, values=own):
                    yield from own
                case _:
                    pass
    for each in draft.lists:
        if each.kind is ListKind.EXPRESSIONS:
            yield from each.values


async def _ask(expressions: list[str]) -> Complaint:
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postern_core.expressions", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            answer, _ = await program.communicate(msgspec.json.encode(expressions))
    except TimeoutError:
        return Complaint(error="they take too long to compile")
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.wait()
    if program.returncode == 0:
        return msgspec.json.decode(answer, type=Complaint)
    if program.returncode is not None and program.returncode < 0:
        # by its limit of CPU time, or by a fault of the compiler: not one that screeners should meet
        return Complaint(error="they are too complex: the compiler did not come to an end")
    raise UnavailableError(
        "compiler_unavailable", "whether regular expressions compile cannot be told: their compiler does not start"
    )
