"""Settings of the screener: `POSTERN_*` environment variables."""

from __future__ import annotations

from pydantic import Field

from postern_core.settings import BusSettings


class Settings(BusSettings):
    """What an administrator may set for one screener."""

    workers: int = Field(
        default=1, ge=1, le=256, description="Worker processes, each with a broker connection of its own; 1: no extra process."
    )
    concurrency: int = Field(default=32, ge=1, le=1000, description="Messages in flight in each worker.")
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
    supervised: bool = Field(
        default=False, description="Set by the parent of several workers: the worker drains when its standard input ends."
    )
