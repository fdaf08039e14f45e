"""The messages of a benchmark: real MIME, made once from a seed, so that the generator only has to copy bytes.

small: 4–8 KB of text. mixed: 70 % small, 20 % multipart of about 50 KB, 10 % with an attachment of 300 KB–1 MB. large: 1–10 MB.
Each message begins with a header field of fixed length in which the generator writes the message's number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP

MARK = b"X-Bench-Number: "
MARK_DIGITS = 10
CAUGHT_WORD = "benchmark-forbidden-phrase"
_WORDS = [
    "meeting",
    "invoice",
    "schedule",
    "regards",
    "please",
    "attached",
    "the",
    "of",
    "and",
    "to",
    "in",
    "report",
    "quarter",
    "budget",
    "project",
    "review",
    "customer",
    "delivery",
    "contract",
    "travel",
    "office",
    "morning",
    "question",
    "answer",
    "number",
    "order",
    "shipment",
    "tomorrow",
    "yesterday",
    "thanks",
    "team",
    "update",
    "draft",
    "final",
]
_TENTHS = ("small",) * 7 + ("multipart",) * 2 + ("attachment",)


@dataclass(frozen=True, slots=True)
class Template:
    """One message with room for its number; `caught` when a rule is meant to hold it."""

    data: bytes
    caught: bool

    def numbered(self, number: int) -> bytes:
        return MARK + b"%010d" % number + self.data[len(MARK) + MARK_DIGITS :]


def _text(source: random.Random, size: int) -> str:
    lines = []
    total = 0
    while total < size:
        line = " ".join(source.choices(_WORDS, k=11))
        lines.append(line)
        total += len(line) + 2
    return "\n".join(lines) + "\n"


def _message(source: random.Random, text_bytes: int, attachment_bytes: int, *, html: bool, caught: bool) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Sender <sender@origin.example>"
    message["To"] = "recipient@relay.example"
    message["Subject"] = " ".join(source.choices(_WORDS, k=5))
    message["Message-ID"] = f"<{source.getrandbits(64):x}@origin.example>"
    body = _text(source, text_bytes)
    message.set_content(f"{body}\n{CAUGHT_WORD}\n" if caught else body)
    if html:
        message.add_alternative(f"<html><body><p>{_text(source, text_bytes)}</p></body></html>", subtype="html")
    if attachment_bytes:
        content = source.randbytes(attachment_bytes * 3 // 4)
        message.add_attachment(content, maintype="application", subtype="pdf", filename="report.pdf")
    return MARK + b"0" * MARK_DIGITS + b"\r\n" + message.as_bytes()


def templates(mix: str, *, seed: int = 1, count: int = 200, caught_share: float = 0.05) -> list[Template]:
    """`count` templates of this mix; ValueError for an unknown one."""
    source = random.Random(f"{seed}/{mix}")
    made = []
    for number in range(count):
        caught = source.random() < caught_share
        kind = {"small": "small", "large": "large"}.get(mix) or _mixed_kind(mix, number)
        match kind:
            case "small":
                data = _message(source, source.randint(4000, 7500), 0, html=False, caught=caught)
            case "multipart":
                data = _message(source, 6000, 34_000, html=True, caught=caught)
            case "attachment":
                data = _message(source, 4000, source.randint(300_000, 1_000_000), html=False, caught=caught)
            case _:
                data = _message(source, 4000, source.randint(1_000_000, 10_000_000), html=False, caught=caught)
        made.append(Template(data, caught))
    source.shuffle(made)
    return made


def _mixed_kind(mix: str, number: int) -> str:
    if mix != "mixed":
        raise ValueError(f"no mix {mix!r}: small, mixed or large")
    return _TENTHS[number % 10]
