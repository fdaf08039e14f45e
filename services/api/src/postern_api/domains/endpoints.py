"""/domains"""

from __future__ import annotations

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.domains import service
from postern_api.domains.schemas import DomainBody
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.policy.addresses import checked_pattern

router = guarded_router("/domains", "domains")


@router.get("", responses=declared())
async def list_domains(policy: CurrentPolicy) -> list[DomainBody]:
    """All relay domains."""
    return [DomainBody.of(domain) for domain in policy.domains]


@router.post("", status_code=201, responses=declared_change())
async def add_domain(body: DomainBody, change: PolicyChange) -> DomainBody:
    """Add a relay domain. The gates take mail for it as soon as the revision is live."""
    domain = body.to_object()
    await change.apply("domain.added", f"domains/{domain.pattern}", lambda snapshot: service.add(snapshot, domain))
    return DomainBody.of(domain)


@router.get("/{pattern}", responses=declared(400, 404))
async def get_domain(pattern: str, policy: CurrentPolicy) -> DomainBody:
    """One relay domain."""
    return DomainBody.of(service.find(policy, checked_pattern(pattern)))


@router.put("/{pattern}", responses=declared_change(404))
async def replace_domain(pattern: str, body: DomainBody, change: PolicyChange) -> DomainBody:
    """Change a relay domain."""
    domain = body.to_object()
    if domain.pattern != checked_pattern(pattern):
        raise InvalidError("name_differs", "the pattern in the body is not the one in the address; a domain cannot be renamed")
    await change.apply("domain.changed", f"domains/{domain.pattern}", lambda snapshot: service.replace(snapshot, domain))
    return DomainBody.of(domain)


@router.delete("/{pattern}", status_code=204, responses=declared_change(404))
async def delete_domain(pattern: str, change: PolicyChange) -> None:
    """Remove a relay domain: the gates refuse mail for it from then on. What was accepted before still goes its way."""
    name = checked_pattern(pattern)
    await change.apply("domain.deleted", f"domains/{name}", lambda snapshot: service.remove(snapshot, name))
