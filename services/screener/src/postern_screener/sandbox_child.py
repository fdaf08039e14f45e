"""The process in the sandbox: reads a policy and messages from standard input, answers each on standard output, ends with its input.

It limits its own address space, writes no core file, and ends itself a second after a message's time is up should its parent be gone.
Signals that end a whole group of processes (Ctrl-C, a service manager) are its parent's business: were it to end by one in the middle of a
message, that message would be convicted for it.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from postern_core.envelope import Envelope, unframe
from postern_core.policy import ScreeningPolicy, decode_section
from postern_screener.engines.answers import Answers
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.sandbox_wire import HEADER, LENGTH, SECONDS, Kind, pack
from postern_screener.screening import Screened, screen

_MIB: Final = 1024 * 1024
Inspect = Callable[[Envelope, bytes, Ruleset, Answers], Screened]


def run(memory_limit_mib: int, inspect: Inspect = screen) -> int:
    """Serve until standard input ends; returns the exit code."""
    answers = confine(memory_limit_mib)
    ruleset: Ruleset | None = None
    while (request := read_frame(sys.stdin.buffer)) is not None:
        kind, payload = request
        if kind is Kind.POLICY:
            ruleset, answer = _compile(payload)
        elif ruleset is None:
            answer = pack(Kind.REFUSED, b"no policy was given")
        else:
            answer = _inspect(payload, ruleset, inspect)
        answers.write(answer)
    return 0


def confine(memory_limit_mib: int) -> BinaryIO:
    """Bound this process, and make it deaf to signals; returns where it answers, which nothing else can write to."""
    limit, inherited = memory_limit_mib * _MIB, resource.getrlimit(resource.RLIMIT_AS)[1]
    if inherited != resource.RLIM_INFINITY:
        limit = min(limit, inherited)  # the worker's own limit may be the lower one, and nobody may raise it
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # whatever prints must not end up between the frames
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def _compile(payload: bytes) -> tuple[Ruleset | None, bytes]:
    try:
        ruleset = compile_policy(decode_section(payload, ScreeningPolicy))
    except ValueError as error:
        return None, pack(Kind.REFUSED, str(error).encode())
    return ruleset, pack(Kind.READY)


def _inspect(payload: bytes, ruleset: Ruleset, inspect: Inspect) -> bytes:
    (seconds,) = SECONDS.unpack_from(payload)
    faulthandler.dump_traceback_later(seconds + 1, exit=True)
    try:
        at = SECONDS.size + LENGTH.size
        (length,) = LENGTH.unpack_from(payload, SECONDS.size)
        answers = msgspec.json.decode(payload[at : at + length], type=Answers)
        envelope, body = unframe(payload[at + length :], Envelope)
        return pack(Kind.SCREENED, msgspec.json.encode(inspect(envelope, bytes(body), ruleset, answers)))
    except Exception as error:  # the one handler of a message: whatever it is, the parent hears of it
        return pack(Kind.REFUSED, f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace"))
    finally:
        faulthandler.cancel_dump_traceback_later()


def read_frame(source: BinaryIO) -> tuple[Kind, bytes] | None:
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    kind, length = HEADER.unpack(header)
    return Kind(kind), source.read(length)


if __name__ == "__main__":
    raise SystemExit(run(int(sys.argv[1])))
