"""Does a YARA file compile? Tried in a process of its own, which may be as slow or as large as it likes: the api keeps none of its memory.

As a program it reads a `YaraFile` from standard input and writes a `Checked` to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from asyncio.subprocess import PIPE
from typing import Final

import msgspec

from postern_api.errors import InvalidError
from postern_core.policy import YaraFile
from postern_core.policy.yara_sources import YaraSourceError, compile_yara

_TIME_S: Final = 30.0
_MEMORY_BYTES: Final = 2 * 1024**3  # of addresses
_MOST_RULES: Final = 10_000


class CompiledRule(msgspec.Struct, frozen=True):
    """A rule in a file."""

    name: str
    tags: tuple[str, ...]


class Checked(msgspec.Struct, frozen=True):
    """What came of it: rules, or where it does not compile."""

    rules: tuple[CompiledRule, ...] = ()
    line: int = 0
    column: int = 0
    reason: str = ""


async def checked_rules(file: YaraFile) -> tuple[CompiledRule, ...]:
    """The rules in `file`; InvalidError says which line does not compile."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)
    try:
        async with asyncio.timeout(_TIME_S):
            output, _ = await process.communicate(msgspec.json.encode(file))
    except TimeoutError as error:
        raise InvalidError("invalid_yara", f"{file.name} does not compile in {_TIME_S:g} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        checked = msgspec.json.decode(output, type=Checked)
    except msgspec.DecodeError as error:
        raise InvalidError("invalid_yara", f"{file.name} breaks the compiler (status {process.returncode})") from error
    if checked.reason:
        at = {"line": checked.line, "column": checked.column}
        raise InvalidError("invalid_yara", f"line {checked.line}, column {checked.column}: {checked.reason}", **at)
    return checked.rules


def check(file: YaraFile) -> Checked:
    """In the process of its own."""
    try:
        compiled = compile_yara([file])
    except YaraSourceError as error:
        return Checked(line=error.line, column=error.column, reason=error.reason[:500])
    rules = [CompiledRule(rule.identifier, tuple(rule.tags)) for rule in compiled]
    if len(rules) > _MOST_RULES:
        return Checked(reason=f"{len(rules)} rules: at most {_MOST_RULES} are possible")
    return Checked(rules=tuple(rules))


def main() -> int:
    """Returns the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.buffer.write(msgspec.json.encode(check(msgspec.json.decode(sys.stdin.buffer.read(), type=YaraFile))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
