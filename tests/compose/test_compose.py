"""The real Compose stack: up, mail through both gates, scale, a container that dies, what a container may not do, down."""

from __future__ import annotations

import contextlib
import json

import pytest

from fixtures.containers import ContainerStack
from fixtures.mail import a_message

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

SERVICES = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")
LASTING = (*SERVICES, "nats", "postgres", "demo-smart-host")
ONE_SHOT = ("init", "provision", "demo-policy")
NETWORKS = {
    "ingress-anon": {"edge", "bus"},
    "ingress-auth": {"edge", "bus"},
    "screener": {"bus", "engines"},
    "delivery": {"edge", "bus", "database"},
    "api": {"edge", "bus", "database"},
    "nats": {"bus"},
    "postgres": {"database"},
}
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
# the service itself is the child of the container's init
KILL_MAIN = """
import os, pathlib, signal
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
    if parent == 1 and pid != os.getpid() and b"postern_" in (stat.parent / "cmdline").read_bytes():
        os.kill(pid, signal.SIGKILL)
"""


def test_everything_is_healthy_after_up(stack: ContainerStack) -> None:
    for service in LASTING:
        (container,) = stack.containers(service)
        assert container["State"]["Health"]["Status"] == "healthy", service
    for service in ONE_SHOT:
        (container,) = stack.containers(service)
        assert (container["State"]["Status"], container["State"]["ExitCode"]) == ("exited", 0), service


def test_no_container_may_more_than_it_needs(stack: ContainerStack) -> None:
    for container in stack.containers():
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"] == "10001:10001", name
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Privileged"] is False, name
        assert not [bind for bind in host["Binds"] or () if "docker.sock" in bind], name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_write_only_where_it_should(stack: ContainerStack, service: str) -> None:
    program = """
import os
for folder in ("/", "/opt/postern", "/etc", "/run", "/run/secrets", "/tmp"):
    try:
        open(os.path.join(folder, "written"), "w").close()
        print(folder)
    except OSError:
        pass
"""
    assert stack.python(service, program).split() == ["/tmp"]


def test_a_service_sees_the_secrets_of_no_other(stack: ContainerStack) -> None:
    extra = {"ingress-auth": {"tls"}, "api": {"admin"}}
    for service in SERVICES:
        seen = json.loads(stack.python(service, "import os, json; print(json.dumps(os.listdir('/run/secrets')))"))
        assert set(seen) == {service} | extra.get(service, set())


def test_services_are_on_their_networks_only(stack: ContainerStack) -> None:
    for service, networks in NETWORKS.items():
        (container,) = stack.containers(service)
        assert set(container["NetworkSettings"]["Networks"]) == {f"{stack.project}_{name}" for name in networks}


def test_what_is_not_on_the_database_network_cannot_reach_the_database(stack: ContainerStack) -> None:
    (postgres,) = stack.containers("postgres")
    address = postgres["NetworkSettings"]["Networks"][f"{stack.project}_database"]["IPAddress"]
    for service in ("ingress-anon", "ingress-auth", "screener"):
        for host in ("postgres", address):
            assert stack.python(service, CONNECT, host, "5432").strip() != "connected", (service, host)
    for service in ("delivery", "api"):
        assert stack.python(service, CONNECT, "postgres", "5432").strip() == "connected", service


def test_the_screener_reaches_nothing_but_the_bus(stack: ContainerStack) -> None:
    (smart_host,) = stack.containers("demo-smart-host")
    edge = smart_host["NetworkSettings"]["Networks"][f"{stack.project}_edge"]
    assert stack.python("screener", CONNECT, edge["IPAddress"], "2626").strip() != "connected"
    assert stack.python("delivery", CONNECT, edge["IPAddress"], "2626").strip() == "connected"
    assert stack.python("screener", CONNECT, "nats", "4222").strip() == "connected"
    # no way out of the machine
    assert [name for name in ("edge", "bus", "database") if stack.network(name)["Internal"]] == ["bus", "database"]


