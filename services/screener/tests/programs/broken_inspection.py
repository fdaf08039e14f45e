"""An inspection that breaks the way a hostile message might break the real one: chosen by a word in the body."""

from __future__ import annotations

import os
import re
import signal

from postern_core.envelope import Envelope
from postern_screener.engines.answers import Answers
from postern_screener.ruleset import Ruleset
from postern_screener.screening import Screened, screen


def inspect(envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers) -> Screened:
    if b"HANG" in body:
        re.fullmatch(r"(a+)+", "a" * 64 + "b")  # native code that holds the interpreter lock for centuries
    if b"CRASH" in body:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EXHAUST" in body:
        held = []
        while True:
            held.append(bytes(64 * 1024 * 1024))
    if b"RAISE" in body:
        raise RuntimeError("a fault in a check")
    return screen(envelope, body, ruleset, answers)
