"""TLS and AUTH through the API: the listeners' parts, SCRAM verifiers, whose certificate is whose, and what gates say of their certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from postern_core.control import CertificateStatus, ServiceStatus, UnboundAddress
from postern_core.credentials import DECOY_KEY, CertificateOwner, SmtpUser, certificate_key, user_key
from postern_core.policy import (
    Bind,
    CipherFloor,
    GatePolicy,
    ListenerAuthentication,
    ListenerBinds,
    ListenerTls,
    Mechanism,
    TlsUse,
    TlsVersion,
    decode_section,
)
from postern_core.scram import ITERATIONS, parse_verifier, verifier_of

NOW = datetime.now(UTC)


async def gates(api: RunningApi) -> GatePolicy:
    data = await api.bus.kv_get("POLICY", "gates")
    assert data is not None
    return decode_section(data, GatePolicy)


async def stored_user(api: RunningApi, name: str) -> SmtpUser:
    data = await api.bus.kv_get("USERS", user_key(name))
    assert data is not None
    return msgspec.json.decode(data, type=SmtpUser)


async def owner(api: RunningApi, certificate: str) -> str:
    """Whose certificate it is, "" when it is nobody's."""
    data = await api.bus.kv_get("USERS", certificate_key(certificate))
    return msgspec.json.decode(data, type=CertificateOwner).user if data else ""


async def test_tls_and_mechanisms_reach_the_gates(api: RunningApi) -> None:
    defaults = {"use": "auto", "min_version": "1.2", "ciphers": "standard"}
    assert await api.get("/listeners/anon/tls") == defaults
    assert await api.get("/listeners/auth/authentication") == {"mechanisms": ["PLAIN", "LOGIN", "SCRAM-SHA-256", "EXTERNAL"]}
    wanted = {"use": "required", "min_version": "1.3", "ciphers": "256-bit"}
    assert (await api.client.put("/listeners/anon/tls", json=wanted)).raise_for_status().json() == wanted
    only = {"mechanisms": ["SCRAM-SHA-256", "PLAIN", "PLAIN"]}
    shown = (await api.client.put("/listeners/auth/authentication", json=only)).raise_for_status().json()
    assert shown == {"mechanisms": ["SCRAM-SHA-256", "PLAIN"]}
    section = await gates(api)
    assert section.anon_listener.tls == ListenerTls(
        use=TlsUse.REQUIRED, min_version=TlsVersion.TLS_1_3, ciphers=CipherFloor.BITS_256
    )
    assert section.auth_listener.authentication == ListenerAuthentication(mechanisms=(Mechanism.SCRAM_SHA_256, Mechanism.PLAIN))
    assert section.auth_listener.tls == ListenerTls()
    (await api.client.put("/listeners/auth/tls", json={"use": "optional"})).raise_for_status()
    assert (await gates(api)).auth_listener.tls.use is TlsUse.OPTIONAL


async def test_a_password_that_is_set_has_a_scram_verifier_of_its_own(api: RunningApi) -> None:
    demo = parse_verifier((await stored_user(api, "demo")).scram)  # of the bootstrap file
    assert demo == verifier_of("demo-password", salt=demo.salt)
    assert demo.iterations == ITERATIONS
    (await api.client.post("/users", json={"name": "Alice", "password": "wo\u0308rd pass"})).raise_for_status()
    first = parse_verifier((await stored_user(api, "alice")).scram)
    assert first == verifier_of("w\u00f6rd pass", salt=first.salt)
    (await api.client.put("/users/alice", json={"name": "Alice", "enabled": False})).raise_for_status()
    assert parse_verifier((await stored_user(api, "alice")).scram) == first
    (await api.client.put("/users/alice", json={"name": "Alice", "password": "w\u00f6rd pass"})).raise_for_status()
    second = parse_verifier((await stored_user(api, "alice")).scram)
    assert second == verifier_of("w\u00f6rd pass", salt=second.salt)
    assert second.salt != first.salt
    for path in ("/users", "/users/alice", "/revisions/2", "/audit"):
        assert "SCRAM-SHA-256$" not in (await api.client.get(path)).text


async def test_a_password_that_cannot_be_prepared_is_taken_without_a_verifier(api: RunningApi) -> None:
    (await api.client.post("/users", json={"name": "alice", "password": "long enough \ue000"})).raise_for_status()
    assert (await stored_user(api, "alice")).scram == ""
    (await api.client.put("/users/alice", json={"name": "alice", "password": "long enough"})).raise_for_status()
    (await api.client.put("/users/alice", json={"name": "alice", "password": "long enough \ue000"})).raise_for_status()
    user = await stored_user(api, "alice")
    assert user.scram == ""
    assert user.password_hash.startswith("$argon2id$")


async def test_a_certificate_is_one_users_and_nobodys_when_he_is_gone(api: RunningApi) -> None:
    body: dict[str, Any] = {
        "name": "Alice",
        "password": "long enough",
        "certificates": ["Alice@Example.com", "alice@example.com"],
    }
    made = (await api.client.post("/users", json=body)).raise_for_status().json()
    assert made["certificates"] == ["alice@example.com"]
    assert (await stored_user(api, "alice")).certificates == ("alice@example.com",)
    assert await owner(api, "alice@example.com") == "Alice"
    taken = await api.client.post("/users", json=body | {"name": "Bob"})
    assert (taken.status_code, taken.json()["error"]) == (409, "certificate_exists")
    # what was read can be written back
    assert (await api.client.put("/users/alice", json=await api.get("/users/alice"))).json() == made
    (await api.client.put("/users/alice", json={"name": "Alice", "certificates": ["printer 7"]})).raise_for_status()
    assert (await owner(api, "alice@example.com"), await owner(api, "printer 7")) == ("", "Alice")
    (await api.client.delete("/users/alice")).raise_for_status()
    assert await owner(api, "printer 7") == ""


