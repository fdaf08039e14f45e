"""The process in which trials are made: as the sandbox's, at the lowest priority there is, and with the rules of the last few trials compiled.

It gets the time that nobody else wants: live mail does not wait for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import sys
import time
from typing import BinaryIO, Final, Protocol

import msgspec

from postern_core.envelope import Envelope, unframe
from postern_core.policy import ScreeningPolicy, decode_section
from postern_core.trial import Tried
from postern_screener.engines.answers import Answers
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.sandbox_child import confine, read_frame
from postern_screener.sandbox_wire import LENGTH, SECONDS, Kind, pack
from postern_screener.trying import try_out

WITH_PLACES: Final = b"\1"
WITHOUT_PLACES: Final = b"\0"
_COMPILED: Final = 2  # rulesets that are kept; large ones take some hundred megabytes


class Attempt(Protocol):
    """`trying.try_out`, or a test's."""

    def __call__(self, envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers, *, places: bool) -> Tried: ...


def run(memory_limit_mib: int, attempt: Attempt = try_out) -> int:
    """Serve until standard input ends; returns the exit code."""
    give_way()
    return serve(sys.stdin.buffer, confine(memory_limit_mib), attempt)


def give_way() -> None:
    """Run only when nobody else wants to."""
    with contextlib.suppress(OSError):
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve(requests: BinaryIO, answers: BinaryIO, attempt: Attempt = try_out) -> int:
    """POLICY makes its rules the ones that count, and is answered by READY with the milliseconds that compiling took; MESSAGE by SCREENED."""
    compiled: dict[bytes, Ruleset] = {}
    ruleset: Ruleset | None = None
    while (request := read_frame(requests)) is not None:
        kind, payload = request
        if kind is Kind.POLICY:
            ruleset, answer = _compiled(payload, compiled)
        elif ruleset is None:
            answer = pack(Kind.REFUSED, b"no policy was given")
        else:
            answer = _tried(payload, ruleset, attempt)
        answers.write(answer)
    return 0


def _compiled(payload: bytes, compiled: dict[bytes, Ruleset]) -> tuple[Ruleset | None, bytes]:
    key = hashlib.sha256(payload).digest()
    ruleset, took = compiled.pop(key, None), 0.0
    if ruleset is None:
        while len(compiled) >= _COMPILED:
            del compiled[next(iter(compiled))]  # the one that was used last the longest ago
        started = time.perf_counter()
        try:
            ruleset = compile_policy(decode_section(payload, ScreeningPolicy))
        except ValueError as error:
            return None, pack(Kind.REFUSED, str(error)[:1000].encode("utf-8", "replace"))
        took = (time.perf_counter() - started) * 1000
    compiled[key] = ruleset
    return ruleset, pack(Kind.READY, SECONDS.pack(took))


def _tried(payload: bytes, ruleset: Ruleset, attempt: Attempt) -> bytes:
    (seconds,) = SECONDS.unpack_from(payload)
    places = payload[SECONDS.size : SECONDS.size + 1] == WITH_PLACES
    faulthandler.dump_traceback_later(seconds + 1, exit=True)
    try:
        at = SECONDS.size + 1 + LENGTH.size
        (length,) = LENGTH.unpack_from(payload, SECONDS.size + 1)
        answers = msgspec.json.decode(payload[at : at + length], type=Answers)
        envelope, body = unframe(payload[at + length :], Envelope)
        tried = attempt(envelope, bytes(body), ruleset, answers, places=places)
    except Exception as error:  # the one handler of a message: whatever it is, the parent hears of it
        tried = Tried(failure=f"{type(error).__name__}: {error}"[:500])
    finally:
        faulthandler.cancel_dump_traceback_later()
    return pack(Kind.SCREENED, msgspec.json.encode(tried))


if __name__ == "__main__":
    raise SystemExit(run(int(sys.argv[1])))
