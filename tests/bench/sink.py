"""The far end of a benchmark: an SMTP server of its own process that costs next to nothing and notes when each message came.

    python -m bench.sink --port 2600 --log arrivals.bin

`arrivals.bin` gets 16 bytes a message: its number and the time (CLOCK_MONOTONIC, nanoseconds; the same clock in every process).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import struct
import time
from pathlib import Path
from typing import BinaryIO, cast

import uvloop

from bench.mix import MARK, MARK_DIGITS

RECORD = struct.Struct("<qq")
_EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n"
_END = b"\r\n.\r\n"
# octets of a block that may hold the end of a message: a client sends no more than `QUIT` behind it before the reply
_TAIL = len(_END) + 64


class SinkProtocol(asyncio.Protocol):
    """One connection. Holds no more of a message than its first block."""

    def __init__(self, log: BinaryIO) -> None:
        self._log = log
        self._buffer = bytearray()
        self._in_data = False
        self._number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._in_data and self._number >= 0 and len(data) > _TAIL:
            self._buffer.clear()
            data = data[-_TAIL:]
        self._buffer += data
        answers: list[bytes] = []
        while self._data(answers) if self._in_data else self._command(answers):
            pass
        if answers:
            self._transport.write(b"".join(answers))

    def _data(self, answers: list[bytes]) -> bool:
        if self._number < 0:
            mark = self._buffer.find(MARK)
            if mark >= 0 and len(self._buffer) >= mark + len(MARK) + MARK_DIGITS:
                self._number = int(self._buffer[mark + len(MARK) : mark + len(MARK) + MARK_DIGITS])
        end = self._buffer.find(_END)
        if end < 0:
            return False
        del self._buffer[: end + len(_END)]
        self._log.write(RECORD.pack(self._number, time.monotonic_ns()))
        self._in_data, self._number = False, -1
        answers.append(b"250 2.0.0 ok\r\n")
        return True

    def _command(self, answers: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        verb = bytes(self._buffer[:4]).upper()
        del self._buffer[: end + 2]
        match verb:
            case b"EHLO":
                answers.append(_EHLO)
            case b"DATA":
                self._in_data = True
                answers.append(b"354 go on\r\n")
            case b"QUIT":
                answers.append(b"221 2.0.0 bye\r\n")
                self._transport.write(b"".join(answers))
                answers.clear()
                self._transport.close()
                return False
            case _:
                answers.append(b"250 2.0.0 ok\r\n")
        return True


async def _serve(port: int, path: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with path.open("ab", buffering=1024) as log:
        server = await asyncio.get_running_loop().create_server(lambda: SinkProtocol(log), "127.0.0.1", port, backlog=1024)
        while not stop.is_set():
            try:
                async with asyncio.timeout(0.2):
                    await stop.wait()
            except TimeoutError:
                log.flush()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments.port, arguments.log))


if __name__ == "__main__":
    main()
