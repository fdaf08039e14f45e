"""clamd and rspamd as they are: what they find, what they refuse, and what their clients do when they die, hang or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.clamd import INFECTED, STREAM_MAX_BYTES, VIRUS, ClamdServer
from fixtures.rspamd_server import BAD_SENDER, BAD_USER, SCORE, SPAMMY, SYMBOL, RspamdServer
from postern_core.control import EngineState
from postern_core.envelope import Client
from postern_core.policy import ClamdEngine, Engines, RspamdEngine
from postern_core.verdict import Engine
from postern_screener.engines.answers import EngineError, Failure, Spam, Viruses
from postern_screener.engines.asking import EngineDesk
from postern_screener.engines.breaker import FAILURES
from postern_screener.engines.clamd import Clamd, parse_reply
from postern_screener.engines.links import IDLE_S, Links
from postern_screener.engines.rspamd import Rspamd, envelope_fields, parse_answer

HEAD = b"From: x@sender.example\r\nSubject: s\r\n\r\n"


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdServer]:
    with ClamdServer(tmp_path_factory.mktemp("clamd") / "one") as server:
        yield server


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RspamdServer]:
    with RspamdServer(tmp_path_factory.mktemp("rspamd") / "one") as server:
        yield server


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The address of something that takes connections and says nothing."""
    async with server(lambda _, __: asyncio.sleep(3600)) as address:
        yield address


@contextlib.asynccontextmanager
async def server(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    tasks: list[asyncio.Task[None]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_a_virus_is_found_and_clean_mail_is_clean(clamd: ClamdServer, an_envelope: Any, where: str) -> None:
    client = Clamd(ClamdEngine(address=getattr(clamd, where)))
    await client.ping()
    assert await client.ask(an_envelope(), HEAD + b"hello") == Viruses()
    assert await client.ask(an_envelope(), HEAD + b"x" * 600_000 + INFECTED) == Viruses((f"{VIRUS}.UNOFFICIAL",))
    assert await client.ask(an_envelope(), b"") == Viruses()
    assert client.links.idle == 1  # one connection carried all four
    client.close()


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_a_stream_that_is_too_large_for_clamd_is_a_lasting_failure(
    clamd: ClamdServer, an_envelope: Any, where: str
) -> None:
    """clamd says so and hangs up while the rest is still on its way: what it said must not get lost with the connection."""
    client = Clamd(ClamdEngine(address=getattr(clamd, where)))
    for _ in range(5):
        with pytest.raises(EngineError, match="size limit exceeded") as raised:
            await client.ask(an_envelope(), b"x" * (20 * STREAM_MAX_BYTES))
        assert raised.value.lasting
    assert await client.ask(an_envelope(), HEAD + INFECTED) == Viruses((f"{VIRUS}.UNOFFICIAL",))
    client.close()


async def test_what_is_larger_than_the_policy_says_is_not_sent(an_envelope: Any) -> None:
    for client in (Clamd(ClamdEngine(max_bytes=10)), Rspamd(RspamdEngine(max_bytes=10))):
        with pytest.raises(EngineError, match="more than the 10") as raised:
            await client.ask(an_envelope(), b"x" * 11)
        assert raised.value.lasting


async def test_connections_are_no_more_than_the_policy_says(clamd: ClamdServer, an_envelope: Any) -> None:
    client = Clamd(ClamdEngine(address=clamd.tcp, max_connections=2))
    answers = await asyncio.gather(*(client.ask(an_envelope(), HEAD + INFECTED * (k % 2)) for k in range(20)))
    assert [bool(answer.names) for answer in answers] == [bool(k % 2) for k in range(20)]
    assert client.links.idle == 2
    client.close()


async def test_a_clamd_that_restarted_is_asked_over_a_new_connection(tmp_path: Path, an_envelope: Any) -> None:
    with ClamdServer(tmp_path / "clamd") as server:
        client = Clamd(ClamdEngine(address=server.tcp))
        await client.ask(an_envelope(), HEAD)
        server.stop()
        with pytest.raises(EngineError, match="cannot connect"):
            await client.ask(an_envelope(), HEAD)
        server.start()
        assert (await client.ask(an_envelope(), HEAD + INFECTED)).names
        client.close()


async def test_a_clamd_that_dies_in_the_middle_is_a_failure(tmp_path: Path, an_envelope: Any) -> None:
    with ClamdServer(tmp_path / "clamd") as server:
        client = Clamd(ClamdEngine(address=server.tcp, max_bytes=100_000_000))
        server.hang()  # the kernel takes the connection and the first octets
        asking = asyncio.create_task(client.ask(an_envelope(), bytes(50_000_000)))
        while not any(task.get_name() == "clamd-send" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
        server.stop()
        with pytest.raises(EngineError) as raised:
            await asking
        assert not raised.value.lasting
        client.close()


async def test_a_question_that_is_cancelled_leaves_no_connection_in_the_middle_of_something(
    silent: str, an_envelope: Any
) -> None:
    client = Clamd(ClamdEngine(address=silent, max_connections=1))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.ask(an_envelope(), b"x" * 5_000_000)
    assert client.links.idle == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "clamd-send"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"stream: OK", Viruses()),
        (b"1: stream: OK", Viruses()),
        (b"17: stream: Eicar-Test-Signature FOUND", Viruses(("Eicar-Test-Signature",))),
        (b"stream: Win.Test.EICAR_HDB-1(44d88612fea8a8f36de82e1278abb02f:68) FOUND", None),
        (b"stream: a b: c FOUND", Viruses(("a b: c",))),
    ],
)
def test_replies_of_clamd(reply: bytes, expected: Viruses | None) -> None:
    assert parse_reply(reply) == (expected or Viruses((reply.decode().split(" ")[1],)))


