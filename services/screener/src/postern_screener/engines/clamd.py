"""ClamAV's daemon: a message goes to it as one stream, its answer is one line (clamd(8): IDSESSION, INSTREAM, PING).

A session lets one connection carry one question after the other. What clamd calls an ERROR is no verdict; nor is a name that only says that
its limits were exceeded (clamd.conf: AlertExceedsMax).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final

from postern_core.envelope import Envelope
from postern_core.policy import ClamdEngine
from postern_screener.engines.answers import EngineError, Viruses
from postern_screener.engines.links import Link, Links

_CHUNK_BYTES: Final = 256 * 1024
_MOST_REPLY_BYTES: Final = 64 * 1024
_SESSION: Final = b"zIDSESSION\0"
_REPLY: Final = re.compile(r"(?:\d+: )?(?:(?P<subject>[^:]*): )?(?P<what>.*?) ?(?P<verdict>OK|FOUND|ERROR)", re.DOTALL)
_TOO_LARGE: Final = "size limit exceeded"
_LIMITS: Final = "Heuristics.Limits.Exceeded"


class Clamd:
    """One daemon. Whoever asks bounds the time, with `asyncio.timeout`."""

    def __init__(self, settings: ClamdEngine) -> None:
        self._settings = settings
        self.links = Links(settings.address, settings.max_connections)

    async def ask(self, _: Envelope, body: bytes) -> Viruses:
        """EngineError when there is no verdict."""
        if len(body) > self._settings.max_bytes:
            raise EngineError(f"{len(body)} bytes: more than the {self._settings.max_bytes} that are sent to it", lasting=True)
        return parse_reply(await self._exchange(body))

    async def ping(self) -> None:
        """EngineError when it does not answer as clamd does."""
        reply = await self._exchange(None)
        if not reply.endswith(b"PONG"):
            raise EngineError(f"it answers PING with {reply[:100].decode('utf-8', 'replace')!r}")

    def close(self) -> None:
        self.links.close()

    async def _exchange(self, body: bytes | None) -> bytes:
        """One question and its reply. A connection that was used before and breaks is tried once more with a new one."""
        for fresh in (False, True):
            try:
                async with self.links.link(fresh=fresh) as link:
                    was_used = link.used
                    try:
                        return await self._ask(link, body)
                    except (OSError, EOFError) as error:
                        if fresh or not was_used:
                            raise EngineError(f"it hung up in the middle: {error}") from error
                        raise
            except (OSError, EOFError):
                continue
        raise AssertionError  # the second round returns or raises

    async def _ask(self, link: Link, body: bytes | None) -> bytes:
        sending = asyncio.create_task(_send(link, body), name="clamd-send")
        try:
            reply = await _reply(link)
            link.reusable = sending.done() and sending.exception() is None and not reply.endswith(b"ERROR")
            return reply
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending


async def _send(link: Link, body: bytes | None) -> None:
    start = b"" if link.used else _SESSION
    if body is None:
        await link.send(start + b"zPING\0")
        return
    start += b"zINSTREAM\0"
    view = memoryview(body)
    for at in range(0, len(view), _CHUNK_BYTES):
        chunk = view[at : at + _CHUNK_BYTES]
        await link.send(start + len(chunk).to_bytes(4))
        start = b""
        await link.send(chunk)
    await link.send(start + bytes(4))


async def _reply(link: Link) -> bytes:
    """Up to its NUL. EOFError when the daemon hangs up before."""
    reply = b""
    while not reply.endswith(b"\0"):
        if len(reply) > _MOST_REPLY_BYTES:
            raise EngineError("its answer has no end")
        if not (more := await link.receive()):
            raise EOFError("no answer")
        reply += more
    return reply.rstrip(b"\0")


def parse_reply(reply: bytes) -> Viruses:
    """What a reply to INSTREAM says; EngineError for one that is no verdict."""
    text = reply.decode("utf-8", "replace").strip()
    found = _REPLY.fullmatch(text)
    verdict, what = (found["verdict"], found["what"].strip()) if found is not None else ("", "")
    if verdict == "OK" and not what:
        return Viruses()
    if verdict == "FOUND" and what.startswith(_LIMITS):
        raise EngineError(f"it did not look at all of it: {what}", lasting=True)
    if verdict == "FOUND" and what:
        return Viruses(names=(what,))
    raise EngineError(f"it answers {text[:200]!r}", lasting=_TOO_LARGE in text)
