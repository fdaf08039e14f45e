"""/listeners/{gate}, and a resource below it for each of its parts"""

# No postponed annotations here: an endpoint is made for each part, with the part's own body.

from typing import Any

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import InContext
from postern_api.errors import declared, declared_change
from postern_api.listeners.parts import PARTS, GateName, ListenerBody, Part

router = guarded_router("/listeners", "listeners")


@router.get("", responses=declared())
async def list_listeners(policy: CurrentPolicy, context: InContext) -> list[ListenerBody]:
    """Both gates with all their parts, and where their replicas listen."""
    return [
        ListenerBody(
            gate=gate,
            parts={part.name: part.read(policy, gate).model_dump(mode="json") for part in PARTS},
            listens=context.status.listening(f"ingress-{gate}"),
        )
        for gate in GateName
    ]


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