def test_each_database_role_reaches_its_own_database_only(stack: ContainerStack) -> None:
    program = """
import asyncio, asyncpg, os
async def main():
    password = open("/run/secrets/delivery/database.password").read().strip()
    for database in ("queue", "control", "postgres"):
        try:
            connection = await asyncpg.connect(user="queue", password=password, host="postgres", database=database)
            await connection.close()
            print(database)
        except asyncpg.PostgresError:
            pass
asyncio.run(main())
"""
    assert stack.python("delivery", program).split() == ["queue"]


def test_clean_mail_through_the_anonymous_gate_arrives_byte_for_byte(stack: ContainerStack) -> None:
    message = a_message(body="Clean.\r\n.\r\n..leading dots\r\nend")
    queue_id = stack.send(message, "somebody@demo.example")
    assert stack.wait_arrived([queue_id]).count(queue_id) == 1
    received = stack.arrived_bytes(queue_id)
    assert received.endswith(message)
    assert received[: -len(message)].startswith(b"Received: from ")


@pytest.mark.parametrize("gate", ["auth_starttls", "auth_tls"])
def test_mail_through_the_authenticated_gate_goes_to_any_domain(stack: ContainerStack, gate: str) -> None:
    queue_id = stack.send(a_message(), "somebody@elsewhere.example", gate)
    assert stack.wait_arrived([queue_id]).count(queue_id) == 1


def test_the_gates_differ(stack: ContainerStack) -> None:
    with stack.client("anon") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        assert client.docmd("RCPT", "TO:<somebody@elsewhere.example>")[0] == 550
    with stack.client("auth_starttls") as client:
        client.ehlo()
        assert client.docmd("MAIL", "FROM:<x@sender.example>")[0] == 530


def test_a_rule_holds_mail_and_the_api_shows_it(stack: ContainerStack) -> None:
    queue_id = stack.send(a_message(body="Make money fast!"), "somebody@demo.example")
    with stack.api() as api:
        held = stack.wait(lambda: api.get(f"/quarantine/{queue_id}").status_code == 200, "the message to be held")
        assert held
    assert queue_id not in stack.arrived()


def test_three_screeners_work_and_the_engine_starts_again_what_dies(stack: ContainerStack) -> None:
    """What becomes of mail when containers die, are frozen or cut off is in test_chaos_in_containers.py; there, the engine is told to start them."""
    stack.up(screeners=3)
    with stack.api() as api:
        stack.wait(
            lambda: len([each for each in api.get("/status").json()["replicas"] if each["service"] == "screener"]) == 3,
            "three screeners to report",
        )
    sent = [stack.send(a_message(), "somebody@demo.example") for _ in range(20)]
    for service in ("delivery", "screener"):
        with contextlib.suppress(RuntimeError):  # our program ends with the container
            stack.python(service, KILL_MAIN)
    sent += [stack.send(a_message(), "somebody@demo.example") for _ in range(20)]
    stack.wait_arrived(sent)
    restarts = {service: stack.wait(lambda s=service: stack.restarts(s), f"{service} to be started") for service in SERVICES[2:4]}
    assert restarts == {"delivery": 1, "screener": 1}
    with stack.api() as api:
        stack.wait(lambda: api.get("/ledger").raise_for_status().json()["total"]["in_flight"] == 0, "the ledger to balance")


def test_mail_survives_down_and_up(stack: ContainerStack) -> None:
    token = stack.token
    stack.compose("stop", "delivery")
    waiting = [stack.send(a_message(), "somebody@demo.example") for _ in range(5)]
    stack.down()
    assert stack.compose("ps", "--all", "--quiet") == ""
    stack.up()
    stack.wait_arrived(waiting)
    assert stack.token == token
    with stack.api() as api:
        # the demonstration's policy was not entered a second time
        assert sorted(rule["name"] for rule in api.get("/rules").raise_for_status().json()) == [
            "forbidden phrase",
            "programs",
            "rejected senders",
        ]


def test_everything_stops_on_sigterm_with_success(stack: ContainerStack) -> None:
    stack.up(screeners=1)
    stack.compose("stop")
    for service in (*SERVICES, "postgres"):
        (container,) = stack.containers(service)
        assert container["State"]["ExitCode"] == 0, service
        assert container["State"]["OOMKilled"] is False, service
    stack.up()
