"""/listeners/{gate}, a resource below it for each of its parts, and /presets"""

# No postponed annotations here: an endpoint is made for each part, with the part's own body.

from typing import Any

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import Context, InContext
from postern_api.errors import declared, declared_change
from postern_api.listeners.parts import PARTS, GateName, ListenerBody, Part
from postern_api.listeners.presets import PRESETS, PresetBody, PresetChoice
from postern_api.policy.objects import Snapshot

router = guarded_router("/listeners", "listeners")
presets = guarded_router("/presets", "listeners")


@router.get("", responses=declared())
async def list_listeners(policy: CurrentPolicy, context: InContext) -> list[ListenerBody]:
    """Both gates with all their parts, and where their replicas listen."""
    return [_shown(policy, gate, context) for gate in GateName]


@presets.get("", responses=declared())
async def list_presets(_: CurrentPolicy) -> list[PresetBody]:
    """Sets of limits and SMTP filter that a gate can be given at once."""
    return [PresetBody.of(name) for name in PRESETS]


@router.put("/{gate}/preset", responses=declared_change())
async def apply_preset(gate: GateName, body: PresetChoice, change: PolicyChange) -> ListenerBody:
    """Replace the parts limits and commands of a gate by those of a preset; the others stay."""
    preset = PRESETS[body.preset]
    applied = await change.apply("listener.changed", f"listeners/{gate}/preset", lambda snapshot: preset.applied(snapshot, gate))
    return _shown(applied.snapshot, gate, change.context)


def _shown(policy: Snapshot, gate: GateName, context: Context) -> ListenerBody:
    return ListenerBody(
        gate=gate,
        parts={part.name: part.read(policy, gate).model_dump(mode="json") for part in PARTS},
        listens=context.status.listening(f"ingress-{gate}"),
        unbound=context.status.unbound(f"ingress-{gate}"),
    )


def _add(part: Part) -> None:
    body_type = part.body

    async def get_part(gate: GateName, policy: CurrentPolicy) -> Any:
        return part.read(policy, gate)

    async def replace_part(gate: GateName, body: body_type, change: PolicyChange) -> Any:  # type: ignore[valid-type]
        wanted = body.to_object()  # type: ignore[attr-defined]
        await change.apply(
            "listener.changed", f"listeners/{gate}/{part.name}", lambda snapshot: part.write(snapshot, gate, wanted)
        )
        return body_type.of(wanted)

    address, of = f"/{{gate}}/{part.name}", f"listener_{part.name}"
    router.get(
        address,
        name=f"get_{of}",
        response_model=body_type,
        summary=f"Get the part {part.name} of a gate",
        description=part.about,
        responses=declared(),
    )(get_part)
    router.put(
        address,
        name=f"replace_{of}",
        response_model=body_type,
        summary=f"Replace the part {part.name} of a gate",
        description=f"{part.about} Sessions and transactions that begin from then on have it.",
        responses=declared_change(),
    )(replace_part)


for _part in PARTS:
    _add(_part)
