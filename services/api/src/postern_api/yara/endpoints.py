"""/yara"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import PlainTextResponse

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.yara import service
from postern_api.yara.compiling import checked_rules
from postern_api.yara.schemas import YaraFileView, YaraRuleView, YaraUploadView

router = guarded_router("/yara", "engines")

_EXAMPLE = 'rule MacroDropper : macro { strings: $a = "AutoOpen" nocase condition: $a }\n'
_TEXT = {"requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}}}}


@router.get("", responses=declared())
async def list_yara_files(policy: CurrentPolicy) -> list[YaraFileView]:
    """All files of YARA rules, by name."""
    return [YaraFileView.of(file) for file in policy.engines.yara.files]


@router.get(
    "/{name}",
    response_class=PlainTextResponse,
    responses=declared(404) | {200: {"content": {"text/plain": {"example": _EXAMPLE}}}},
)
async def get_yara_file(name: str, policy: CurrentPolicy) -> PlainTextResponse:
    """The text of one."""
    return PlainTextResponse(service.find(policy, name).source)


@router.put("/{name}", responses=declared_change(), openapi_extra=_TEXT)
async def put_yara_file(name: str, request: Request, change: PolicyChange) -> YaraUploadView:
    """Upload a file, or another text for it. 400 `invalid_yara` says which line does not compile; files that include others are refused."""
    file = service.file_from(name, await request.body())
    rules = await checked_rules(file)
    await change.apply("yara.uploaded", f"yara/{name}", lambda draft: service.with_file(draft, file))
    view = YaraFileView.of(file)
    return YaraUploadView(
        name=view.name,
        bytes=view.bytes,
        sha256=view.sha256,
        rules=[YaraRuleView(name=rule.name, tags=list(rule.tags)) for rule in rules],
    )


@router.delete("/{name}", status_code=204, responses=declared_change(404))
async def delete_yara_file(name: str, change: PolicyChange) -> None:
    """Remove a file. Conditions that name its rules hold no more."""
    await change.apply("yara.deleted", f"yara/{name}", lambda draft: service.without_file(draft, name))
