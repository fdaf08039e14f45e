"""Our half of the NATS client against the library's: the same messages out of the same bytes, and requests that end as they should."""

from __future__ import annotations

import asyncio
import signal
from itertools import pairwise

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from fixtures.broker import Broker
from postern_core.bus.client import Client, _header_block, _header_fields
from postern_core.bus.receiver import MalformedError, Receiver

Cut = tuple[int, bytes, bytes, bytes, bytes]

_TOKEN = st.text("abc.$*_-19", min_size=1, max_size=12).map(str.encode)
_PAYLOAD = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 1 5\r\nabcde\r\n", b"PING\r\n", b"\r\nHMSG x 1 2 3\r\n"])
)
_HEADERS = st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n", b"NATS/1.0\r\nNats-Msg-Id: a:b\r\n\r\n"])


@st.composite
def _message(draw: st.DrawFn) -> bytes:
    subject, sid, payload = draw(_TOKEN), draw(st.integers(1, 99)), draw(_PAYLOAD)
    reply = draw(st.one_of(st.just(b""), _TOKEN.map(lambda token: token + b" ")))
    if draw(st.booleans()):
        return b"MSG %b %d %b%d\r\n%b\r\n" % (subject, sid, reply, len(payload), payload)
    headers = draw(_HEADERS)
    return b"HMSG %b %d %b%d %d\r\n%b%b\r\n" % (
        subject,
        sid,
        reply,
        len(headers),
        len(headers) + len(payload),
        headers,
        payload,
    )


_RARE = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"server_id":"x"}\r\n'])


class _Heard:
    """What a parser tells its client."""

    def __init__(self) -> None:
        self.messages: list[Cut] = []
        self.words: list[str] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.messages.append((sid, subject, reply, data, headers or b""))

    async def _process_ping(self) -> None:
        self.words.append("ping")

    async def _process_pong(self) -> None:
        self.words.append("pong")

    async def _process_err(self, text: str) -> None:
        self.words.append(text)

    async def _process_info(self, info: object) -> None:
        self.words.append(str(info))


class _Received:
    """What a receiver tells."""

    def __init__(self) -> None:
        self.messages: list[Cut] = []
        self.lines: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.receiver = Receiver(asyncio.Protocol(), on_message=self._message, on_word=self.lines.append, on_end=self.ends.append)

    def _message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.messages.append((sid, subject, reply, data, headers or b""))

    def read(self, data: bytes) -> None:
        """As the loop does, which fills as much of the buffer as there is."""
        while data:
            buffer = self.receiver.get_buffer(-1)
            piece, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(piece)] = piece
            self.receiver.buffer_updated(len(piece))


@given(st.lists(st.one_of(_message(), _RARE), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_it_reads_what_the_library_reads_however_the_bytes_were_cut(parts: list[bytes], cuts: list[int]) -> None:
    """What stood behind a PING in the same block was once taken for commands, and the client span for ever."""
    stream = b"".join(parts)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    ours, words, theirs = _Received(), _Heard(), _Heard()

    async def read() -> None:
        parser, rare = Parser(theirs), Parser(words)  # type: ignore[no-untyped-call]
        for start, end in pairwise(places):
            ours.read(stream[start:end])
            await parser.parse(stream[start:end])
        for line in ours.lines:
            await rare.parse(line)

    asyncio.run(read())
    assert ours.messages == theirs.messages
    assert words.words == theirs.words
    assert not ours.ends


@pytest.mark.parametrize("step", [1000, 65_536, 300_000, 10_000_000])
def test_large_messages_come_whole_and_their_room_is_given_back(step: int) -> None:
    sizes = [0, 5, 1024 * 1024, 70_000, 8 * 1024 * 1024, 3, 65_535, 1_179_000]
    stream = b"".join(b"MSG a.b %d %d\r\n%b\r\n" % (n, size, bytes([65 + n]) * size) for n, size in enumerate(sizes))
    ours = _Received()
    usual = len(ours.receiver._buffer)
    for start in range(0, len(stream), step):
        ours.read(stream[start : start + step])
    assert [(sid, len(data), set(data)) for sid, _, _, data, _ in ours.messages] == [
        (n, size, {65 + n} if size else set()) for n, size in enumerate(sizes)
    ]
    assert len(ours.receiver._buffer) == usual


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a\r\n",
        b"MSG a b c\r\n",
        b"HMSG a 1 x 5\r\n",
        b"MSG\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 -" + b"9" * 5000 + b"\r\n",
        b"INFO " + b"x" * 2_000_000,
    ],
    ids=["short", "letters", "header size", "word", "negative", "digits", "endless"],
)
def test_what_is_not_the_protocol_ends_it_once(line: bytes) -> None:
    """Was: nothing was heard any more, until the keep-alive gave up on the connection."""
    ours = _Received()
    ours.read(b"MSG a 1 2\r\nhi\r\n" + line)
    ours.read(b"MSG a 1 2\r\nhi\r\n")
    ours.receiver.eof_received()
    ours.receiver.connection_lost(None)
    assert len(ours.messages) == 1
    assert [type(end) for end in ours.ends] == [MalformedError]


async def _connected(broker: Broker) -> Client:
    bus = await broker.connect("screener")
    assert isinstance(bus.client, Client)
    return bus.client


