"""Settings of the screener: `POSTERN_*` environment variables."""

from __future__ import annotations

from pydantic import Field

from postern_core.settings import WorkerSettings


class Settings(WorkerSettings):
    """What an administrator may set for one screener."""

    concurrency: int = Field(default=64, ge=1, le=1000, description="Messages in flight in each worker.")
    memory_limit_mib: int = Field(
        default=3072,
        ge=0,
        le=1024 * 1024,
        description="Address space of a worker in MiB; a message that does not fit into it is held as poison. 0: no limit.",
    )
    sandbox_memory_mib: int = Field(
        default=1024,
        ge=256,
        le=1024 * 1024,
        description="Address space in MiB of the process that inspects suspects; the worker's limit, where that is lower. Large HTML may take thirty times its size.",
    )
