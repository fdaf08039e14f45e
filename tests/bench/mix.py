"""The messages of a benchmark: real MIME, made once from a seed, so that the generator only has to copy bytes.

small: 4–8 KB of text. mixed: 70 % small, 20 % multipart of about 50 KB, 10 % with an attachment of 300 KB–1 MB. large: 1–10 MB.
Of one size each, for parts of the system: 4k (text), 50k (the multipart of the mixed ones).
Each message begins with a header field of fixed length in which the generator writes the message's number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime

MARK = b"X-Bench-Number: "
MARK_DIGITS = 10
CAUGHT_WORD = "benchmark-forbidden-phrase"
CAUGHT_SHARE = 0.05
# distinct messages of each mix; the large ones are few, since the generator holds them all in memory
_COUNTS = {"small": 200, "mixed": 200, "large": 20, "4k": 40, "50k": 40}
MIXES = ("small", "mixed", "large")
SIZES = ("4k", "50k")
_VOCABULARY = (
    "meeting invoice schedule regards please attached the of and to in report quarter budget project review customer "
    "delivery contract travel office morning question answer number order shipment tomorrow yesterday thanks team update draft final"
)
WORDS = _VOCABULARY.split()
_TENTHS = ("small",) * 7 + ("multipart",) * 2 + ("attachment",)


@dataclass(frozen=True, slots=True)
class Template:
    """One message with room for its number; `caught` when a rule is meant to catch it."""

    data: bytes
    caught: bool

    def numbered(self, number: int) -> tuple[bytes, memoryview]:
        """The message in two pieces: a copy of each would cost what is measured the caches of the processor."""
        return MARK + b"%010d" % number, memoryview(self.data)[len(MARK) + MARK_DIGITS :]


def _text(source: random.Random, size: int) -> str:
    lines = []
    total = 0
    while total < size:
        line = " ".join(source.choices(WORDS, k=11))
        lines.append(line)
        total += len(line) + 2
    return "\n".join(lines) + "\n"


def _message(source: random.Random, text_bytes: int, attachment_bytes: int, *, html: bool, caught: bool) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Sender <sender@origin.example>"
    message["To"] = "recipient@relay.example"
    message["Date"] = localtime()
    message["Subject"] = " ".join(source.choices(WORDS, k=5))
    message["Message-ID"] = f"<{source.getrandbits(64):x}@origin.example>"
    body = _text(source, text_bytes)
    message.set_content(f"{body}\n{CAUGHT_WORD}\n" if caught else body)
    if html:
        message.add_alternative(f"<html><body><p>{_text(source, text_bytes)}</p></body></html>", subtype="html")
    if attachment_bytes:
        content = source.randbytes(attachment_bytes * 3 // 4)
        message.add_attachment(content, maintype="application", subtype="pdf", filename="report.pdf")
    return MARK + b"0" * MARK_DIGITS + b"\r\n" + message.as_bytes()


def caught_flags(mix: str, *, seed: int = 1) -> list[bool]:
    """Of each template of this mix whether a rule is meant to catch it, without making the messages. ValueError for an unknown mix."""
    count = _count(mix)
    caught = set(random.Random(f"{seed}/{mix}/caught").sample(range(count), round(count * CAUGHT_SHARE)))
    return [number in caught for number in range(count)]


def templates(mix: str, *, seed: int = 1) -> list[Template]:
    """The templates of this mix, the same for the same seed but for the Date: field; ValueError for an unknown mix."""
    source = random.Random(f"{seed}/{mix}")
    kinds = [mix if mix != "mixed" else _TENTHS[number % 10] for number in range(_count(mix))]
    source.shuffle(kinds)
    return [
        Template(_of_kind(source, kind, caught=caught), caught)
        for kind, caught in zip(kinds, caught_flags(mix, seed=seed), strict=True)
    ]


def _of_kind(source: random.Random, kind: str, *, caught: bool) -> bytes:
    match kind:
        case "small":
            return _message(source, source.randint(4000, 7500), 0, html=False, caught=caught)
        case "4k":
            return _message(source, 3600, 0, html=False, caught=caught)
        case "multipart" | "50k":
            return _message(source, 6000, 34_000, html=True, caught=caught)
        case "attachment":
            return _message(source, 4000, source.randint(300_000, 1_000_000), html=False, caught=caught)
        case _:
            return _message(source, 4000, source.randint(1_000_000, 10_000_000), html=False, caught=caught)


def _count(mix: str) -> int:
    if mix not in _COUNTS:
        raise ValueError(f"no mix {mix!r}: {', '.join(_COUNTS)}")
    return _COUNTS[mix]
