"""A bit flips on the broker's disk: no replica of ours can bring back what it held, but nobody has to find out from a customer."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from fixtures.mail import a_message
from fixtures.stack import Stack, alive, eventually


def _alarm(stack: Stack, kind: str) -> dict[str, Any] | None:
    alarms = stack.api.get("/alarms").raise_for_status().json()["alarms"]
    return next((alarm for alarm in alarms if alarm["kind"] == kind), None)


def test_accepted_mail_that_the_disk_lost_is_an_alarm_and_named_by_ledger_verify(tmp_path: Path) -> None:
    with Stack(tmp_path / "var", environment={"POSTERN_VERIFY_EVERY_S": "1"}) as stack:
        for pid in stack.pids("screener"):
            os.kill(pid, signal.SIGSTOP)
        sent = [stack.send(a_message(body="y" * 500), to=["a@demo.example"]) for _ in range(20)]
        eventually(
            lambda: stack.api.get("/ledger").raise_for_status().json()["total"]["accepted"] == 20, "the ledger to know them"
        )
        pids = [pid for pids in stack.endpoints["processes"].values() for pid in pids]
        stack.stop(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in pids), "all processes to be gone")
        [block] = (stack.state / "nats" / "store" / "jetstream" / "POSTERN" / "streams" / "INTAKE" / "msgs").glob("*.blk")
        data = bytearray(block.read_bytes())
        data[len(data) // 2] ^= 1
        block.write_bytes(data)

        stack.start()
        eventually(lambda: not stack.streams()["INTAKE"]["messages"], "what is left to be screened")
        # nobody has to ask: the alarm comes by itself, when it has looked wrong for a quarter of a minute
        alarm = eventually(lambda: _alarm(stack, "ledger_discrepancies"), "the alarm")
        assert alarm["severity"] == "critical"
        told = stack.postern("ledger", "verify", "--grace", "2", check=False)
        assert alarm["figures"]["count"] >= 1
        lost = [queue_id for queue_id in sent if stack.ends(queue_id) is None]
        assert lost
        assert "the books do not balance" in told
        assert all(queue_id in told for queue_id in lost)
        assert all(queue_id not in told for queue_id in set(sent) - set(lost))
