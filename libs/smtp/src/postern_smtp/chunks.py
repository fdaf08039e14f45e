"""Message data that comes by BDAT (RFC 3030): chunks of known length → one message. No socket in it.

Promises
- Octets are counted, not looked at: nothing in a chunk ends it, and nothing is undone in it (section 2: no dot-stuffing).
- What is refused stays refused: once a chunk of it was, no later one can make a message of the rest.
- It holds at most the limit. A chunk that would go over it is known by its size, before it comes.
- How the octets were cut, into chunks or blocks, makes no difference.

A message that is no BINARYMIME is held to what DATA asks of one (data.py: NUL, bare CR and LF, long lines). With BINARYMIME that holds for
its header only, and is always refused there: binary is what a body may be, and what stands in a header is read by everybody on the way.
"""

from __future__ import annotations

from typing import Final

from postern_core.errors import Reply
from postern_core.policy import BareNewline
from postern_smtp import replies
from postern_smtp.data import sound

_PIECE_OCTETS: Final = 64 * 1024  # smaller blocks are put together: each would cost more than it holds


class ChunkedData:
    """Say `begin` for each chunk, `feed` it, and after the last one take `message()`."""

    def __init__(
        self,
        limit_bytes: int | None,
        *,
        bare_newline: BareNewline = BareNewline.REJECT,
        over_limit: Reply = replies.TOO_BIG,
        binary: bool = False,
    ) -> None:
        """`limit_bytes`: of the message. None: no limit. `binary`: it was announced as BINARYMIME."""
        self._limit = limit_bytes
        self._bare_newline = bare_newline
        self._over_limit = over_limit
        self._binary = binary
        self._pieces: list[bytes] = []
        self._small = bytearray()
        self.buffered_bytes = 0  # how much it holds now
        self.refusal: Reply | None = None

    def begin(self, octets: int) -> None:
        """A chunk of so many octets comes."""
        if self.refusal is None and self._limit is not None and self.buffered_bytes + octets > self._limit:
            self.discard(self._over_limit)

    def feed(self, block: bytes) -> None:
        """Take the next octets of the chunk."""
        if self.refusal is not None:
            return
        self.buffered_bytes += len(block)
        if len(block) < _PIECE_OCTETS:
            self._small += block
            if len(self._small) >= _PIECE_OCTETS:
                self._put_aside()
        else:
            self._put_aside()
            self._pieces.append(block)

    def discard(self, refusal: Reply) -> None:
        """Keep nothing from now on, and answer with `refusal`; the first one stays."""
        if self.refusal is None:
            self.refusal = refusal
        self._pieces.clear()
        self._small.clear()
        self.buffered_bytes = 0

    def message(self) -> bytes | Reply:
        """The message, or why it is refused. Nothing is held any more."""
        if self.refusal is not None:
            return self.refusal
        self._put_aside()
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if not self._binary:
            return sound(body, self._limit, self._bare_newline, self._over_limit)
        end = body.find(b"\r\n\r\n")
        header = sound(body[: end + 2] if end >= 0 else body, None, BareNewline.REJECT, self._over_limit)
        return header if isinstance(header, Reply) else body

    def _put_aside(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small.clear()