@pytest.mark.parametrize(
    ("reply", "lasting"),
    [
        (b"1: INSTREAM size limit exceeded. ERROR", True),
        (b"1: stream: Heuristics.Limits.Exceeded.MaxScanSize FOUND", True),
        (b"stream: Can't allocate memory ERROR", False),
        (b"stream: FOUND", False),
        (b"UNKNOWN COMMAND", False),
        (b"", False),
        (b"PONG", False),
        (b"nothing OK", False),
    ],
)
def test_what_is_no_verdict_of_clamd_is_a_failure(reply: bytes, lasting: bool) -> None:
    with pytest.raises(EngineError) as raised:
        parse_reply(reply)
    assert raised.value.lasting is lasting


@given(st.binary(max_size=200))
def test_no_reply_of_clamd_is_clean_but_ok(reply: bytes) -> None:
    try:
        found = parse_reply(reply)
    except EngineError:
        return
    assert found.names or reply.strip().endswith(b"OK")


async def test_rspamd_scores_by_message_and_by_envelope(rspamd: RspamdServer, an_envelope: Any) -> None:
    client = Rspamd(RspamdEngine(url=rspamd.url))
    await client.ping()
    assert (await client.ask(an_envelope(), HEAD)).action == "no action"
    assert await client.ask(an_envelope(reverse_path=""), HEAD.replace(b"Subject: s", b"Subject: " + SPAMMY.encode())) == Spam(
        SCORE, 15.0, "add header", (SYMBOL,)
    )
    envelope = msgspec.structs.replace(
        an_envelope("a@relay.example", "b@relay.example", reverse_path=BAD_SENDER),
        client=Client(address="192.0.2.1", helo="helo.example", user=BAD_USER),
    )
    answer = await client.ask(envelope, HEAD)
    assert (answer.score, answer.action) == (20.0, "reject")
    client.close()


