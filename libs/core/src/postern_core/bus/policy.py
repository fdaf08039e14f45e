"""Watches one section of the policy: told of a change by plain publish, and re-read every 30 seconds in case the telling got lost.

A revision that does not compile is refused and reported; the last good one stays in force. The last good one is also kept in a file, so
that a service can start while the broker's copy cannot be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog
from nats.aio.msg import Msg

from postern_core.bus.connection import Bus
from postern_core.bus.topology import KV_POLICY
from postern_core.errors import ConfigurationError, TransientError
from postern_core.policy.codec import Section, decode_section
from postern_core.policy.delivery import DeliveryPolicy
from postern_core.policy.gates import GatePolicy
from postern_core.policy.screening import ScreeningPolicy
from postern_core.process import giving_way

log: structlog.stdlib.BoundLogger = structlog.get_logger()

S = TypeVar("S", GatePolicy, ScreeningPolicy, DeliveryPolicy)
C = TypeVar("C")
_POLL_S: Final = 30.0


class PolicyWatch(Generic[S, C]):
    """`current` is what `compile_section` made of the newest good revision, None before the first.

    `compile_section` runs in a thread and raises ValueError for a section that it cannot use. `on_change` is called on the loop
    after each swap.
    """

    def __init__(
        self,
        bus: Bus,
        section: Section,
        kind: type[S],
        compile_section: Callable[[S], C],
        *,
        state_dir: Path | None = None,
        on_change: Callable[[C], None] | None = None,
    ) -> None:
        self._bus = bus
        self._section = section
        self._kind: type[S] = kind
        self._compile: Callable[[S], C] = compile_section
        self._file = state_dir / f"policy-{section.value}.bin" if state_dir else None
        self._on_change = on_change
        self._seen: bytes | None = None
        self._told = asyncio.Event()
        self.current: C | None = None
        self.revision = 0
        self.error = ""
        self.loaded = asyncio.Event()
        self.asked = asyncio.Event()  # the first look is over, whatever it found

    async def run(self, stop: asyncio.Event) -> None:
        """Keep `current` up to date until `stop`."""
        subscription = await self._bus.client.subscribe(f"policy.changed.{self._section.value}", cb=self._on_told)
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._told.set())
        first = True
        try:
            while not stop.is_set():
                self._told.clear()
                try:
                    data = await self._bus.kv_get(KV_POLICY, self._section.value)
                    if data is not None:
                        await self._take(data, keep=True)
                except TransientError as error:
                    log.warning("policy.read_failed", section=self._section.value, reason=error.reason)
                    if first:
                        await self._take_kept()
                first = False
                self.asked.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S if self.current is not None else 1.0):
                        await self._told.wait()
        finally:
            stopped.cancel()
            if self._bus.connected:
                await subscription.unsubscribe()

    async def _on_told(self, _: Msg) -> None:
        self._told.set()

    async def _take(self, data: bytes, *, keep: bool) -> None:
        if data == self._seen:
            return
        self._seen = data
        try:
            section, compiled = await asyncio.to_thread(self._decode, data)
        except (ValueError, ConfigurationError) as error:
            self.error = str(error)
            log.error("policy.refused", section=self._section.value, revision_in_force=self.revision, reason=self.error)
            return
        self.current, self.revision, self.error = compiled, section.revision, ""
        self.loaded.set()
        if self._on_change is not None:
            self._on_change(compiled)
        log.info("policy.applied", section=self._section.value, revision=self.revision)
        if keep and self._file is not None:
            try:
                await asyncio.to_thread(_write_file, self._file, data)
            except OSError as error:
                # it is in force all the same; only a start without the broker would miss it
                log.warning("policy.not_kept", section=self._section.value, revision=self.revision, reason=str(error))

    def _decode(self, data: bytes) -> tuple[S, C]:
        with giving_way():
            section = decode_section(data, self._kind)
            return section, self._compile(section)

    async def _take_kept(self) -> None:
        if self._file is None or self.current is not None:
            return
        with contextlib.suppress(FileNotFoundError):
            await self._take(await asyncio.to_thread(self._file.read_bytes), keep=False)


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own: replicas of a service may share the folder
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as fresh:
        fresh.write(data)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(path)
