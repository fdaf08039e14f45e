"""Stock aiosmtpd as somebody would run it: its Controller and a handler that takes the message and answers 250. It keeps nothing.

    python -m bench.stock --port 2527

The yardstick of the gate alone and of the guard: the same generator sends to it in the same run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.measure import TESTS, Running
from bench.processes import answers, running, wait_until
from fixtures.ports import free_port


class Taking:
    """Takes every message."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        assert envelope.content is not None
        return "250 Message accepted for delivery"


@contextmanager
def stock_aiosmtpd(directory: Path) -> Iterator[Running]:
    """The server as a process of its own; it takes mail inside the block."""
    port = free_port()
    with running([sys.executable, "-m", "bench.stock", "--port", str(port)], directory / "stock.log", cwd=TESTS) as pid:
        wait_until(lambda: answers(port), pid, "stock aiosmtpd to answer", directory / "stock.log")
        yield Running(port, {"aiosmtpd": [pid]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    # before the controller's thread starts, which inherits it: the signal is for this thread
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    controller = Controller(Taking(), hostname="127.0.0.1", port=parser.parse_args().port)
    controller.start()
    signal.sigwait({signal.SIGTERM})
    controller.stop()


if __name__ == "__main__":
    main()