def test_no_envelope_ends_a_field_for_rspamd(an_envelope: Any) -> None:
    envelope = msgspec.structs.replace(
        an_envelope("a\r\nIP: 1.2.3.4@relay.example", reverse_path=""), client=Client(address="::1", helo="x\ny\0", user="jösé")
    )
    fields = list(envelope_fields(envelope))
    assert fields[0] == (b"From", b"<>")
    assert not any(set(value) & set(b"\r\n\0") for _, value in fields)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"score": "7"}', b'{"score":1,"required_score":15}', b'{"score":NaN,"required_score":15,"action":"x"}'],
)
def test_what_is_no_answer_of_rspamd_is_a_failure_and_no_score(data: bytes) -> None:
    with pytest.raises(EngineError, match="not understood"):
        parse_answer(data)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"HTTP/1.1 500 no\r\nContent-Length: 4\r\n\r\noops", "HTTP status 500: oops"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}", "no whole answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not understood"),
        (b"220 smtp.example ESMTP\r\n", "no whole answer"),
        (b"", "no whole answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000, "has no end"),
    ],
    ids=["500", "short", "no score", "smtp", "nothing", "endless"],
)
async def test_a_server_that_is_no_rspamd_is_a_failure(an_envelope: Any, wire: bytes, reason: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(HEAD)
        writer.write(wire)
        with contextlib.suppress(OSError):
            await writer.drain()

    async with server(talk) as address:
        client = Rspamd(RspamdEngine(url=f"http://{address}"))
        with pytest.raises(EngineError, match=reason):
            await client.ask(an_envelope(), HEAD)
        client.close()


async def test_a_connection_that_a_server_keeps_is_used_again(an_envelope: Any) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        answer = b'{"score":1,"required_score":15,"action":"no action"}'
        while await reader.readuntil(HEAD):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)

    async with server(talk) as address:
        client = Rspamd(RspamdEngine(url=f"http://{address}"))
        for _ in range(3):
            assert (await client.ask(an_envelope(), HEAD)).score == 1
        assert connections == 1
        client.close()


async def test_a_connection_that_the_peer_ended_or_that_idled_is_not_used(clamd: ClamdServer) -> None:
    now = 0.0
    links = Links(clamd.tcp, 1, clock=lambda: now)
    async with links.link() as first:
        first.reusable = True
    now = IDLE_S + 1
    async with links.link() as second:
        assert second is not first
        await second.send(b"zPING\0")  # clamd answers, and hangs up
        assert await second.receive() == b"PONG\0"
        second.reusable = True
        while not second.is_stale:
            await asyncio.sleep(0.01)
    async with links.link() as third:
        assert third is not second
    links.close()


# -- asked together


def desk_with(clamd: ClamdEngine | None = None, rspamd: RspamdEngine | None = None, ping_every_s: float = 3600) -> EngineDesk:
    desk = EngineDesk(ping_every_s=ping_every_s)
    desk.follow(Engines(clamd=clamd or ClamdEngine(), rspamd=rspamd or RspamdEngine()))
    return desk


async def test_what_fails_for_trials_is_not_held_against_an_engine(silent: str, an_envelope: Any) -> None:
    """An administrator who tries a message again and again that the engine cannot do must not have live mail go without it."""
    desk = desk_with(rspamd=RspamdEngine(enabled=True, url=f"http://{silent}", timeout_s=0.05))
    for _ in range(2 * FAILURES):
        answers = await desk.ask((Engine.RSPAMD,), an_envelope(), HEAD, is_trial=True)
        assert isinstance(answers.rspamd, Failure)
    assert [status.state for status in desk.statuses()] == [EngineState.UNKNOWN]
    for _ in range(FAILURES):
        await desk.ask((Engine.RSPAMD,), an_envelope(), HEAD)
    assert [status.state for status in desk.statuses()] == [EngineState.OPEN]


