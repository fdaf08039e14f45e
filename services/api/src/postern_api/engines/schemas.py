"""Engines at the HTTP edge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Seconds, Whole, examples
from postern_api.policy.addresses import checked_domain
from postern_core.control import EngineState, ServiceStatus
from postern_core.policy import ClamdEngine, Engines, OnFailure, OnVirus, RspamdEngine, YaraEngine
from postern_core.verdict import Engine

_Limit = Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)]
_ON_FAILURE = (
    "A message that needs the engine while it fails: `defer` (waits, tried again), `hold` (quarantine, `engine-failed`) or `pass` with a "
    "field `X-Postern-Unscanned`."
)
_CLAMD, _RSPAMD, _YARA = ClamdEngine(), RspamdEngine(), YaraEngine()


class ClamdBody(Body):
    """ClamAV's daemon. While it is on it scans every message that no rule decides on."""

    model_config = examples({"enabled": True, "address": "clamav:3310", "on_failure": "defer", "on_virus": "hold"})

    enabled: Flag
    address: Line = Field(default=_CLAMD.address, description="`host:port`, or the path of a UNIX socket that the screener sees.")
    timeout_s: _Limit = Field(default=_CLAMD.timeout_s, description="Seconds for one message.")
    on_failure: OnFailure = Field(default=_CLAMD.on_failure, description=_ON_FAILURE)
    max_bytes: Whole = Field(
        default=_CLAMD.max_bytes,
        ge=1024,
        le=2**31,
        description="What is larger is not sent, and counts as a failure that lasts. No more than clamd's StreamMaxLength.",
    )
    max_connections: Whole = Field(default=_CLAMD.max_connections, ge=1, le=256, description="Of each worker of the screener.")
    on_virus: OnVirus = Field(default=_CLAMD.on_virus, description="`hold` or `delete` what has a virus of which no rule speaks.")

    def to_object(self) -> ClamdEngine:
        """InvalidError for what is no address."""
        address = self.address if self.address.startswith("/") else _checked_host_port(self.address)
        return ClamdEngine(**self.model_dump() | {"address": address})

    @classmethod
    def of(cls, engine: ClamdEngine) -> ClamdBody:
        return cls(**{name: getattr(engine, name) for name in engine.__struct_fields__})


class RspamdBody(Body):
    """rspamd's normal worker. It is asked when a rule with a condition `spam` comes to it."""

    model_config = examples({"enabled": True, "url": "http://rspamd:11333", "on_failure": "pass"})

    enabled: Flag
    url: Line = Field(default=_RSPAMD.url, description="`http://host:port`; /checkv2 is asked there.")
    timeout_s: _Limit = Field(default=_RSPAMD.timeout_s, description="Seconds for one message.")
    on_failure: OnFailure = Field(default=_RSPAMD.on_failure, description=_ON_FAILURE)
    max_bytes: Whole = Field(default=_RSPAMD.max_bytes, ge=1024, le=2**31, description="What is larger is not sent.")
    max_connections: Whole = Field(default=_RSPAMD.max_connections, ge=1, le=256, description="Of each worker of the screener.")

    def to_object(self) -> RspamdEngine:
        """InvalidError for what is no address."""
        return RspamdEngine(**self.model_dump() | {"url": _checked_url(self.url)})

    @classmethod
    def of(cls, engine: RspamdEngine) -> RspamdBody:
        return cls(**{name: getattr(engine, name) for name in engine.__struct_fields__})


class YaraBody(Body):
    """YARA-X in the screener, with the files of /yara. It looks when a rule with a condition `yara` comes to it."""

    model_config = examples({"enabled": True, "timeout_s": 2, "on_failure": "hold"})

    enabled: Flag
    timeout_s: Whole = Field(default=_YARA.timeout_s, ge=1, le=15, description="Whole seconds for one message.")
    on_failure: OnFailure = Field(default=_YARA.on_failure, description=_ON_FAILURE)

    @classmethod
    def of(cls, engine: YaraEngine) -> YaraBody:
        return cls(enabled=engine.enabled, timeout_s=engine.timeout_s, on_failure=engine.on_failure)


class WaitingBody(Body):
    """How long mail waits for an engine with `on_failure` `defer`."""

    model_config = examples({"hold_after_s": 86400})

    hold_after_s: Seconds = Field(le=30 * 86400, description="Since acceptance; then it is held with the reason `engine-failed`.")


class EngineView(Body):
    """How an engine is, as one worker of the screener sees it."""

    instance: str
    engine: Engine
    state: EngineState = Field(description="`open`: it failed so often that it is not asked for a while.")
    error: str = Field(description="Why the last question failed; empty when it did not.")
    asked: int = Field(description="Since the worker started.")
    failed: int


class EnginesView(Body):
    """All of them."""

    model_config = examples(
        {
            "clamd": {"enabled": True, "address": "clamav:3310", "on_failure": "defer", "on_virus": "hold"},
            "rspamd": {"enabled": False},
            "yara": {"enabled": False},
            "waiting": {"hold_after_s": 86400},
            "health": [{"instance": "screener-1", "engine": "clamd", "state": "ok", "error": "", "asked": 1200, "failed": 0}],
        }
    )

    clamd: ClamdBody
    rspamd: RspamdBody
    yara: YaraBody
    waiting: WaitingBody
    health: list[EngineView] = Field(description="Of those that are on, as each worker of the screener reported last.")

    @classmethod
    def of(cls, engines: Engines, reports: Iterable[ServiceStatus]) -> EnginesView:
        return cls(
            clamd=ClamdBody.of(engines.clamd),
            rspamd=RspamdBody.of(engines.rspamd),
            yara=YaraBody.of(engines.yara),
            waiting=WaitingBody(hold_after_s=engines.hold_after_s),
            health=[view for report in reports for view in engine_views(report)],
        )


def engine_views(report: ServiceStatus) -> list[EngineView]:
    """What one replica says of its engines."""
    return [
        EngineView(
            instance=report.instance,
            engine=each.engine,
            state=each.state,
            error=each.error,
            asked=each.asked,
            failed=each.failed,
        )
        for each in report.engines
    ]


EngineName = Literal["clamd", "rspamd", "yara"]


def _checked_host_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536 or not bare:
        raise InvalidError("invalid_engine_address", f"{text!r} is no host:port, and no path of a UNIX socket")
    if any(character.isspace() or character in "/@?#" for character in host) or (":" in bare and host == bare):
        raise InvalidError(
            "invalid_engine_address", f"{host!r} is no host: a name, an IPv4 address, or an IPv6 address in brackets"
        )
    return f"{host}:{int(port)}" if ":" in bare or bare.replace(".", "").isdigit() else f"{_checked_name(host)}:{int(port)}"


def _checked_name(host: str) -> str:
    # a service's name in a network of containers has no dot, and may hold an underscore
    if "." not in host and all(character.isalnum() or character in "-_" for character in host):
        return host.lower()
    return checked_domain(host)


def _checked_url(text: str) -> str:
    try:
        split = urlsplit(text)
        port = split.port or 80
    except ValueError as error:
        raise InvalidError("invalid_engine_address", f"{text!r}: {error}") from error
    if split.scheme != "http" or not split.hostname or split.username or split.query or split.fragment:
        raise InvalidError("invalid_engine_address", f"{text!r} is no http://host:port")
    if not split.path.isascii() or any(character.isspace() for character in split.path):
        raise InvalidError("invalid_engine_address", f"{split.path!r} cannot be asked for")
    host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
    return f"http://{_checked_host_port(f'{host}:{port}')}{split.path.rstrip('/')}"
