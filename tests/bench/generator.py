"""The near end of a benchmark: an SMTP client of its own process over many connections, as fast as the server takes it or at a given rate.

    python -m bench.generator --port 2525 --mix mixed --messages 5000 --connections 20 --per-connection 10 --log sent.bin

`sent.bin` gets 32 bytes a message: its number, when it was due (at a rate) or begun, when its 250 came, its size in bytes.
Times are CLOCK_MONOTONIC in nanoseconds. A message that is refused for now, or whose connection breaks, is sent again; one that is refused
for good, or that nobody takes for two minutes, ends the run with exit code 1. Prints a JSON object: what went wrong on the way, and its own CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.mix import MIXES, SIZES, Template, templates

RECORD = struct.Struct("<qqqq")
_GIVE_UP_NS = 120_000_000_000
_AGAIN_S = 0.05


class RefusedError(Exception):
    """The server will not take a message, now or later: what is measured is set up wrongly."""


@dataclass(slots=True)
class Message:
    """One that is to be sent: its number, and when its clock started (0: it starts when the message is begun)."""

    number: int
    started_ns: int


@dataclass
class Work:
    """What is left to send, shared by all connections. With `rate` (messages/s), message n is due at n / rate."""

    templates: list[Template]
    messages: int
    rate: float | None
    first: int = 0
    recipients: int = 1  # of each message
    started_ns: int = 0
    refused: int = 0
    hung_up: int = 0
    log: list[bytes] = field(default_factory=list)
    _next: int = 0
    _given_back: deque[Message] = field(default_factory=deque)

    def __post_init__(self) -> None:
        rcpt = b"".join(b"RCPT TO:<recipient%b@relay.example>\r\n" % (b"%d" % n if n else b"") for n in range(self.recipients))
        self.opening = b"MAIL FROM:<sender@origin.example>\r\n" + rcpt + b"DATA\r\n"

    def take(self) -> Message | None:
        """The next message; None when all are taken."""
        if self._given_back:
            return self._given_back.popleft()
        if self._next >= self.messages:
            return None
        message = Message(self._next, self.started_ns + int(self._next / self.rate * 1e9) if self.rate else 0)
        self._next += 1
        return message

    def again(self, message: Message) -> None:
        """`message` was not taken. RefusedError when that goes on for too long."""
        if message.started_ns and time.monotonic_ns() - message.started_ns > _GIVE_UP_NS:
            raise RefusedError(f"message {message.number} was not taken for {_GIVE_UP_NS / 1e9:g} s")

    def give_back(self, message: Message) -> None:
        """The connection of `message` broke, or there was none: another will send it."""
        message.started_ns = message.started_ns or time.monotonic_ns()
        self.again(message)
        self.hung_up += 1
        self._given_back.append(message)

    def pieces_of(self, message: Message) -> tuple[bytes, memoryview]:
        return self.templates[message.number % len(self.templates)].numbered(self.first + message.number)

    def taken(self, message: Message, size: int) -> None:
        self.log.append(RECORD.pack(self.first + message.number, message.started_ns, time.monotonic_ns(), size))


async def _connection(port: int, work: Work, per_connection: int) -> None:
    while (message := work.take()) is not None:
        try:
            await _session(port, work, message, per_connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            await asyncio.sleep(_AGAIN_S)


async def _session(port: int, work: Work, message: Message | None, per_connection: int) -> None:
    """One connection: `message`, and as many more as it may carry."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if not (await _reply(reader)).startswith(b"220"):
            raise ConnectionError("no service for now")
        writer.write(b"EHLO generator.example\r\n")
        pipelining = b"PIPELINING" in await _reply(reader)
        for sent in range(per_connection):
            if message is None:
                break
            await _when_due(message)
            pieces = work.pieces_of(message)
            while not await _transaction(reader, writer, work.opening, pieces, pipelining=pipelining):
                work.refused += 1
                work.again(message)
                await asyncio.sleep(_AGAIN_S)
            work.taken(message, sum(map(len, pieces)))
            message = work.take() if sent + 1 < per_connection else None
        writer.write(b"QUIT\r\n")
        await _reply(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        if message is not None:
            work.give_back(message)
        raise
    finally:
        if writer is not None:
            writer.close()


async def _when_due(message: Message) -> None:
    now = time.monotonic_ns()
    if message.started_ns > now:
        await asyncio.sleep((message.started_ns - now) / 1e9)
    message.started_ns = message.started_ns or now


async def _transaction(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    opening: bytes,
    message: tuple[bytes, memoryview],
    *,
    pipelining: bool,
) -> bool:
    """Whether the server took the message; RefusedError when it never will. Templates hold no line that starts with a dot."""
    if pipelining:
        writer.write(opening)
        replies = [await _reply(reader) for _ in range(opening.count(b"\n"))]
    else:
        replies = []
        for command in opening.splitlines(keepends=True):
            writer.write(command)
            replies.append(await _reply(reader))
    if not replies[-1].startswith(b"354"):
        _must_be_transient(*replies[:-1])
        writer.write(b"RSET\r\n")
        await _reply(reader)
        return False
    writer.writelines((*message, b".\r\n"))
    await writer.drain()
    reply = await _reply(reader)
    _must_be_transient(reply)
    return reply.startswith(b"250")


def _must_be_transient(*replies: bytes) -> None:
    for reply in replies:
        if reply.startswith(b"5"):
            raise RefusedError(reply.decode(errors="replace").strip())


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
    work = Work(templates(arguments.mix), arguments.messages, arguments.rate, arguments.first, arguments.recipients)
    cpu_before = time.process_time()
    work.started_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as connections:
        for _ in range(arguments.connections):
            connections.create_task(_connection(arguments.port, work, arguments.per_connection))
    cpu_s = time.process_time() - cpu_before
    arguments.log.write_bytes(b"".join(work.log))
    print(json.dumps({"refused": work.refused, "hung_up": work.hung_up, "cpu_s": cpu_s}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mix", default="mixed", choices=(*MIXES, *SIZES))
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first message, so that two runs can be told apart")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--per-connection", type=int, default=10)
    parser.add_argument("--recipients", type=int, default=1, help="of each message")
    parser.add_argument("--rate", type=float, default=None, help="messages a second; default: as fast as they are taken")
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    refusals: list[str] = []
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(arguments))
    except* RefusedError as refused:
        refusals = [str(each) for each in refused.exceptions]
    if refusals:
        sys.exit(f"refused: {refusals[0]}")


if __name__ == "__main__":
    main()
