"""rspamd: POST /checkv2 with the envelope in header fields; its JSON says score, action and symbols (rspamd's protocol page).

HTTP/1.1 by h11, over connections that are kept. What is not a whole and sensible answer is a failure, never a score of 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import h11
import msgspec

from postern_core.envelope import Envelope
from postern_core.policy import RspamdEngine
from postern_screener.engines.answers import EngineError, Spam
from postern_screener.engines.links import Link, Links

_MOST_ANSWER_BYTES: Final = 1024 * 1024
_MOST_SYMBOLS: Final = 20


class _Symbol(msgspec.Struct):
    score: float = 0.0


class _Answer(msgspec.Struct):
    score: float
    required_score: float
    action: str
    symbols: dict[str, _Symbol] = {}


class Rspamd:
    """One server. Whoever asks bounds the time, with `asyncio.timeout`."""

    def __init__(self, settings: RspamdEngine) -> None:
        self._settings = settings
        split = urlsplit(settings.url)
        host, port = split.hostname or "", split.port or 80
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._prefix = split.path.rstrip("/")
        self.links = Links(self._host, settings.max_connections)

    async def ask(self, envelope: Envelope, body: bytes) -> Spam:
        """EngineError when there is no score."""
        if len(body) > self._settings.max_bytes:
            raise EngineError(f"{len(body)} bytes: more than the {self._settings.max_bytes} that are sent to it", lasting=True)
        return parse_answer(await self._exchange("POST", "/checkv2", list(envelope_fields(envelope)), body))

    async def ping(self) -> None:
        """EngineError when it does not answer as rspamd does."""
        if not (reply := await self._exchange("GET", "/ping", [], b"")).startswith(b"pong"):
            raise EngineError(f"it answers /ping with {reply[:100].decode('utf-8', 'replace')!r}")

    def close(self) -> None:
        self.links.close()

    async def _exchange(self, method: str, path: str, fields: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        """The body of a 200. A connection that was used before and breaks is tried once more with a new one."""
        head = h11.Request(
            method=method,
            target=self._prefix + path,
            headers=[
                (b"Host", self._host.encode()),
                (b"Content-Length", b"%d" % len(body)),
                (b"Connection", b"keep-alive"),
                *fields,
            ],
        )
        for fresh in (False, True):
            try:
                async with self.links.link(fresh=fresh) as link:
                    was_used = link.used
                    try:
                        return await _ask(link, head, body)
                    except (OSError, h11.RemoteProtocolError) as error:
                        if fresh or not was_used:
                            raise EngineError(f"no whole answer: {error}") from error
                        raise
            except (OSError, h11.RemoteProtocolError):
                continue
        raise AssertionError  # the second round returns or raises


async def _ask(link: Link, head: h11.Request, body: bytes) -> bytes:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    await link.send(http.send(head) or b"")
    await link.send(http.send(h11.Data(data=body)) or b"")
    http.send(h11.EndOfMessage())
    status, answer = 0, bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await link.receive())
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            answer += event.data
            if len(answer) > _MOST_ANSWER_BYTES:
                raise EngineError("its answer has no end")
        elif isinstance(event, h11.EndOfMessage):
            break
    link.reusable = http.our_state is h11.DONE and http.their_state is h11.DONE
    if status != 200:
        raise EngineError(f"HTTP status {status}: {bytes(answer[:100]).decode('utf-8', 'replace')}")
    return bytes(answer)


def envelope_fields(envelope: Envelope) -> Iterator[tuple[bytes, bytes]]:
    """What rspamd wants to know beside the message."""
    yield b"From", _value(envelope.reverse_path) or b"<>"
    for recipient in envelope.recipients:
        yield b"Rcpt", _value(recipient.address)
    client = envelope.client
    for name, text in ((b"IP", client.address), (b"Helo", client.helo), (b"User", client.user), (b"Queue-Id", envelope.id)):
        if text:
            yield name, _value(text)


def _value(text: str) -> bytes:
    """As a field's value: controls would end it (RFC 9110 section 5.5)."""
    return "".join(character for character in text if character.isprintable()).strip().encode("utf-8", "replace")


def parse_answer(data: bytes) -> Spam:
    """What the JSON of /checkv2 says. EngineError for what is none."""
    try:
        answer = msgspec.json.decode(data, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"its answer is not understood: {error}") from error
    symbols = sorted(answer.symbols, key=lambda name: -abs(answer.symbols[name].score))
    return Spam(answer.score, answer.required_score, answer.action, tuple(symbols[:_MOST_SYMBOLS]))
