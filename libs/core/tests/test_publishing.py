"""A publish returns when the message is stored, and every other answer becomes an error that says whether it may be tried again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.msg import Msg

from fixtures.broker import Broker
from fixtures.ports import free_port
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, connection
from postern_core.bus.publishing import SubjectTakenError
from postern_core.bus.topology import INTAKE
from postern_core.errors import TransientError

STORED = {"stream": "S", "seq": 5}
DUPLICATE = {"stream": "S", "seq": 5, "duplicate": True}
NOT_YET = {"stream": "S", "seq": 0, "duplicate": True}


def refused(err_code: int, description: str) -> dict[str, object]:
    return {"error": {"code": 400, "err_code": err_code, "description": description}, "stream": "S", "seq": 0}


IN_PROCESS = refused(10158, "duplicate message id is in process")


class Scripted:
    """Answers publishes in the place of a stream: the next of `answers`, the last one for ever; None says nothing."""

    def __init__(self) -> None:
        self.answers: list[dict[str, object] | None] = []
        self.ids: list[str] = []

    async def answer(self, msg: Msg) -> None:
        assert msg.headers is not None
        self.ids.append(connection.header(msg, "Nats-Msg-Id"))
        answer = self.answers[min(len(self.ids), len(self.answers)) - 1]
        if answer is not None:
            await msg._client.publish(msg.reply, json.dumps(answer).encode())


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[Bus, Scripted]]:
    """A real server without streams, our client, and whoever answers on subject `s`."""
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(  # noqa: ASYNC220
            [str(Path(sys.executable).parent / "nats-server"), "-a", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    url = f"nats://127.0.0.1:{port}"
    stream = Scripted()
    answering = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
    await answering.subscribe("s", cb=stream.answer)
    await answering.flush()
    await answering.flush()
    client = await nats.connect(url)
    yield Bus(client), stream
    await client.close()
    await answering.close()
    server.terminate()
    server.wait()


async def publish(bus: Bus, *, subject: str = "s", deadline_s: float = 2) -> connection.PubAck:
    return await bus.publish("S", subject, b"mail", "id", deadline_s=deadline_s)


@pytest.mark.parametrize("answers", [[STORED], [DUPLICATE], [IN_PROCESS, DUPLICATE], [NOT_YET, NOT_YET, STORED]])
async def test_it_returns_when_the_message_has_its_place(
    scripted: tuple[Bus, Scripted], answers: list[dict[str, object] | None]
) -> None:
    bus, stream = scripted
    stream.answers = answers
    stored = await publish(bus)
    assert (stored.stream, stored.seq, stored.duplicate) == ("S", 5, bool(answers[-1] and answers[-1].get("duplicate")))
    assert stream.ids == ["id"] * len(answers)


async def test_silence_is_answered_with_the_same_id_again(
    scripted: tuple[Bus, Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TRY_TIMEOUT_S", 0.1)
    bus, stream = scripted
    stream.answers = [None, None, DUPLICATE]
    assert (await publish(bus, deadline_s=20)).duplicate
    assert stream.ids == ["id"] * 3


@pytest.mark.parametrize("answer", [IN_PROCESS, NOT_YET, None])
async def test_what_is_not_stored_by_the_deadline_is_not_called_stored(
    scripted: tuple[Bus, Scripted], answer: dict[str, object] | None
) -> None:
    """A duplicate of something that never was stored, above all: the client would be told 250 for nothing."""
    bus, stream = scripted
    stream.answers = [answer]
    with pytest.raises(TransientError) as error:
        await publish(bus, deadline_s=0.3)
    assert str(error.value.reply).startswith("451 4.3.0 ")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (refused(10077, "maximum bytes exceeded"), "452 4.3.1"),
        (refused(10077, "write error: no space left on device"), "452 4.3.1"),
        (refused(10023, "insufficient resources"), "452 4.3.1"),
        (refused(10047, "insufficient storage resources available"), "452 4.3.1"),
        (refused(10002, "resource limits exceeded for account"), "452 4.3.1"),
        (refused(10077, "store is closed"), "451 4.3.0"),
        (refused(10054, "message size exceeds maximum allowed"), "451 4.3.0"),
        (refused(10060, "expected stream does not match"), "451 4.3.0"),
        ({"stream": "T", "seq": 5}, "451 4.3.0"),
        ({"stream": "T", "seq": 5, "duplicate": True}, "451 4.3.0"),
    ],
)
async def test_a_refusal_is_transient_and_says_full_only_when_it_is(
    scripted: tuple[Bus, Scripted], answer: dict[str, object], reply: str
) -> None:
    bus, stream = scripted
    stream.answers = [answer]
    with pytest.raises(TransientError) as error:
        await publish(bus)
    assert str(error.value.reply).startswith(reply)
    assert stream.ids == ["id"]


async def test_a_subject_that_is_taken_is_told_apart(scripted: tuple[Bus, Scripted]) -> None:
    bus, stream = scripted
    stream.answers = [refused(10077, "maximum messages per subject exceeded")]
    with pytest.raises(SubjectTakenError):
        await publish(bus)


async def test_a_stream_that_is_not_there_is_waited_for_until_the_deadline(scripted: tuple[Bus, Scripted]) -> None:
    bus, _ = scripted
    with pytest.raises(TransientError, match="no stream takes nowhere"):
        await publish(bus, subject="nowhere", deadline_s=0.3)


async def test_a_payload_over_the_brokers_limit_does_not_close_the_connection(scripted: tuple[Bus, Scripted]) -> None:
    bus, stream = scripted
    stream.answers = [STORED]
    with pytest.raises(TransientError, match="max_payload"):
        await bus.publish("S", "s", b"x" * (bus.client.max_payload + 1), "id")
    assert (await publish(bus)).seq == 5


async def test_a_try_whose_outcome_is_unknown_is_repeated_over_a_restart_of_the_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: given up as soon as the connection broke, though the first try may have been stored: the client then sends a second copy."""
    monkeypatch.setattr(connection, "_TRY_TIMEOUT_S", 0.3)
    gate = await broker.connect("ingress-anon")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    sending = asyncio.create_task(gate.publish(INTAKE, "intake.anon.x", b"mail", "x", deadline_s=60))
    await asyncio.sleep(1)  # a try or two without an answer
    await asyncio.to_thread(broker.restart, signal.SIGKILL)
    assert (await sending).seq == 1
    provisioner = await broker.connect(PROVISIONER)
    assert (await provisioner.stream_state(INTAKE))["messages"] == 1
    await gate.close()
    await provisioner.close()


async def test_a_first_try_while_the_broker_is_away_is_refused_at_once_and_does_not_surface_later(broker: Broker) -> None:
    gate = await broker.connect("ingress-anon")
    broker.stop()
    while gate.connected:
        await asyncio.sleep(0.01)
    with pytest.raises(TransientError):
        await gate.publish(INTAKE, "intake.anon.ghost", b"mail", "ghost", deadline_s=60)
    broker.restart()
    async with asyncio.timeout(20):
        while not gate.connected:
            await asyncio.sleep(0.02)
    assert (await gate.publish(INTAKE, "intake.anon.x", b"mail", "x")).seq == 1
    await gate.close()
