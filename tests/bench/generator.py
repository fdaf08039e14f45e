"""The near end of a benchmark: an SMTP client of its own process over many connections, as fast as the server takes it or at a given rate.

    python -m bench.generator --port 2525 --mix mixed --messages 5000 --connections 20 --per-connection 10 --log sent.bin

`sent.bin` gets 32 bytes a message: its number, when it was due (at a rate) or begun, when its 250 came (0: it never did), its size in bytes.
Times are CLOCK_MONOTONIC in nanoseconds. A message that is refused for now is sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.mix import Template, templates

RECORD = struct.Struct("<qqqq")
_OPENING = b"MAIL FROM:<sender@origin.example>\r\nRCPT TO:<recipient@relay.example>\r\nDATA\r\n"


@dataclass
class Work:
    """What is left to send, shared by all connections. With `rate` (messages/s), message n is due at n / rate."""

    templates: list[Template]
    messages: int
    rate: float | None
    started_ns: int = 0
    next_number: int = 0
    refused: int = 0

    def take(self) -> tuple[int, int] | None:
        """The next number and when it is due; None when all are taken."""
        if self.next_number >= self.messages:
            return None
        number = self.next_number
        self.next_number += 1
        due = self.started_ns + int(number / self.rate * 1e9) if self.rate else 0
        return number, due


async def _connection(port: int, work: Work, per_connection: int, log: list[bytes]) -> None:
    while (taken := work.take()) is not None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await _reply(reader)
            writer.write(b"EHLO generator.example\r\n")
            pipelining = b"PIPELINING" in await _reply(reader)
            for sent in range(per_connection):
                if taken is None:
                    break
                number, due = taken
                begun = await _when_due(due)
                message = work.templates[number % len(work.templates)].numbered(number)
                while not await _transaction(reader, writer, message, pipelining=pipelining):
                    work.refused += 1
                    await asyncio.sleep(0.05)
                log.append(RECORD.pack(number, begun, time.monotonic_ns(), len(message)))
                taken = work.take() if sent + 1 < per_connection else None
            writer.write(b"QUIT\r\n")
            await _reply(reader)
        finally:
            writer.close()


async def _when_due(due: int) -> int:
    now = time.monotonic_ns()
    if due > now:
        await asyncio.sleep((due - now) / 1e9)
    return due or now


async def _transaction(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes, *, pipelining: bool) -> bool:
    """Whether the server took the message. Templates hold no line that starts with a dot."""
    if pipelining:
        writer.write(_OPENING)
        codes = [await _reply(reader) for _ in range(3)]
    else:
        codes = []
        for command in _OPENING.splitlines(keepends=True):
            writer.write(command)
            codes.append(await _reply(reader))
    if not codes[2].startswith(b"354"):
        writer.write(b"RSET\r\n")
        await _reply(reader)
        return False
    writer.write(message)
    writer.write(b".\r\n")
    await writer.drain()
    return (await _reply(reader)).startswith(b"250")


async def _reply(reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while True:
        line = await reader.readline()
        if not line:
            raise ConnectionError("the server hung up")
        whole += line
        if line[3:4] != b"-":
            return whole


async def _run(arguments: argparse.Namespace) -> None:
    work = Work(templates(arguments.mix), arguments.messages, arguments.rate)
    log: list[bytes] = []
    work.started_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as connections:
        for _ in range(arguments.connections):
            connections.create_task(_connection(arguments.port, work, arguments.per_connection, log))
    arguments.log.write_bytes(b"".join(log))
    print(work.refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mix", default="mixed", choices=("small", "mixed", "large"))
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--per-connection", type=int, default=10)
    parser.add_argument("--rate", type=float, default=None, help="messages a second; default: as fast as they are taken")
    parser.add_argument("--log", type=Path, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
