"""Settings that every service has: environment variables prefixed `POSTERN_`, files for secrets.

A service's own `Settings` class derives from `BusSettings`, is built once in its `__main__` and passed down. A wrong value
ends the program with a line that names the variable.
"""

from __future__ import annotations

import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

_PREFIX: Final = "POSTERN_"

DEFAULT_INLINE_LIMIT_BYTES: Final = 512 * 1024


class Unconfirmed(StrEnum):
    """What to do when the broker's sync setting cannot be read."""

    REFUSE = "refuse"
    ALLOW = "allow"


def _existing_file(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise ValueError(f"no file at {path}")
    return path


def _existing_folder(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise ValueError(f"no folder at {path}")
    return path


ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
ExistingFolder = Annotated[Path, AfterValidator(_existing_folder)]


class EnvironmentSettings(BaseModel):
    """A field for each variable `POSTERN_<FIELD>`, caseless; what is given to the constructor counts before that.

    pydantic-settings does no more for us, and takes four megabytes of each process: a fifteenth of the whole idle stack.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    def __init__(self, **given: Any) -> None:
        """ValidationError for a value that is wrong."""
        fields = type(self).model_fields
        variables = {name.upper().removeprefix(_PREFIX).lower(): name for name in os.environ if name.upper().startswith(_PREFIX)}
        found = {field: os.environ[name] for field, name in variables.items() if field in fields}
        super().__init__(**found | given)


S = TypeVar("S", bound=EnvironmentSettings)


class BusSettings(EnvironmentSettings):
    """How to reach the broker, and how the program logs."""

    instance: str = Field(
        default_factory=socket.gethostname,
        description="Name of this replica in logs and status; unique among the replicas of a service.",
    )
    nats_url: str = Field(default="nats://127.0.0.1:4222", description="Broker addresses, separated by commas.")
    nats_user: str = Field(default="", description="Broker user of this service.")
    nats_password_file: ExistingFile | None = Field(default=None, description="File with the broker password.")
    nats_ca_file: ExistingFile | None = Field(default=None, description="CA certificates for TLS to the broker.")
    nats_monitor_url: str = Field(
        default="http://127.0.0.1:8222",
        description="Monitoring addresses of every broker, separated by commas: the sync setting is read there.",
    )
    broker_sync_unconfirmed: Unconfirmed = Field(
        default=Unconfirmed.REFUSE,
        description="`allow` starts although no broker confirms sync_interval: always; accepted mail may then be lost.",
    )
    inline_limit_bytes: int = Field(
        default=DEFAULT_INLINE_LIMIT_BYTES,
        ge=1024,
        le=4 * 1024 * 1024,
        description="Bodies over this size travel in BODIES, in bytes.",
    )
    state_dir: Path | None = Field(default=None, description="Folder for the last good policy; none: not kept.")
    ready_file: Path | None = Field(
        default=None, description="File that is kept fresh while the service is ready, for health checks; none: not written."
    )
    drain_s: float = Field(default=8.0, gt=0, le=9, description="Seconds for work in flight after SIGTERM; all ends within ten.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="Least severe log level.")
    log_format: str = Field(default="json", pattern="^(json|text)$", description="One JSON object a line, or text.")

    def nats_password(self) -> SecretStr | None:
        """The password in `nats_password_file`, without the newline at its end."""
        if self.nats_password_file is None:
            return None
        return SecretStr(self.nats_password_file.read_text(encoding="utf-8").strip())


class WorkerSettings(BusSettings):
    """Of services that run as one process or several (workers.py)."""

    workers: int = Field(
        default=1, ge=1, le=256, description="Worker processes, each with a broker connection of its own; 1: no extra process."
    )
    supervised: bool = Field(
        default=False, description="Set by the parent of several workers: the worker drains when its standard input ends."
    )


def load(settings: type[S]) -> S:
    """The settings from the environment; ends the program with exit code 78 (EX_CONFIG) and a clear line when one is wrong."""
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors():
            name = _PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"postern: {name}: {problem['msg']} (got {problem.get('input')!r})", file=sys.stderr)
        raise SystemExit(78) from error
