"""/users/{name}/app-passwords"""

from __future__ import annotations

from typing import Final

from postern_api.access import Reader, guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import InContext
from postern_api.errors import InvalidError, NotFoundError, declared, declared_change
from postern_api.fields import Identity
from postern_api.policy.app_passwords import new_app_password
from postern_api.policy.credentials import AppPasswordRevoked, NewAppPassword, hash_password
from postern_api.policy.objects import Snapshot
from postern_api.users import service
from postern_api.users.schemas import AppPasswordBody, AppPasswordView, IssuedAppPassword

router = guarded_router("/users/{name}/app-passwords", "users")

MAX_OF_A_USER: Final = 100


@router.get("", responses=declared(404))
async def list_app_passwords(name: str, context: InContext, policy: CurrentPolicy, _: Reader) -> list[AppPasswordView]:
    """A user's app-passwords, without their text."""
    user = service.find(policy, name)
    await context.accounts.note_uses()
    return [AppPasswordView.of(stored) for stored in await context.policy.app_passwords.of(user.name)]


@router.post("", status_code=201, responses=declared_change(404))
async def issue_app_password(name: str, body: AppPasswordBody, change: PolicyChange) -> IssuedAppPassword:
    """One more password of a user, made here. Its text is in this answer and nowhere else: only an Argon2id hash is kept."""
    context = change.context
    user = service.find((await context.editor.current()).snapshot, name)
    if user.name.casefold() not in await context.policy.password_hashes():
        raise InvalidError("password_missing", "a rollback brought this user back without a password: set one first")
    if len(await context.policy.app_passwords.of(user.name)) >= MAX_OF_A_USER:
        raise InvalidError("too_many", f"a user has at most {MAX_OF_A_USER} app-passwords")
    password_id, text = new_app_password()
    credential = NewAppPassword(password_id, user.name, body.name, await hash_password(text))
    target = f"users/{user.name}/app-passwords/{password_id}"

    def still_there(snapshot: Snapshot) -> Snapshot:
        service.find(snapshot, user.name)
        return snapshot

    await change.apply("user.app_password_issued", target, still_there, [credential])
    stored = {each.id: each for each in await context.policy.app_passwords.of(user.name)}
    if password_id not in stored:
        raise NotFoundError("app_password", password_id)
    return IssuedAppPassword(**AppPasswordView.of(stored[password_id]).model_dump(), password=text)


@router.delete("/{password_id}", status_code=204, responses=declared_change(404))
async def revoke_app_password(name: str, password_id: Identity, change: PolicyChange) -> None:
    """Revoke one: no login with it works from now on, and within half a minute nothing more is taken in sessions that it opened."""
    context = change.context
    user = service.find((await context.editor.current()).snapshot, name)
    if all(each.id != password_id for each in await context.policy.app_passwords.of(user.name)):
        raise NotFoundError("app_password", password_id)
    target = f"users/{user.name}/app-passwords/{password_id}"
    await change.apply("user.app_password_revoked", target, lambda snapshot: snapshot, [AppPasswordRevoked(password_id)])
