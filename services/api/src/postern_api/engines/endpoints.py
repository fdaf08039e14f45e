"""/engines"""

from __future__ import annotations

import msgspec

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import InContext
from postern_api.engines.schemas import ClamdBody, EnginesView, RspamdBody, WaitingBody, YaraBody
from postern_api.errors import declared, declared_change
from postern_api.policy.objects import Snapshot
from postern_core.policy import Engines

router = guarded_router("/engines", "engines")


@router.get("", responses=declared())
async def get_engines(policy: CurrentPolicy, context: InContext) -> EnginesView:
    """What the screener asks besides its own rules, and how each of them is."""
    return EnginesView.of(policy.engines, context.status.reports())


@router.put("/clamd", responses=declared_change())
async def replace_clamd(body: ClamdBody, change: PolicyChange) -> ClamdBody:
    """Switch virus scanning on or off, and say what follows. 409 while a rule needs what is switched off."""
    clamd = body.to_object()
    await change.apply("engine.changed", "engines/clamd", lambda draft: _with(draft, clamd=clamd))
    return ClamdBody.of(clamd)


@router.put("/rspamd", responses=declared_change())
async def replace_rspamd(body: RspamdBody, change: PolicyChange) -> RspamdBody:
    """Switch the spam score on or off. 409 while a rule needs what is switched off."""
    rspamd = body.to_object()
    await change.apply("engine.changed", "engines/rspamd", lambda draft: _with(draft, rspamd=rspamd))
    return RspamdBody.of(rspamd)


@router.put("/yara", responses=declared_change())
async def replace_yara(body: YaraBody, change: PolicyChange) -> YaraBody:
    """Switch YARA on or off; its files stay. 409 while a rule needs what is switched off."""

    def edit(draft: Snapshot) -> Snapshot:
        return _with(draft, yara=msgspec.structs.replace(draft.engines.yara, **body.model_dump()))

    await change.apply("engine.changed", "engines/yara", edit)
    return body


@router.put("/waiting", responses=declared_change())
async def replace_waiting(body: WaitingBody, change: PolicyChange) -> WaitingBody:
    """How long mail waits for an engine that fails, before it is held."""
    await change.apply("engine.changed", "engines/waiting", lambda draft: _with(draft, hold_after_s=body.hold_after_s))
    return body


def _with(snapshot: Snapshot, **changes: object) -> Snapshot:
    engines: Engines = msgspec.structs.replace(snapshot.engines, **changes)
    return msgspec.structs.replace(snapshot, engines=engines)