async def test_each_request_gets_its_own_answer(broker: Broker) -> None:
    client = await _connected(broker)
    answers = await asyncio.gather(
        *(client.request(f"$JS.API.DIRECT.GET.DISPOSITIONS.disposition.{n}.0", timeout=5) for n in range(50))
    )
    assert {answer.headers["Status"] for answer in answers if answer.headers} == {"404"}
    assert not client._answers
    await client.close()


async def test_a_request_that_nobody_hears_ends_at_once(broker: Broker) -> None:
    bus = await broker.connect("api")
    with pytest.raises(nats.errors.NoRespondersError):
        await bus.client.request("control.delivery.list", timeout=30)
    assert not bus.client._answers
    await bus.close()


async def test_a_request_that_nobody_answers_ends_when_its_time_is_up(broker: Broker) -> None:
    client = await _connected(broker)
    with pytest.raises(nats.errors.TimeoutError):
        await client.request("$JS.API.DIRECT.GET.DISPOSITIONS.disposition.1.0", timeout=0)
    assert not client._answers
    await client.close()


async def test_a_request_that_is_cancelled_leaves_nothing_behind(broker: Broker) -> None:
    client = await _connected(broker)
    asked = asyncio.create_task(client.request("$JS.API.DIRECT.GET.DISPOSITIONS.disposition.1.0", timeout=5))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not client._answers
    await client.close()


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0", "a\tb"])
async def test_a_subject_that_would_be_more_than_one_is_refused(broker: Broker, subject: str) -> None:
    client = await _connected(broker)
    with pytest.raises(nats.errors.BadSubjectError):
        await client.publish(subject, b"")
    await client.close()


async def test_headers_count_towards_the_limit(broker: Broker) -> None:
    """The broker counts them and hangs up, with everything that is under way on the connection."""
    client = await _connected(broker)
    with pytest.raises(nats.errors.MaxPayloadError):
        await client.request("disposition.a.1", bytes(client.max_payload - 20), headers={"Nats-Msg-Id": "x" * 20})
    assert client.is_connected
    await client.close()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"Status", b"a b", b"\xc3\xa4", b" One ", b"Two"]), st.sampled_from([b":", b"", b": "]), _PAYLOAD
        )
    )
)
def test_headers_are_read_as_the_library_reads_them(lines: list[tuple[bytes, bytes, bytes]]) -> None:
    block = b"".join(b"".join(line) + b"\r\n" for line in lines)
    assert _header_fields(block) == Client._parse_header_lines(block)


def test_a_line_end_in_a_header_stays_in_it() -> None:
    block = _header_block({"One": "a\r\nTwo: b", "Three": ["c"]})
    assert Client()._fields(block) == {"One": "a  Two: b", "Three": "c"}


async def test_what_was_written_while_the_broker_was_away_never_surfaces(broker: Broker) -> None:
    client = await _connected(broker)
    await client.publish("$JS.API.INFO", b"")
    client._status = Client.RECONNECTING  # between the write and the turn of the loop in which it would go out
    await asyncio.sleep(0)
    client._status = Client.CONNECTED
    assert not client._pending
    client._status = Client.RECONNECTING
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await client.publish("$JS.API.INFO", b"")
    client._status = Client.CONNECTED
    await client.close()


async def test_a_flush_comes_behind_what_was_written_before_it(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: the library's ping overtook it. A drained subscription was then forgotten here before the broker knew, and a message that came in
    between was in nobody's hands until its ack-wait was over."""
    client = await _connected(broker)
    subscription = await client.listen(client.new_inbox(), lambda _: None)
    await client.flush()
    written: list[bytes] = []
    write, writelines = client._transport.write, client._transport.writelines
    monkeypatch.setattr(client._transport, "write", lambda data: written.append(data) or write(data))
    monkeypatch.setattr(client._transport, "writelines", lambda data: written.extend(data) or writelines(data))
    await client.publish("$JS.API.INFO", b"x")
    await client.flush()
    await subscription.drain()
    assert [line.split()[0] for line in written] == [b"PUB", b"PING", b"UNSUB", b"PING"]
    await client.close()


async def test_what_was_published_last_is_sent_before_the_connection_closes(broker: Broker) -> None:
    watching, leaving = await broker.connect("api"), await broker.connect("ingress-anon")
    await leaving.client.publish("intake.anon.last", b"x")
    await leaving.client.close()
    async with asyncio.timeout(20):
        while not (await watching.stream_state("INTAKE"))["messages"]:
            await asyncio.sleep(0.02)
    await watching.close()


async def test_a_listener_that_fails_deafens_nobody(broker: Broker) -> None:
    """Was: it ended the task that reads the connection, and nobody heard anything until the keep-alive gave up on it."""
    client = await _connected(broker)
    failed = asyncio.Event()

    def fail(_: Msg) -> None:
        failed.set()
        raise ValueError("a fault of ours")

    inbox = client.new_inbox()
    await client.listen(inbox, fail)
    await client.publish("$JS.API.DIRECT.GET.DISPOSITIONS.disposition.1.0", b"", inbox)
    async with asyncio.timeout(20):
        await failed.wait()
        await client.request("$JS.API.DIRECT.GET.DISPOSITIONS.disposition.1.0", timeout=5)
    assert client.stats["reconnects"] == 0
    await client.close()


async def test_a_broker_that_does_not_answer_is_left_all_the_same(broker: Broker) -> None:
    """Was: a flush without an answer kept the connection, and the tasks that go with it, open."""
    bus = await broker.connect("screener")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    try:
        await bus.close()
    finally:
        broker.process.send_signal(signal.SIGCONT)
    assert bus.client.is_closed
    assert bus.closed.is_set()
