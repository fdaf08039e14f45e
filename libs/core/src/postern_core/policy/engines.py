"""Engines: other programs and rule files that the screener asks about a message, and what follows when one of them cannot answer.

All are off until an administrator switches them on. A condition that needs an engine that is off does not compile.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from postern_core.verdict import Engine

MIB: Final = 1024 * 1024


class OnFailure(enum.StrEnum):
    """What becomes of a message that an engine was needed for and could not judge. Never a silent pass."""

    DEFER = "defer"  # it waits in INTAKE and is tried again; held where trying again cannot help, and after `hold_after_s`
    HOLD = "hold"  # quarantine, hold reason `engine-failed`
    PASS = "pass"  # as if the engine had found nothing, with a field that says so on top


class OnVirus(enum.StrEnum):
    """What becomes of a message with a virus of which no rule speaks."""

    HOLD = "hold"
    DELETE = "delete"


class ClamdEngine(msgspec.Struct, frozen=True, kw_only=True):
    """ClamAV's daemon. While it is on it scans every message that no rule has decided on."""

    enabled: bool = False
    address: str = "127.0.0.1:3310"  # host:port, or the path of a UNIX socket
    timeout_s: float = 20.0  # for one message: a free connection, sending it, and the answer
    on_failure: OnFailure = OnFailure.DEFER
    max_bytes: int = 25 * MIB  # what is larger is not sent; no more than clamd's StreamMaxLength
    max_connections: int = 8  # of each worker
    on_virus: OnVirus = OnVirus.HOLD


class RspamdEngine(msgspec.Struct, frozen=True, kw_only=True):
    """rspamd's normal worker, asked by POST /checkv2 when a rule wants to know."""

    enabled: bool = False
    url: str = "http://127.0.0.1:11333"
    timeout_s: float = 20.0
    on_failure: OnFailure = OnFailure.PASS  # a spam filter that is away stops no mail
    max_bytes: int = 10 * MIB
    max_connections: int = 8


class YaraFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of YARA rules; each is a namespace of its own."""

    name: str
    source: str


class YaraEngine(msgspec.Struct, frozen=True, kw_only=True):
    """YARA-X. It looks at the message as it came and at the content of every part, when a rule wants to know."""

    enabled: bool = False
    timeout_s: int = 2  # for all parts of one message together; the library counts whole seconds
    on_failure: OnFailure = OnFailure.HOLD
    files: tuple[YaraFile, ...] = ()


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    clamd: ClamdEngine = ClamdEngine()
    rspamd: RspamdEngine = RspamdEngine()
    yara: YaraEngine = YaraEngine()
    hold_after_s: float = 86_400.0  # since acceptance: a message that was deferred that long is held instead

    def of(self, engine: Engine) -> ClamdEngine | RspamdEngine | YaraEngine:
        """The settings of one."""
        match engine:
            case Engine.CLAMD:
                return self.clamd
            case Engine.RSPAMD:
                return self.rspamd
            case Engine.YARA:
                return self.yara

    @property
    def enabled(self) -> frozenset[Engine]:
        """Those that are on."""
        return frozenset(engine for engine in Engine if self.of(engine).enabled)
