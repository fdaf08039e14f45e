"""The state directory of an embedded stack: what lies where, readable by its owner alone.

endpoints.json              where everything is, as long as all of it runs
addresses.json              where everything was at the last start
bootstrap.json              the demo policy, which the api takes while it has none
nats/nats.conf, nats/store  the broker
queue.db, control.db        the databases of delivery and api
secrets/, tls/              broker passwords, admin token, the demo user's password; certificate and key
services/<name>/            POSTERN_STATE_DIR of a service, and its ready file
smart-host/                 what the demo smart host received
logs/<name>.log             the output of each process
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postern_core.broker.files import ensure_secret
from postern_core.broker.names import PROVISIONER, SERVICES
from postern_core.errors import ConfigurationError

_LOG_LIMIT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """See the module. `state` is absolute."""

    state: Path

    @property
    def endpoints(self) -> Path:
        return self.state / "endpoints.json"

    @property
    def addresses(self) -> Path:
        return self.state / "addresses.json"

    @property
    def bootstrap(self) -> Path:
        return self.state / "bootstrap.json"

    @property
    def broker_config(self) -> Path:
        return self.state / "nats" / "nats.conf"

    @property
    def broker_store(self) -> Path:
        return self.state / "nats" / "store"

    @property
    def admin_token(self) -> Path:
        return self.state / "secrets" / "admin-token"

    @property
    def demo_password(self) -> Path:
        return self.state / "secrets" / "demo-user.password"

    @property
    def tls(self) -> Path:
        return self.state / "tls"

    @property
    def certificate(self) -> Path:
        return self.tls / "cert.pem"

    @property
    def certificate_key(self) -> Path:
        return self.tls / "key.pem"

    @property
    def smart_host_mail(self) -> Path:
        return self.state / "smart-host"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def database(self, name: str) -> Path:
        return self.state / f"{name}.db"

    def service_dir(self, service: str) -> Path:
        return self.state / "services" / service

    def ready_file(self, service: str) -> Path:
        return self.service_dir(service) / "ready"

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def password_file(self, user: str) -> Path:
        return self.state / "secrets" / f"{user}.password"

    def broker_passwords(self) -> dict[str, str]:
        """The password of every broker user, made up at the first call."""
        return {user: ensure_secret(self.password_file(user)) for user in (*SERVICES, PROVISIONER)}

    def prepare(self) -> None:
        """Make folders and secrets that are not there yet; remove what an earlier run may have left that says `I am running`."""
        folders = (self.state / "secrets", self.broker_store, self.tls, self.smart_host_mail, self.logs)
        for folder in (*folders, *map(self.service_dir, SERVICES)):
            folder.mkdir(parents=True, exist_ok=True)
        self.endpoints.unlink(missing_ok=True)
        for service in SERVICES:
            self.ready_file(service).unlink(missing_ok=True)
        for path in (self.admin_token, self.demo_password):
            ensure_secret(path)
        for log_file in self.logs.glob("*.log"):
            if log_file.stat().st_size > _LOG_LIMIT_BYTES:
                log_file.replace(log_file.with_suffix(".log.1"))


@contextlib.contextmanager
def locked(state: Path) -> Iterator[Layout]:
    """The state directory, made when it is missing, for one stack at a time.

    ConfigurationError when a stack runs in it already, or when it cannot be made or written.
    """
    state = state.resolve()
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        lock = (state / "lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"--state {state}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"a stack is running in {state} already: stop it, or choose another --state") from error
        yield Layout(state)
