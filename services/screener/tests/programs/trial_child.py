"""The child of trials, which breaks the way a hostile message might break it: chosen by a word in the body."""

from __future__ import annotations

import os
import re
import signal
import sys

from postern_core.envelope import Envelope
from postern_core.trial import Tried
from postern_screener.engines.answers import Answers
from postern_screener.ruleset import Ruleset
from postern_screener.trial_child import run
from postern_screener.trying import try_out


def attempt(envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers, *, places: bool) -> Tried:
    if b"HANG" in body:
        re.fullmatch(r"(a+)+", "a" * 64 + "b")  # native code that holds the interpreter lock for centuries
    if b"CRASH" in body:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EXHAUST" in body:
        held = []
        while True:
            held.append(bytes(64 * 1024 * 1024))
    return try_out(envelope, body, ruleset, answers, places=places)


raise SystemExit(run(int(sys.argv[1]), attempt))
