"""A steady mixed load through both gates that records every 250, and every try that got none.

Each mail has a marker of its own in its Message-ID; a client that got no 250 sends the same mail again, as an MTA does, so that a copy at the
smart host can be told from a second message.
"""

from __future__ import annotations

import random
import smtplib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fixtures.mail import a_message
from fixtures.stack import queue_id_of

if TYPE_CHECKING:
    from chaos.target import Target

HELD_WORD = "chaos-hold-this"
DELETED_WORD = "chaos-delete-this"
REFUSED = "refused@relay.example"


@dataclass(frozen=True, slots=True)
class Mail:
    """What a client wants to send."""

    marker: str
    gate: str
    sender: str
    recipients: tuple[str, ...]
    message: bytes
    fate: str  # what should become of it: delivered, held, deleted or bounced


@dataclass(frozen=True, slots=True)
class Accepted:
    """One 250."""

    queue_id: str
    mail: Mail
    at_s: float


@dataclass
class Record:
    """Everything that the clients saw. `lock` guards it."""

    started: float = field(default_factory=time.monotonic)
    accepted: list[Accepted] = field(default_factory=list)
    unanswered: dict[str, int] = field(
        default_factory=dict
    )  # marker → tries whose end was not heard, or was 4yz at the end of data
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now_s(self) -> float:
        return time.monotonic() - self.started


def a_mail(source: random.Random, run: str, number: int, *, refused: bool = True) -> Mail:
    """One of the mix: small text, some with several recipients, some large, some that a rule catches, some (if `refused`) that are
    refused behind us."""
    marker = f"{run}-{number}"
    recipients = tuple(f"r{n}@relay.example" for n in range(source.choice((1, 1, 1, 2, 5))))
    body, attachments, fate = "text " * source.randint(800, 1600), {}, "delivered"
    roll = source.random()
    if roll < 0.05:
        body, fate = f"{body} {HELD_WORD}", "held"
    elif roll < 0.08:
        body, fate = f"{body} {DELETED_WORD}", "deleted"
    elif roll < 0.11 and refused:
        recipients, fate = (REFUSED,), "bounced"
    elif roll < 0.20:
        attachments = {"picture.bin": source.randbytes(40_000)}
    elif roll < 0.23:
        attachments = {"large.bin": source.randbytes(700_000)}  # over the inline limit
    sender = f"{marker}@relay.example"
    message = a_message(subject=marker, body=body, attachments=attachments, sender=sender)
    gate = "auth_starttls" if number % 4 == 0 else "anon"
    return Mail(marker, gate, sender, recipients, message, fate)


class SteadyLoad:
    """`clients` threads that send about `rate` messages a second in all, until `stop`."""

    def __init__(self, target: Target, *, seed: int, rate: float, clients: int = 6) -> None:
        self.record = Record()
        self._target = target
        self._seed = seed
        self._pause_s = clients / rate
        self._clients = clients
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self._clients):
            thread = threading.Thread(target=self._client, args=(number,), name=f"client-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """No new mail; what was begun is sent until it is accepted (at most a minute)."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} could not get its last mail accepted")

    def _client(self, number: int) -> None:
        source = random.Random(f"{self._seed}/{number}")
        waiting: Mail | None = None
        sent = 0
        while waiting or not self._stop.is_set():
            gate = "auth_starttls" if (number + sent) % 4 == 0 else "anon"
            try:
                with self._target.client(gate, timeout=40) as client:
                    self._greet(client, gate)
                    for _ in range(10):
                        if waiting is None:
                            if self._stop.is_set():
                                break
                            sent += 1
                            waiting = a_mail(source, f"c{number}", sent, refused=self._target.refuses)
                        if self._transaction(client, waiting):
                            waiting = None
                            time.sleep(self._pause_s)
                        else:
                            time.sleep(0.2)
            except (smtplib.SMTPException, OSError):
                time.sleep(0.2)

    def _greet(self, client: smtplib.SMTP, gate: str) -> None:
        if gate != "anon":
            client.starttls(context=self._target.tls_context)
            user = self._target.endpoints["demo_user"]
            client.login(user["name"], user["password"])
        client.ehlo()

    def _transaction(self, client: smtplib.SMTP, mail: Mail) -> bool:
        """Whether the gate took the mail."""
        if client.docmd("MAIL", f"FROM:<{mail.sender}>")[0] != 250:
            return self._not_taken(client)
        for recipient in mail.recipients:
            if client.docmd("RCPT", f"TO:<{recipient}>")[0] != 250:
                return self._not_taken(client)
        try:
            answer = client.data(mail.message)
        except (smtplib.SMTPException, OSError):
            self._unanswered(mail)
            raise
        if answer[0] != 250:
            self._unanswered(mail)
            return self._not_taken(client)
        accepted = Accepted(queue_id_of(answer), mail, self.record.now_s())
        with self.record.lock:
            self.record.accepted.append(accepted)
        return True

    def _unanswered(self, mail: Mail) -> None:
        with self.record.lock:
            self.record.unanswered[mail.marker] = self.record.unanswered.get(mail.marker, 0) + 1

    def _not_taken(self, client: smtplib.SMTP) -> bool:
        with self.record.lock:
            self.record.refused += 1
        client.rset()
        return False
