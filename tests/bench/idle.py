"""The embedded stack with nothing to do: its memory after a while, and how long it takes from start to the first mail."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

import msgspec

from bench.processes import memory_bytes
from fixtures.ports import free_port
from fixtures.stack import Stack

_PATIENCE_S = 60.0
_MESSAGE = b"Subject: first\r\n\r\nhello\r\n"


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of `postern up` to the first 250 at the anonymous gate, and memory (PSS, MB of 10⁶ bytes) by service."""

    first_start_s: float  # on an empty directory: keys, databases and streams are made
    second_start_s: float  # on what the first one left
    idle_s: float
    memory_mb: dict[str, float]

    @property
    def whole_mb(self) -> float:
        return round(sum(self.memory_mb.values()), 1)


def measure_idle(directory: Path, idle_s: float) -> Idle:
    """Start, accept one message, idle, stop, start again. RuntimeError when a stack does not come up."""
    port = free_port()
    stack = Stack(directory / "var", options=("--anon", f"127.0.0.1:{port}"))
    first = _start(stack, port)
    try:
        time.sleep(idle_s)
        memory = _memory_mb(stack)
    finally:
        stack.stop()
    second = _start(stack, port)
    stack.stop()
    return Idle(first_start_s=first, second_start_s=second, idle_s=idle_s, memory_mb=memory)


def _start(stack: Stack, port: int) -> float:
    """Seconds until the first 250; returns when all of the stack is ready."""
    begun = time.monotonic()
    stack.launch()
    assert stack.process is not None
    try:
        while not _accepted(port):
            if stack.process.poll() is not None or time.monotonic() - begun > _PATIENCE_S:
                raise RuntimeError(f"postern up took no mail: {stack.output[-2000:]}")
            time.sleep(0.02)
        took_s = time.monotonic() - begun
        stack.wait_ready()
    except BaseException:
        stack.stop()
        raise
    return round(took_s, 2)


def _accepted(port: int) -> bool:
    """Whether the gate takes a message now. Before it has a policy it says 451."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("x@sender.example", ["a@demo.example"], _MESSAGE)
    except (smtplib.SMTPException, OSError):
        return False
    return True


def _memory_mb(stack: Stack) -> dict[str, float]:
    assert stack.process is not None
    processes: dict[str, list[int]] = stack.endpoints["processes"]
    memory = {name: memory_bytes(pids) for name, pids in processes.items()}
    # the services are its children
    memory["supervisor"] = max(memory_bytes([stack.process.pid]) - sum(memory.values()), 0)
    return {name: round(value / 1e6, 1) for name, value in memory.items()}
