"""/routes"""

from __future__ import annotations

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import InContext
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.policy.credentials import RoutePasswordGone
from postern_api.routes import service
from postern_api.routes.schemas import RouteBody, RouteView

router = guarded_router("/routes", "routes")


@router.get("", responses=declared())
async def list_routes(context: InContext, policy: CurrentPolicy) -> list[RouteView]:
    """All routes."""
    secret_users = await context.policy.route_users()
    return [RouteView.of(route, secret_users.get(route.name)) for route in policy.routes]


@router.post("", status_code=201, responses=declared_change())
async def add_route(body: RouteBody, change: PolicyChange) -> RouteView:
    """Add a route. The first one becomes the default route."""
    route = body.to_object()
    secret_user = (await change.context.policy.route_users()).get(route.name)
    credentials = service.credential_changes(route, body.password, secret_user)
    applied = await change.apply(
        "route.added", f"routes/{route.name}", lambda snapshot: service.add(snapshot, route), credentials
    )
    return RouteView.of(service.find(applied.snapshot, route.name), route.user)


@router.get("/{name}", responses=declared(404))
async def get_route(name: str, context: InContext, policy: CurrentPolicy) -> RouteView:
    """One route."""
    route = service.find(policy, name)
    return RouteView.of(route, (await context.policy.route_users()).get(name))


@router.put("/{name}", responses=declared_change(404))
async def replace_route(name: str, body: RouteBody, change: PolicyChange) -> RouteView:
    """Change a route. Mail on its way takes the changed route at its next attempt."""
    if body.name != name:
        raise InvalidError("name_differs", "the name in the body is not the one in the address; a route cannot be renamed")
    route = body.to_object()
    service.find((await change.context.editor.current()).snapshot, name)
    secret_user = (await change.context.policy.route_users()).get(name)
    credentials = service.credential_changes(route, body.password, secret_user)
    applied = await change.apply(
        "route.changed", f"routes/{name}", lambda snapshot: service.replace(snapshot, route), credentials
    )
    return RouteView.of(service.find(applied.snapshot, name), route.user)


@router.delete("/{name}", status_code=204, responses=declared_change(404))
async def delete_route(name: str, change: PolicyChange) -> None:
    """Remove a route that no domain takes. Its password is forgotten."""
    service.find((await change.context.editor.current()).snapshot, name)
    credentials = [RoutePasswordGone(name)] if name in await change.context.policy.route_users() else []
    await change.apply("route.deleted", f"routes/{name}", lambda snapshot: service.remove(snapshot, name), credentials)
