"""The Compose stack under chaos: containers are killed, frozen, restarted and cut off from their networks by the engine.

Two replicas each of screener and delivery, PostgreSQL, and the demonstration's smart host, which keeps what it gets as files and takes
everything: so no mail of the load is refused behind us, and nothing is bounced.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx

from chaos.faults import change_policy
from chaos.schedule import COMPOSE, Kind, PlannedFault
from chaos.target import Arrival
from chaos.timeline import ON_THE_WAY
from fixtures.administered import AdministeredStack
from fixtures.containers import ContainerStack
from fixtures.stack import eventually

_SMART_HOST = "demo-smart-host-1"
_ENGINE_S = 120.0  # for one command to the engine
_RECOVERY_S = 120.0
# every envelope that came to the smart host; only what is whole has an .eml, which comes after its .json
_ENVELOPES = """
import json, pathlib
for mail in pathlib.Path("/mail").glob("*.eml"):
    envelope = json.loads(mail.with_suffix(".json").read_text())
    print(json.dumps([envelope[name] for name in ("received_at", "reverse_path", "recipients", "queue_id")]))
"""


class ContainerTarget(AdministeredStack):
    """See `chaos.target.Target`. `stack` is built and may run already; it is the caller's to stop. A container is named by its service and a
    number, as in `screener-2`."""

    menu = COMPOSE
    refuses = False
    sample_every_s = 2.0

    def __init__(self, stack: ContainerStack, state: Path) -> None:
        super().__init__(state)
        self._stack = stack
        self._begun = time.time()

    # --- life

    def start(self) -> None:
        """Returns when all of it is ready and mail for relay.example is taken."""
        self._stack.up(screeners=2, deliveries=2)
        self.tls_context = self._stack.tls_context()
        self.state.mkdir(parents=True)
        (self.state / "admin-token").write_text(self._stack.token)
        addresses = {name: f"{host}:{port}" for name, (host, port) in self._stack.ports.items()}
        endpoints = addresses | {
            "api": f"http://{addresses['api']}",
            "admin_token_file": str(self.state / "admin-token"),
            "demo_user": {"name": "demo", "password": self._stack.demo_password()},
        }
        (self.state / "endpoints.json").write_text(json.dumps(endpoints))  # where `postern` looks, too
        if "relay.example" not in [each["pattern"] for each in self.api.get("/domains").raise_for_status().json()]:
            self.api.post("/domains", json={"pattern": "relay.example"}).raise_for_status()
        self._wait_well()

    def stop(self, number: int = 0) -> int:
        """Closes what was opened here; the containers run on."""
        if self._api is not None:
            self._api.close()
            self._api = None
        return 0

    # --- the smart host

    @contextmanager
    def recipient_refused(self, recipient: str) -> Iterator[None]:
        yield

    def arrivals(self) -> list[Arrival]:
        to_monotonic_s = time.monotonic() - time.time()
        found = []
        for line in self._stack.python("demo-smart-host", _ENVELOPES).splitlines():
            received_at, reverse_path, recipients, queue_id = json.loads(line)
            at_s = datetime.fromisoformat(received_at).timestamp()
            if at_s >= self._begun:
                found.append(Arrival(at_s + to_monotonic_s, reverse_path, tuple(recipients), queue_id, frozenset()))
        return found

    def arrived_count(self) -> int | None:
        with contextlib.suppress(RuntimeError):  # it is down
            return self._docker("exec", self._named(_SMART_HOST), "ls", "/mail").count(".eml\n")
        return None

    def backlog(self) -> int | None:
        try:
            streams = self.api.get("/status", timeout=2).raise_for_status().json()["streams"]
        except httpx.HTTPError:
            return None
        return None if streams is None else sum(each["messages"] for each in streams if each["name"] in ON_THE_WAY)

    # --- misfortune

    def strike(self, fault: PlannedFault) -> None:
        targets = [self._named(target) for target in fault.targets]
        match fault.kind:
            case Kind.KILL | Kind.KILL_SEVERAL | Kind.BROKER_KILL | Kind.DATABASE_KILL:
                self._docker("kill", "--signal", "KILL", *targets)
                self._docker("start", *targets)  # after `docker kill` the engine does not do that by itself
            case Kind.PAUSE | Kind.BROKER_PAUSE | Kind.DATABASE_PAUSE:
                self._docker("pause", *targets)
                time.sleep(fault.for_s)
                self._docker("unpause", *targets)
            case Kind.BROKER_RESTART | Kind.DATABASE_RESTART | Kind.ROLLING_RESTART:
                self._docker("restart", *targets)  # one after another, each stopped by SIGTERM and given its time
            case Kind.NETWORK_CUT:
                self._cut(*fault.targets, for_s=fault.for_s)
            case Kind.SMART_HOST_DOWN:
                self._docker("kill", "--signal", "KILL", self._named(_SMART_HOST))
                time.sleep(fault.for_s)
                self._docker("start", self._named(_SMART_HOST))
            case Kind.POLICY_CHANGE:
                change_policy(self)
            case _:
                raise ValueError(f"the Compose stack has no {fault.kind}")
        self._wait_well()

    def _cut(self, target: str, network: str, *, for_s: float) -> None:
        """Take the container off the network, and plug it in again under the name that the others know it by."""
        container, named = self._named(target), f"{self._stack.project}_{network}"
        self._docker("network", "disconnect", named, container)
        time.sleep(for_s)
        self._docker("network", "connect", "--alias", target.rpartition("-")[0], named, container)

    def _named(self, target: str) -> str:
        return f"{self._stack.project}-{target}"

    def _docker(self, *arguments: str) -> str:
        """Standard output of a command of the engine. RuntimeError with what it said when it fails."""
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=_ENGINE_S)
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _wait_well(self) -> None:
        """Return when every replica has said, after now, that it is ready, and the broker answers the api."""
        expected = Counter(name.rpartition("-")[0] for name in self.menu.processes)
        since = time.time()

        def well() -> bool:
            answer = self.api.get("/status")
            if answer.is_error:
                return False  # the api without its database, say
            status = answer.json()
            heard = Counter(
                each["service"]
                for each in status["replicas"]
                if each["ready"] and datetime.fromisoformat(each["at"]).timestamp() > since
            )
            return status["streams"] is not None and expected <= heard

        eventually(well, "every replica to be ready again", _RECOVERY_S)
