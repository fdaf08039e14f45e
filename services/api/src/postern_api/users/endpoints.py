"""/users"""

from __future__ import annotations

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import Context, InContext
from postern_api.errors import ConflictError, InvalidError, declared, declared_change
from postern_api.policy.credentials import CredentialChange, UserGone, new_password
from postern_api.policy.objects import Snapshot, UserObject
from postern_api.users import service
from postern_api.users.schemas import UserBody, UserView

router = guarded_router("/users", "users")


async def _view(context: Context, user: UserObject) -> UserView:
    known = await context.policy.password_hashes()
    return UserView.of(user, password_set=user.name.casefold() in known)


@router.get("", responses=declared())
async def list_users(context: InContext, policy: CurrentPolicy) -> list[UserView]:
    """All SMTP users."""
    known = await context.policy.password_hashes()
    return [UserView.of(user, password_set=user.name.casefold() in known) for user in policy.users]


@router.post("", status_code=201, responses=declared_change())
async def add_user(body: UserBody, change: PolicyChange) -> UserView:
    """Add an SMTP user. The password is kept as an Argon2id hash and a SCRAM-SHA-256 verifier only."""
    user = body.to_object()
    if not body.password:
        raise InvalidError("password_missing", "a new user needs a password")
    if any(each.name.casefold() == user.name.casefold() for each in (await change.context.editor.current()).snapshot.users):
        raise ConflictError("user_exists", f"there is a user {user.name!r} already")
    credential = await new_password(user.name, body.password)
    await change.apply("user.added", f"users/{user.name}", lambda snapshot: service.add(snapshot, user), [credential])
    return UserView.of(user, password_set=True)


@router.get("/{name}", responses=declared(404))
async def get_user(name: str, context: InContext, policy: CurrentPolicy) -> UserView:
    """One SMTP user."""
    return await _view(context, service.find(policy, name))


@router.put("/{name}", responses=declared_change(404))
async def replace_user(name: str, body: UserBody, change: PolicyChange) -> UserView:
    """Change an SMTP user, or set a new password."""
    user = body.to_object()
    if user.name.casefold() != name.casefold():
        raise InvalidError("name_differs", "the name in the body is not the one in the address; a user cannot be renamed")
    service.find((await change.context.editor.current()).snapshot, name)
    credentials: list[CredentialChange] = []
    if body.password:
        credentials.append(await new_password(user.name, body.password))

    def edit(snapshot: Snapshot) -> Snapshot:
        return service.replace(snapshot, user)

    action = "user.password_changed" if body.password else "user.changed"
    await change.apply(action, f"users/{user.name}", edit, credentials)
    return await _view(change.context, user)


@router.delete("/{name}", status_code=204, responses=declared_change(404))
async def delete_user(name: str, change: PolicyChange) -> None:
    """Remove an SMTP user. His passwords are forgotten: a rollback brings the name back, not them."""
    await change.apply("user.deleted", f"users/{name}", lambda snapshot: service.remove(snapshot, name), [UserGone(name)])
