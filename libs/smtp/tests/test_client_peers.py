"""A peer that answers anything to anything: whatever it says, each recipient is told what it really said about it, and nobody
counts as delivered but those for whom it took the message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, RouteTls
from postern_smtp.client import ClientOptions, ConnectionLost, RecipientOutcome, SmtpClient, Transaction

BODY = b"Subject: x\r\n\r\nMAIL FROM:<not@a.command>\r\nDATA\r\n..\r\n"
HANG_UP, RUBBISH = "", "what is this"
likely = st.sampled_from(["250 ok", "250 ok", "250-ok\r\n250 ok", "354 go", "450 later", "550 5.1.1 no"])
replies = st.lists(
    likely | st.sampled_from(["251 ok", "421 closing", "452 full", "552 too many", "503 order", "220 hi", RUBBISH, HANG_UP]),
    max_size=24,
)


@dataclass
class Peer:
    """One connection's worth of a server that says `replies` in turn, and then hangs up. It obeys itself: after 354 to DATA come data."""

    replies: list[str]
    pipelining: bool
    accepted: list[list[str]] = field(default_factory=list)  # of each transaction: recipients that got 2yz, when MAIL did
    taken: list[tuple[int, bytes]] = field(default_factory=list)  # transaction, message: when the reply to the dot was 2yz
    said: list[dict[str, list[int]]] = field(default_factory=list)  # of each transaction: address, or "*" for all → codes
    strays: list[bytes] = field(default_factory=list)  # lines that came as commands and are none

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"250-hi\r\n250 PIPELINING\r\n" if self.pipelining else b"250 hi\r\n")
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail_accepted = False
        while line := await reader.readline():
            verb = line[:4].decode()
            if verb not in ("MAIL", "RCPT", "DATA", "RSET", "QUIT") or line == b"MAIL FROM:<not@a.command>\r\n":
                self.strays.append(line)  # of the message
            code = self._answer(writer)
            if code is None:
                return
            if verb == "MAIL":
                self.accepted.append([])
                self.said.append({"*": [code]})
                mail_accepted = code // 100 == 2
            elif verb == "RCPT":
                address = line.partition(b"<")[2].partition(b">")[0].decode()
                self.said[-1].setdefault(address, []).append(code)
                if mail_accepted and code // 100 == 2:
                    self.accepted[-1].append(address)
            elif verb == "DATA":
                self.said[-1]["*"].append(code)
                if code == 354 and not await self._data(reader, writer):
                    return

    async def _data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        message = b""
        while (line := await reader.readuntil(b"\r\n")) != b".\r\n":
            message += line.removeprefix(b".")
        code = self._answer(writer)
        if code is None:
            return False
        self.said[-1]["*"].append(code)
        if code // 100 == 2:
            self.taken.append((len(self.accepted) - 1, message))
        return True

    def _answer(self, writer: asyncio.StreamWriter) -> int | None:
        reply = self.replies.pop(0) if self.replies else HANG_UP
        if reply == HANG_UP:
            return None
        writer.write(reply.encode() + b"\r\n")
        return 0 if reply == RUBBISH else int(reply[:3])


async def send_over(peer: Peer, transactions: int) -> list[tuple[tuple[RecipientOutcome, ...], tuple[Recipient, ...]]]:
    """What is known after each transaction: outcomes, and who is in doubt."""
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    options = ClientOptions(helo_name="relay.example", tls=RouteTls.OFF, command_timeout_s=5, data_timeout_s=5)
    known = []
    async with server:
        client = await SmtpClient.connect(NextHop(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), options)
        for number in range(transactions):
            recipients = tuple(Recipient(n=n, address=f"{number}{name}@relay.example") for n, name in enumerate("abc"))
            try:
                known.append((await client.send(Transaction("", recipients, BODY, BodyType.SEVEN_BIT)), ()))
            except ConnectionLost as lost:
                known.append((lost.outcomes, lost.in_doubt))
            if not client.usable:
                break
        client.discard()
    return known


@given(replies, st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_the_peer_answers_nobody_is_told_what_was_not_said(said: list[str], pipelining: bool) -> None:
    peer = Peer(list(said), pipelining)
    known = asyncio.run(send_over(peer, 3))
    assert peer.strays == []
    taken = dict(peer.taken)
    for number, (outcomes, in_doubt) in enumerate(known):
        delivered = {o.recipient.address for o in outcomes if o.reply.code // 100 == 2}
        doubted = {recipient.address for recipient in in_doubt}
        refused = {o.recipient.address: o.reply.code for o in outcomes if o.reply.code // 100 != 2}
        assert len(delivered) + len(refused) == len(outcomes)  # one end each
        assert not doubted & (delivered | set(refused))
        codes = peer.said[number] if number < len(peer.said) else {"*": []}
        if delivered:
            assert delivered == set(peer.accepted[number])
            assert taken[number] == BODY
        elif taken.get(number):
            assert doubted == set(peer.accepted[number])  # taken, and the answer did not reach us
        for address, code in refused.items():
            assert code in codes["*"] + codes.get(address, []) + ([421] if "421 closing" in said else [])