async def test_engines_are_asked_side_by_side_and_one_that_fails_spoils_no_other(
    clamd: ClamdServer, silent: str, an_envelope: Any
) -> None:
    desk = desk_with(
        ClamdEngine(enabled=True, address=clamd.tcp), RspamdEngine(enabled=True, url=f"http://{silent}", timeout_s=0.3)
    )
    answers = await desk.ask((Engine.CLAMD, Engine.RSPAMD), an_envelope(), HEAD + INFECTED)
    assert isinstance(answers.clamd, Viruses)
    assert answers.clamd.names == (f"{VIRUS}.UNOFFICIAL",)
    assert answers.clamd.ms > 0
    assert isinstance(answers.rspamd, Failure)
    assert answers.rspamd.reason == "no answer after 0.3 s"
    assert {status.engine: (status.state, status.asked, status.failed) for status in desk.statuses()} == {
        Engine.CLAMD: (EngineState.OK, 1, 0),
        Engine.RSPAMD: (EngineState.FAILING, 1, 1),
    }


async def test_an_engine_that_fails_again_and_again_is_left_alone_until_it_is_back(tmp_path: Path, an_envelope: Any) -> None:
    with ClamdServer(tmp_path / "clamd") as server:
        desk = desk_with(ClamdEngine(enabled=True, address=server.unix), ping_every_s=0.05)
        server.stop()
        for _ in range(5):
            assert isinstance((await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd, Failure)
        assert desk.statuses()[0].state is EngineState.OPEN
        not_asked = (await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd
        assert isinstance(not_asked, Failure)
        assert not_asked.reason.startswith("not asked")
        server.start()
        stop = asyncio.Event()
        running = asyncio.create_task(desk.run(stop))  # it answers to its name: the next message need not wait for the pause
        async with asyncio.timeout(20):
            while isinstance((await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd, Failure):
                await asyncio.sleep(0.02)
        assert desk.statuses()[0].state is EngineState.OK
        assert desk.statuses()[0].error == ""
        stop.set()
        await running


async def test_health_is_known_without_mail(tmp_path: Path) -> None:
    with ClamdServer(tmp_path / "clamd") as server:
        desk = desk_with(ClamdEngine(enabled=True, address=server.tcp), ping_every_s=0.05)
        assert desk.statuses()[0].state is EngineState.UNKNOWN
        stop = asyncio.Event()
        running = asyncio.create_task(desk.run(stop))
        async with asyncio.timeout(20):
            while desk.statuses()[0].state is not EngineState.OK:
                await asyncio.sleep(0.02)
            server.stop()
            while desk.statuses()[0].state is not EngineState.OPEN:
                await asyncio.sleep(0.02)
        assert "cannot connect" in desk.statuses()[0].error
        assert desk.statuses()[0].asked == 0
        stop.set()
        await running


async def test_a_message_that_is_too_large_says_nothing_about_the_engine(clamd: ClamdServer, an_envelope: Any) -> None:
    desk = desk_with(ClamdEngine(enabled=True, address=clamd.tcp))
    for _ in range(10):
        answer = (await desk.ask((Engine.CLAMD,), an_envelope(), b"x" * (2 * STREAM_MAX_BYTES))).clamd
        assert isinstance(answer, Failure)
        assert answer.lasting
    assert desk.statuses()[0].state is not EngineState.OPEN
    assert (await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd != answer


async def test_a_policy_that_changes_an_engine_gives_it_a_new_start(clamd: ClamdServer, silent: str, an_envelope: Any) -> None:
    desk = desk_with(ClamdEngine(enabled=True, address=silent, timeout_s=0.05))
    for _ in range(5):
        await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)
    assert desk.statuses()[0].state is EngineState.OPEN
    desk.follow(Engines(clamd=ClamdEngine(enabled=True, address=clamd.tcp)))
    assert isinstance((await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd, Viruses)
    desk.follow(Engines())
    assert desk.statuses() == ()
    assert isinstance((await desk.ask((Engine.CLAMD,), an_envelope(), HEAD)).clamd, Failure)
