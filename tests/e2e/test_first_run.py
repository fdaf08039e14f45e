"""A newcomer's first hour: start, the printed commands, mail through each gate, stop, start again, and something dies in between."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.mail import a_message
from fixtures.stack import POSTERN, Stack, alive, environment, eventually

SERVICES = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    """A stack that the test starts and stops itself."""
    stack = Stack(tmp_path / "var")
    yield stack
    if stack.process is not None and stack.process.poll() is None:
        stack.stop()


def test_endpoints_name_everything_and_every_process_runs(stack: Stack) -> None:
    endpoints = stack.endpoints
    assert set(endpoints) == {
        "anon",
        "auth_starttls",
        "auth_tls",
        "smart_host",
        "api",
        "nats",
        "smart_host_mail",
        "admin_token_file",
        "relay_domains",
        "demo_user",
        "processes",
    }
    assert set(endpoints["processes"]) == {*SERVICES, "nats-server", "smart-host"}
    assert all(alive(pid) for pids in endpoints["processes"].values() for pid in pids)
    for name in ("anon", "auth_starttls", "auth_tls", "smart_host"):
        socket.create_connection(stack.address(name), timeout=10).close()
    assert endpoints["relay_domains"] == ["demo.example", "*.demo.example"]
    assert (stack.state / "endpoints.json").stat().st_mode & 0o077 == 0
    assert stack.state.stat().st_mode & 0o777 == 0o700


def test_the_three_printed_commands_work_when_pasted(stack: Stack, tmp_path: Path) -> None:
    def printed() -> list[str]:
        return [line.strip() for line in stack.output.splitlines() if line.startswith(f"  {shlex.quote(str(POSTERN))} ")]

    # the text comes right behind `endpoints.json`, which is what the start of a stack waits for
    commands = eventually(lambda: printed() if len(printed()) == 3 else None, "the three commands to be printed")
    outputs = []
    for command in commands:
        # in another folder, by a shell, as they are
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        outputs.append(done.stdout)
    clean, caught = (re.search(r"queued as ([0-9a-z]{26})", output) for output in outputs[:2])
    assert clean
    assert caught
    shown = outputs[2]
    assert clean.group(1) in shown
    assert caught.group(1) in shown
    assert "somebody@demo.example was delivered" in shown
    assert "somebody@demo.example was held" in shown
    assert "rule_name=forbidden phrase" in shown
    assert b"Subject: Hello" in stack.arrived(clean.group(1))


@pytest.mark.parametrize("gate", ["anon", "auth_starttls", "auth_tls"])
def test_clean_mail_through_each_gate_arrives_at_the_demo_smart_host(stack: Stack, gate: str) -> None:
    message = a_message(body="Nothing to see.")
    queue_id = stack.send(message, to=["a@demo.example"], gate=gate)
    assert stack.wait_settled([queue_id]) == {queue_id: {"a@demo.example": "delivered"}}
    kept = stack.arrived(queue_id)
    assert kept.endswith(message)
    assert kept.startswith(b"Received: ")
    (envelope,) = (json.loads(path.read_text()) for path in Path(stack.endpoints["smart_host_mail"]).glob(f"*-{queue_id}.json"))
    assert envelope["reverse_path"] == "x@sender.example"
    assert envelope["recipients"] == ["a@demo.example"]


def test_each_demo_rule_catches_something(stack: Stack) -> None:
    program = stack.send(a_message(attachments={"setup.exe": b"MZ"}), to=["a@demo.example"])
    phrase = stack.send(a_message(body="Make MONEY fast"), to=["a@sub.demo.example"])
    rejected = stack.send(a_message(), to=["a@demo.example"], sender="x@bulk.spam.example")
    assert stack.wait_settled([program, phrase, rejected]) == {
        program: {"a@demo.example": "held"},
        phrase: {"a@sub.demo.example": "held"},
        rejected: {"a@demo.example": "deleted"},
    }


def test_the_administrators_commands(stack: Stack) -> None:
    released, forwarded, deleted = (stack.send(a_message(body="make money fast"), to=["a@demo.example"]) for _ in range(3))
    stack.wait_settled([released, forwarded, deleted])
    listed = stack.postern("quarantine", "list")
    assert all(queue_id in listed for queue_id in (released, forwarded, deleted))
    assert json.loads(stack.postern("quarantine", "show", released))["verdict"]["hold_reason"] == "rule"
    assert "make money fast" in stack.postern("quarantine", "show", released, "--raw")
    assert "released" in stack.postern("quarantine", "release", released)
    assert "forwarded to b@demo.example" in stack.postern("quarantine", "forward", forwarded, "b@demo.example")
    assert "deleted" in stack.postern("quarantine", "delete", deleted)
    eventually(
        lambda: (
            stack.wait_settled([released, forwarded, deleted])
            == {
                released: {"a@demo.example": "delivered"},
                forwarded: {"a@demo.example": "forwarded"},
                deleted: {"a@demo.example": "deleted"},
            }
        ),
        "all three to come to their second end",
    )
    assert "a@demo.example was delivered" in stack.postern("trace", released)
    # each replica tells of itself every few seconds
    status = eventually(lambda: told if "not ready" not in (told := stack.postern("status")) else None, "all to be told as ready")
    assert all(service in status for service in SERVICES)
    assert "accepted" in stack.postern("ledger")
    assert "in all" in stack.postern("queue", "list")
    assert "0 changed" in stack.postern("queue", "retry", "--all")
    assert "there is no message" in stack.postern("trace", released[:-1] + "0", check=False)
    assert "exactly one of" in stack.postern("queue", "delete", check=False)


def test_sessions_are_listed_and_ended(stack: Stack) -> None:
    with stack.client("anon") as client:
        client.ehlo("a.client.example")
        listed = stack.postern("sessions", "list", "--gate", "anon", "--client", "127.0.0.0/8")
        line = next(line for line in listed.splitlines() if "a.client.example" in line)
        assert "ready" in line
        session = line.split()[0]
        assert "1 ended" in stack.postern("sessions", "end", session)
        assert client.noop()[0] == 421
    assert "there is no session" in stack.postern("sessions", "end", session, check=False)
    assert "0 ended" in stack.postern("sessions", "end", "--gate", "auth", "--client", "192.0.2.7")
    assert "give a session, or --gate" in stack.postern("sessions", "end", check=False)


def test_send_through_the_authenticated_gate_and_what_the_gate_refuses(stack: Stack, tmp_path: Path) -> None:
    attached = tmp_path / "notes.txt"
    attached.write_text("attached")
    sent = stack.postern("send", "--gate", "auth", "--to", "a@elsewhere.example", "--subject", "Grüße", "--attach", str(attached))
    queue_id = sent.rpartition(" ")[2].strip()
    assert stack.wait_settled([queue_id]) == {queue_id: {"a@elsewhere.example": "delivered"}}
    assert b"notes.txt" in stack.arrived(queue_id)
    assert "refused: 550 5.7.1" in stack.postern("send", "--to", "a@elsewhere.example", check=False)
    assert "no-such-file" in stack.postern("send", "--to", "a@demo.example", "--attach", "no-such-file", check=False)


@pytest.mark.parametrize("service", [*SERVICES, "nats-server", "smart-host"])
def test_a_killed_service_is_started_again_under_a_new_pid_and_mail_flows(stack: Stack, service: str) -> None:
    others = {name: pids for name, pids in stack.endpoints["processes"].items() if name != service}
    stack.kill(service)
    assert {name: pids for name, pids in stack.endpoints["processes"].items() if name != service} == others

    def sent() -> str:
        try:
            return stack.send(a_message(), to=["a@demo.example"])
        except (OSError, AssertionError):
            return ""

    queue_id = eventually(sent, "a gate to take mail")

    def settled() -> dict[str, str] | None:
        if service == "smart-host":  # the message may have met it while it was away
            stack.api.post("/queue/retry", json={"all": True}).raise_for_status()
        return stack.ends(queue_id)

    assert eventually(settled, f"{queue_id} to settle") == {"a@demo.example": "delivered"}


def test_a_second_stack_runs_beside_the_first_and_none_in_the_same_state_directory(stack: Stack, fresh: Stack) -> None:
    assert f"a stack is running in {stack.state} already: stop it, or choose another --state" in stack.postern("up", check=False)
    fresh.start()
    queue_id = fresh.send(a_message(), to=["a@demo.example"])
    assert fresh.wait_settled([queue_id]) == {queue_id: {"a@demo.example": "delivered"}}
    assert stack.api.get(f"/messages/{queue_id}").status_code == 404
    assert fresh.stop() == 0
    assert stack.api.get("/status").status_code == 200


def test_a_port_in_use_is_named_with_its_option(fresh: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        blocked = Stack(fresh.state, options=("--auth-tls", address))
        with pytest.raises(RuntimeError, match=f"--auth-tls {address}: cannot listen there: Address already in use"):
            blocked.start()
        assert blocked.process is not None
        assert blocked.process.wait(10) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(fresh: Stack, number: int) -> None:
    fresh.start()
    pids = [pid for pids in fresh.endpoints["processes"].values() for pid in pids]
    assert fresh.stop(number) == 0
    assert not any(alive(pid) for pid in pids)
    assert not (fresh.state / "endpoints.json").exists()


def test_an_interrupt_before_anything_runs_ends_it_without_a_traceback(fresh: Stack) -> None:
    fresh.launch()
    eventually((fresh.state / "lock").exists, "the command to begin")
    assert fresh.stop() in (0, -signal.SIGINT)
    assert "Traceback" not in fresh.output
    assert not (fresh.state / "endpoints.json").exists()


def test_a_signal_during_the_start_stops_everything(fresh: Stack) -> None:
    fresh.launch()
    log = fresh.state / "logs" / "api.log"
    eventually(log.exists, "the services to be started")
    assert fresh.stop() == 0
    assert not (fresh.state / "endpoints.json").exists()
    fresh.start()


def test_no_process_outlives_a_supervisor_that_is_killed_and_the_next_start_works(fresh: Stack) -> None:
    fresh.start()
    pids = [pid for pids in fresh.endpoints["processes"].values() for pid in pids]
    fresh.stop(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids), "all processes to be gone")
    fresh.start()
    queue_id = fresh.send(a_message(), to=["a@demo.example"])
    assert fresh.wait_settled([queue_id]) == {queue_id: {"a@demo.example": "delivered"}}


def test_queue_quarantine_and_policy_survive_a_restart(fresh: Stack) -> None:
    fresh.start()
    held = fresh.send(a_message(body="make money fast"), to=["a@demo.example"])
    delivered = fresh.send(a_message(), to=["a@demo.example"])
    fresh.wait_settled([held, delivered])
    fresh.api.post("/domains", json={"pattern": "mine.example"}).raise_for_status()
    fresh.set_schedule(3600, expiry_s=86400)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        smart_host = fresh.address("smart_host")[1]
        fresh.lead_default_route_to(nobody.getsockname()[1])
        waiting = fresh.send(a_message(), to=["a@mine.example"])
        eventually(lambda: fresh.api.get(f"/queue/{waiting}").json()["rows"], "the message to be queued")
        before = fresh.endpoints
        assert fresh.stop() == 0

        fresh.start()
        assert {**fresh.endpoints, "processes": None} == {**before, "processes": None}
        assert [row["queue_id"] for row in fresh.api.get("/quarantine").json()["rows"]] == [held]
        row = eventually(lambda: fresh.api.get(f"/queue/{waiting}").json()["rows"], "the queue to be read")[0]
        assert row["attempts"] == 1
        assert fresh.api.get("/domains/mine.example").status_code == 200
        assert fresh.api.get(f"/messages/{delivered}").json()["dispositions"][0]["kind"] == "delivered"
    fresh.lead_default_route_to(smart_host)
    fresh.api.post("/queue/retry", json={"queue_id": waiting}).raise_for_status()
    fresh.api.post(f"/quarantine/{held}/release").raise_for_status()
    assert fresh.arrived(waiting)
    assert fresh.arrived(held)


def test_the_demo_route_follows_the_demo_smart_host(fresh: Stack) -> None:
    fresh.start()
    old = fresh.address("smart_host")
    assert fresh.stop() == 0
    with socket.create_server(old):  # somebody else has the port now: another one is taken
        fresh.start()
        assert fresh.address("smart_host") != old
        queue_id = fresh.send(a_message(), to=["a@demo.example"])
        assert fresh.wait_settled([queue_id]) == {queue_id: {"a@demo.example": "delivered"}}
