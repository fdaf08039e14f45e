"""Random command sequences against the real gate, over a socket, and against a model of the protocol (fixtures.smtp_model)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from fixtures.gates import PATIENCE_S, GateUnderTest
from fixtures.smtp_model import (
    BINARY_OPENING,
    COMMANDS,
    LIMIT_BYTES,
    MALFORMED_CHUNKS,
    MAX_ERRORS,
    MAX_RECIPIENTS,
    OPENING,
    STARTTLS,
    TEXTS,
    Model,
    Step,
    chunk,
    data,
    wire,
)

EXAMPLES, STEPS = 100, 20
# of a pipelined group, which has to arrive as one segment: whether more was sent behind DATA makes a difference
SHORT = [step for step in COMMANDS if len(step.wire) < 200]
OPENINGS = st.sampled_from([(), OPENING, OPENING, BINARY_OPENING])
SHORT_TEXTS = [text for text in TEXTS if len(text) < 200]


class Client:
    """A client that waits, in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        assert self.code() == 220

    def send(self, octets: bytes, *, dripping: bool = False) -> None:
        """In one segment, or each octet in its own."""
        if dripping:
            for octet in octets:
                self.socket.sendall(bytes([octet]))
        else:
            self.socket.sendall(octets)

    def code(self) -> int:
        """The code of the next reply; 0 when the connection is closed."""
        while True:
            while b"\r\n" not in self._unread:
                try:
                    block = self.socket.recv(65_536)
                except ConnectionError:
                    block = b""
                if not block:
                    return 0
                self._unread += block
            line, _, self._unread = self._unread.partition(b"\r\n")
            if line[3:4] != b"-":
                return int(line[:3])

    def start_tls(self, context: ssl.SSLContext) -> None:
        assert not self._unread
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")


class Sequences(RuleBasedStateMachine):
    """One example; the connection is made anew when one is over."""

    gate: GateUnderTest
    loop: asyncio.AbstractEventLoop
    context: ssl.SSLContext

    def __init__(self) -> None:
        super().__init__()
        self.stored_before = self.on_loop(self.gate.intake_count())
        self.accepted = 0
        self.connect()

    def on_loop(self, asked: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(asked, self.loop).result(PATIENCE_S)

    def connect(self) -> None:
        address = self.gate.listener.addresses[0]
        self.client, self.model = Client(address.host, address.port), Model()

    def hang_up(self) -> None:
        self.accepted += self.model.accepted
        self.client.socket.close()

    def check(self, steps: Sequence[Step], *, dripping: bool = False) -> None:
        """Send them together, and compare every answer; whatever follows a STARTTLS that is taken, or an end, is not answered."""
        self.client.send(b"".join(map(wire, steps)), dripping=dripping)
        for n, step in enumerate(steps):
            was_plain = not self.model.tls
            for expected in self.model.answer(step, more=n < len(steps) - 1):
                assert self.client.code() == expected, (step, steps)
            if self.model.closed:
                assert self.client.code() == 0
                self.hang_up()
                self.connect()
                return
            if was_plain and self.model.tls:
                self.client.start_tls(self.context)
                return

    @rule(steps=st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=4), dripping=st.booleans())
    def say(self, steps: list[Step], dripping: bool) -> None:
        for step in steps:
            self.check([step], dripping=dripping and len(step.wire) < 100)

    @rule(
        opening=OPENINGS,
        steps=st.lists(
            st.sampled_from(SHORT)
            | st.builds(chunk, st.sampled_from(SHORT_TEXTS), last=st.booleans())
            | st.builds(data, st.sampled_from(SHORT_TEXTS)),
            min_size=2,
            max_size=6,
        ),
    )
    def pipeline(self, opening: Sequence[Step], steps: list[Step]) -> None:
        self.check([*opening, *steps])

    def open_transaction(self, opening: Sequence[Step]) -> None:
        if self.model.mail is None:
            for step in opening:
                self.check([step])

    @rule(opening=OPENINGS, text=st.sampled_from(TEXTS), cut=st.integers(0, 40))
    def send_data(self, opening: Sequence[Step], text: bytes, cut: int) -> None:
        self.open_transaction(opening)
        model = self.model
        self.check([Step("DATA", b"DATA")])
        if model is self.model and model.takes_data:
            self.client.send(text[:cut])
            self.client.send(text[cut:] + b"\r\n.\r\n")
            expected = model.end_of_data(text)
            assert self.client.code() == expected, text
            if model.closed:
                self.hang_up()
                self.connect()

    @rule(opening=OPENINGS, texts=st.lists(st.sampled_from(TEXTS), max_size=3), last=st.booleans(), dripping=st.booleans())
    def send_chunks(self, opening: Sequence[Step], texts: list[bytes], last: bool, dripping: bool) -> None:
        self.open_transaction(opening)
        for octets in texts:
            self.check([chunk(octets, last=False)], dripping=dripping and len(octets) < 200)
        self.check([chunk(b"the end", last=last)])

    @rule(step=st.sampled_from(MALFORMED_CHUNKS))
    def send_chunk_of_unknown_length(self, step: Step) -> None:
        self.check([step])

    @rule(behind=st.lists(st.sampled_from(COMMANDS), max_size=3))
    def start_tls(self, behind: list[Step]) -> None:
        self.check([STARTTLS, *behind])

    @rule(text=st.sampled_from(TEXTS), by=st.sampled_from(["DATA", "BDAT 5000 LAST", "BDAT 5000", ""]))
    def leave_in_the_middle(self, text: bytes, by: str) -> None:
        self.client.send(by.encode() + b"\r\n" + text if by else b"NOO")
        self.hang_up()
        self.connect()

    def teardown(self) -> None:
        self.hang_up()
        self.on_loop(self.gate.wait_for(lambda: self.gate.listener.connections == 0 and not self.gate.listener._storing))
        assert self.gate.listener.memory.used_bytes == 0
        assert not self.gate.listener._crowd.total()
        # what got its 250 is there once, and nothing else is
        assert self.on_loop(self.gate.intake_count()) == self.stored_before + self.accepted


async def test_every_sequence_is_answered_as_the_model_says(tls_gate: GateUnderTest, certificate: tuple[Path, Path]) -> None:
    await tls_gate.policy(
        max_errors=MAX_ERRORS,
        max_messages=None,
        max_recipients=MAX_RECIPIENTS,
        max_message_bytes=LIMIT_BYTES,
        max_session_bytes=None,
    )
    context = ssl.create_default_context(cafile=str(certificate[0]))
    machine = type("Machine", (Sequences,), {"gate": tls_gate, "loop": asyncio.get_running_loop(), "context": context})
    some = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=some)