async def test_the_secret_of_the_decoys_stays_the_same(start_api: ApiStarter) -> None:
    first = await start_api(BOOTSTRAP)
    secret = await first.bus.kv_get("USERS", DECOY_KEY)
    assert secret is not None
    assert len(secret) == 32
    (await first.client.post("/users", json={"name": "alice", "password": "long enough"})).raise_for_status()
    second = await start_api()
    (await second.client.delete("/users/alice")).raise_for_status()
    assert await first.bus.kv_get("USERS", DECOY_KEY) == secret


async def test_the_status_shows_certificates_and_when_they_expire(api: RunningApi) -> None:
    bus = await api.broker.connect("ingress-anon")
    report = ServiceStatus(
        service="ingress-anon",
        instance="mx-1",
        started_at=NOW,
        at=datetime.now(UTC),
        ready=True,
        certificates=(
            CertificateStatus(file="/tls/cert.pem", names=("mx.example",), not_after=NOW + timedelta(days=12, hours=1)),
            CertificateStatus(file="/tls/bad.crt", problem="the files as they are cannot be used: x"),
        ),
    )
    await bus.kv_put("STATUS", "ingress-anon.mx-1", msgspec.json.encode(report))

    async def replica() -> Any:
        found = [each for each in (await api.get("/status"))["replicas"] if each["instance"] == "mx-1"]
        return found[0]["certificates"] if found else None

    first, second = await eventually(replica)
    assert (first["file"], first["names"], first["days_left"], first["problem"]) == ("/tls/cert.pem", ["mx.example"], 12, "")
    first_ends = datetime.fromisoformat(first["not_after"])
    assert first_ends == NOW + timedelta(days=12, hours=1)
    assert (second["not_after"], second["days_left"]) == (None, None)
    assert second["problem"] == "the files as they are cannot be used: x"
    metrics = await api.client.get("/metrics")
    assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    good = '{service="ingress-anon",instance="mx-1",file="/tls/cert.pem"}'
    bad = good.replace("cert.pem", "bad.crt")
    assert [line for line in metrics.text.splitlines() if line.startswith("postern_certificate_")] == [
        f"postern_certificate_expiry_timestamp_seconds{good} {first_ends.timestamp()!r}",
        f"postern_certificate_problem{good} 0.0",
        f"postern_certificate_problem{bad} 1.0",
    ]
    await bus.close()


async def test_binds_reach_the_gates_and_what_cannot_listen_is_refused(api: RunningApi) -> None:
    assert await api.get("/listeners/anon/binds") == {"binds": []}
    wanted = {"binds": [{"address": "[2001:DB8::25]", "port": 465, "tls": True}, {"address": "*", "port": 587}]}
    shown = (await api.client.put("/listeners/auth/binds", json=wanted)).raise_for_status().json()
    first, second = {"address": "2001:db8::25", "port": 465, "tls": True}, {"address": "*", "port": 587, "tls": False}
    assert shown == {"binds": [first, second]}
    assert (await gates(api)).auth_listener.binds == ListenerBinds(
        binds=(Bind(address="2001:db8::25", port=465, tls=True), Bind(address="*", port=587))
    )
    for error, gate, *binds in (
        ("invalid_bind", "anon", ("localhost", 25)),
        ("invalid_bind", "anon", ("", 25)),
        ("invalid_bind", "anon", ("224.0.0.1", 25)),
        ("invalid_bind", "anon", ("::ffff:192.0.2.1", 25)),
        ("invalid_bind", "anon", ("fe80::1%eth0", 25)),
        ("binds_overlap", "anon", ("192.0.2.1", 25), ("192.0.2.1", 25)),
        ("binds_overlap", "anon", ("0.0.0.0", 25), ("192.0.2.1", 25)),
        ("binds_overlap", "anon", ("*", 25), ("2001:db8::1", 25)),
        ("wrong_gate", "anon", ("192.0.2.1", 465, True)),
        ("malformed_payload", "anon", ("192.0.2.1", 0)),
        ("malformed_payload", "anon", ("192.0.2.1", 65536)),
    ):
        body = {"binds": [dict(zip(("address", "port", "tls"), bind, strict=False)) for bind in binds]}
        refused = await api.client.put(f"/listeners/{gate}/binds", json=body)
        assert (refused.status_code, refused.json()["error"]) == (422 if error[0] == "m" else 400, error)
    beside = {"binds": [{"address": address, "port": 25} for address in ("0.0.0.0", "::")]}
    (await api.client.put("/listeners/anon/binds", json=beside)).raise_for_status()


async def test_what_a_replica_cannot_open_is_shown_with_its_reason(api: RunningApi) -> None:
    now, bus = datetime.now(UTC), await api.broker.connect("ingress-anon")
    problem = {"address": "0.0.0.0:25", "problem": "Permission denied"}
    for instance, unbound in (("well", ()), ("ill", (UnboundAddress(**problem),))):
        status = ServiceStatus(
            service="ingress-anon", instance=instance, started_at=now, at=now, ready=True, listens=("[::]:25",), unbound=unbound
        )
        await bus.kv_put("STATUS", f"ingress-anon.{instance}", msgspec.json.encode(status))

    async def shown() -> Any:
        return next((listener for listener in await api.get("/listeners") if len(listener["listens"]) == 2), None)

    assert (await eventually(shown))["unbound"] == {"ill": [problem]}
    replicas = (await api.get("/status"))["replicas"]
    assert {each["instance"]: each["unbound"] for each in replicas if each["service"] == "ingress-anon"} == {
        "ill": [problem],
        "well": [],
    }
    await bus.close()
