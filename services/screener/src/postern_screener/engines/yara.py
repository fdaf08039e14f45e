"""YARA-X: the uploaded rules over the message as it came and over the content of every part.

Inside the inspection, so that what bounds and isolates that (watchdog, sandbox, memory) holds here, too. The library holds the interpreter while it
scans; its own time-out, in whole seconds for all parts together, ends that. Rules are compiled when the policy is loaded, off the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, Final

from postern_core.policy import YaraEngine
from postern_core.policy.yara_sources import compile_yara
from postern_screener.engines.answers import Failure, YaraAnswer, YaraMatch, YaraMatches
from postern_screener.message_tree import Message

_MOST_MATCHES: Final = 100
_EXCERPT_BYTES: Final = 72
_WHOLE: Final = "message"


class Yara:
    """Compiled rules. ValueError names the file and line that does not compile."""

    def __init__(self, settings: YaraEngine) -> None:
        self._settings = settings
        self._rules = compile_yara(settings.files)

    def scan(self, message: Message | None, body: bytes) -> YaraAnswer:
        """All matches, in the order of the message; a Failure when that takes too long, or the library fails."""
        import yara_x

        started = time.monotonic()
        scanner = yara_x.Scanner(self._rules)
        matches: list[YaraMatch] = []
        try:
            for part, content in _contents(message, body):
                scanner.set_timeout(max(math.ceil(started + self._settings.timeout_s - time.monotonic()), 1))
                matches += _matches(scanner.scan(content), part, content)
                if time.monotonic() - started > self._settings.timeout_s or len(matches) > _MOST_MATCHES:
                    break
            else:
                return YaraMatches(tuple(matches), _ms_since(started))
        except yara_x.TimeoutError:
            pass
        except yara_x.ScanError as error:
            return Failure(f"it failed: {error}", ms=_ms_since(started))
        if len(matches) > _MOST_MATCHES:  # more would only be more of the same
            return YaraMatches(tuple(matches[:_MOST_MATCHES]), _ms_since(started))
        return Failure(f"not done after {self._settings.timeout_s} s", ms=_ms_since(started))


def _contents(message: Message | None, body: bytes) -> Iterator[tuple[str, bytes]]:
    yield _WHOLE, body
    if message is not None:
        for part in message.parts:
            yield part.path, part.content()


def _matches(found: Any, part: str, content: bytes) -> Iterator[YaraMatch]:
    for rule in found.matching_rules:
        places = [(match.offset, match.length) for pattern in rule.patterns for match in pattern.matches]
        offset, length = min(places, default=(0, 0))
        excerpt = content[offset : offset + min(length, _EXCERPT_BYTES)].decode("utf-8", "replace")
        yield YaraMatch(rule.identifier, rule.namespace, tuple(rule.tags), part, offset, excerpt or rule.identifier)


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
