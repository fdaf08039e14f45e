"""The policy that mail is tried under: the one in force, an earlier revision, or one of them with other rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from postern_api.errors import ConflictError, NotFoundError
from postern_api.policy.checks import check
from postern_api.policy.compiling import compile_policy
from postern_api.policy.editing import Editor
from postern_api.policy.expressions import ExpressionCheck
from postern_api.policy.repository import PolicyRepository, Revision
from postern_api.rules.schemas import RuleBody
from postern_api.rules.service import checked_rule_id, rule_from
from postern_core.policy import ScreeningPolicy

_MOST_TOLD: Final = 100
_TOLD_CHARACTERS: Final = 8000


@dataclass(frozen=True, slots=True)
class Draft:
    """What the screener is asked to judge by. `is_draft`: its rules are not those of `policy.revision`."""

    policy: ScreeningPolicy
    is_draft: bool


def told(rules: Sequence[RuleBody]) -> dict[str, Any]:
    """Draft rules for the audit log: what somebody looks for in everybody's mail is not to go unseen, and may be long."""
    shown = msgspec.json.encode([rule.model_dump(mode="json", exclude_defaults=True) for rule in rules[:_MOST_TOLD]]).decode()
    return {"number": len(rules), "text": shown[:_TOLD_CHARACTERS]}


class Drafts:
    def __init__(self, editor: Editor, policy: PolicyRepository) -> None:
        self._editor = editor
        self._policy = policy
        self._expressions = ExpressionCheck()
        self._one_at_a_time = asyncio.Lock()

    async def policy(self, revision: int | None, rules: list[RuleBody] | None) -> Draft:
        """`rules` in place of those of the revision. ApiError when that is no policy."""
        found = await self._revision(revision)
        snapshot = found.snapshot
        if rules is not None:
            drafted = tuple(rule_from(rule, checked_rule_id(rule.id or f"draft-{n}")) for n, rule in enumerate(rules, start=1))
            snapshot = msgspec.structs.replace(snapshot, rules=drafted)
            check(snapshot)
            async with self._one_at_a_time:  # each is a process that may run for seconds
                await self._expressions.check(snapshot)
        compiled = compile_policy(snapshot, found.number)
        if compiled is None:
            raise ConflictError("no_route", "there is no default route yet: nothing is screened before there is one")
        return Draft(compiled.screening, is_draft=rules is not None)

    async def _revision(self, number: int | None) -> Revision:
        if number is None:
            return await self._editor.current()
        found = await self._policy.get(number)
        if found is None:
            raise NotFoundError("revision", str(number))
        return found
