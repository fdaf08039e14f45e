"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.processes import busy_s

_CPU_S = 2.0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader must know to compare figures with another machine's."""

    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    system: str
    python: str
    filesystem: str  # of the directory in which queues and streams lie
    sync_ms: float  # the median fsync of 4 KB there: what every "durable before 250" waits for
    busy_cores_before: float  # spent by others just before the run: on a quiet machine about 0
    commit: str
    started: str
    network: str = "the machine's network"  # which loopback it was (`enter_network`); before there was a choice, the machine's

    @property
    def sentence(self) -> str:
        return (
            f"{self.cores} cores of {self.cpu}, {self.memory_gib:g} GiB, {self.system}, kernel {self.kernel}, Python {self.python}; "
            f"queues and streams on {self.filesystem}, fsync {self.sync_ms:g} ms; {self.network}; {self.busy_cores_before:g} cores busy before the run; "
            f"commit {self.commit}, {self.started}"
        )


def machine(directory: Path, network: str) -> Machine:
    """This machine, with what `enter_network` said; takes two seconds to see what else it does."""
    before = busy_s()
    time.sleep(_CPU_S)
    busy_cores = (busy_s() - before) / _CPU_S
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=os.cpu_count() or 1,
        cpu=_field("/proc/cpuinfo", "model name", ":"),
        memory_gib=round(memory / 2**30, 1),
        kernel=platform.release(),
        system=_field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        python=platform.python_version(),
        filesystem=filesystem(directory),
        sync_ms=_sync_ms(directory / "sync"),
        network=network,
        busy_cores_before=round(busy_cores, 2),
        commit=_commit(),
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def filesystem(directory: Path) -> str:
    """The type of the file system that holds it, such as `ext4`."""
    found, kind = Path(), "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, mounted_kind, *_ = line.split()
        if directory.resolve().is_relative_to(mounted) and len(Path(mounted).parts) >= len(found.parts):
            found, kind = Path(mounted), mounted_kind
    return kind


def _sync_ms(path: Path) -> float:
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    path.unlink()
    return round(sorted(times)[len(times) // 2], 2)


def _field(path: str, name: str, separator: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
