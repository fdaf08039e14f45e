"""What of two looks is worth an alarm, and what is a busy system's daily life."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from postern_api.alarms.board import LOOKS, AlarmBoard
from postern_api.alarms.conditions import Past, conditions, covers
from postern_api.alarms.kinds import Kind, Severity
from postern_api.alarms.look import Consumers, Look, Peer, StreamSeen
from postern_core.bus.stores import Copy, Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SEEN = StreamSeen(
    created="once",
    messages=10,
    bytes=1000,
    max_messages=-1,
    max_bytes=100_000,
    drops_oldest=False,
    is_work_queue=True,
    first_seq=1,
    last_seq=10,
    lost_bytes=0,
    consumers=1,
    replicas=1,
    peers=(),
    oldest_s=0.0,
)
PEER = Peer(name="n2", offline=False, current=True, silent_s=0.1, lag=0)


def a_look(**changes: Any) -> Look:
    return Look(streams={"INTAKE": replace(SEEN, **changes)}, consumers={"INTAKE": Consumers()})


def found(*looks: Look) -> set[tuple[str, str, str]]:
    """What the last of several looks finds."""
    past = Past()
    for look in looks[:-1]:
        past.remember(look)
    return {(kind, about, each.severity) for (kind, about), each in conditions(looks[-1], past, None, {}).items()}


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({"oldest_s": 899.0}, None),
        ({"oldest_s": 900.0}, "warning"),
        ({"oldest_s": 3600.0}, "critical"),
        ({"oldest_s": 1e6, "is_work_queue": False}, None),  # DEFERRED and QUARANTINE keep what they have
    ],
)
def test_mail_that_stands_in_a_work_queue_for_long_is_an_alarm(changes: dict[str, Any], severity: str | None) -> None:
    expected = {("mail_standing", "INTAKE", severity)} if severity else set()
    assert found(a_look(**changes)) == expected


def test_a_broker_that_answers_and_stores_nothing_is_an_alarm_beside_what_else_is_seen() -> None:
    look = a_look(oldest_s=900.0)
    look.not_storing = "bucket STATUS: TimeoutError: nats: timeout"
    assert found(look) == {("broker_not_storing", "", "critical"), ("mail_standing", "INTAKE", "warning")}
    assert covers(a_look(), None, (Kind.BROKER_NOT_STORING, ""))  # the next look may clear it


@pytest.mark.parametrize(
    ("held", "up", "severity"),
    [
        (0.69, None, None),
        (0.70, None, "warning"),
        (0.85, None, "critical"),
        (0.83, Severity.CRITICAL, "critical"),  # it does not come and go
        (0.83, Severity.WARNING, "warning"),
        (0.81, Severity.CRITICAL, "warning"),
        (0.68, Severity.WARNING, "warning"),
        (0.66, Severity.WARNING, None),
        (0.66, Severity.CRITICAL, None),
    ],
)
def test_how_full_is_too_full(held: float, up: Severity | None, severity: str | None) -> None:
    key = (Kind.STREAM_FILLING, "INTAKE")
    for look in (a_look(bytes=int(100_000 * held)), a_look(messages=int(100 * held), max_messages=100)):
        condition = conditions(look, Past(), None, {key: up} if up else {}).get(key)
        assert (condition.severity if condition else None) == severity


def test_a_stream_that_drops_its_oldest_is_full_by_design() -> None:
    assert found(a_look(bytes=100_000, drops_oldest=True)) == set()


def test_a_store_that_fills_up() -> None:
    look = a_look()
    look.stores = {"n0": Store("n0", 86, 100, {}), "n1": Store("n1", 10, 100, {}), "n2": Store("n2", 10, 0, {})}
    assert found(look) == {("store_filling", "n0", "critical")}


@pytest.mark.parametrize(
    ("peer", "before", "alarm"),
    [
        (PEER, 10, False),
        (replace(PEER, offline=True), 10, True),  # the leader calls it current for some seconds more
        (replace(PEER, silent_s=11.0), 10, True),
        (replace(PEER, current=False, lag=20), 9, False),  # mail is being written: something is always on its way
        (replace(PEER, current=False, lag=20), 10, True),  # nothing is, and it does not catch up
        (replace(PEER, current=False, lag=5000), 9, True),
    ],
)
def test_a_peer_that_does_not_keep_up(peer: Peer, before: int, alarm: bool) -> None:
    looks = (a_look(replicas=2, peers=(PEER,), last_seq=before), a_look(replicas=2, peers=(peer,)))
    assert found(*looks) == ({("replica_behind", "n2", "critical")} if alarm else set())


def test_a_stream_with_fewer_replicas_than_it_should_have() -> None:
    assert found(a_look(replicas=3, peers=(PEER,))) == {("replica_behind", "INTAKE", "critical")}


def with_copies(*messages: int) -> Look:
    look = a_look()
    look.stores = {f"n{n}": Store(f"n{n}", 1, 100, {"INTAKE": Copy(held, 1, 10, 10 - held)}) for n, held in enumerate(messages)}
    return look


def test_copies_are_compared_when_nothing_moves() -> None:
    differ = {("replicas_differ", "INTAKE", "critical")}
    assert found(with_copies(10, 10, 5), with_copies(10, 10, 5)) == differ
    assert found(with_copies(10, 10, 5), with_copies(10, 10, 6)) == set()
    key = (Kind.REPLICAS_DIFFER, "INTAKE")
    assert not covers(with_copies(10, 10, 6), with_copies(10, 10, 5), key)
    assert covers(with_copies(10, 10, 10), with_copies(10, 10, 5), key)
    assert not covers(with_copies(10), with_copies(10, 10, 5), key)  # the others are not seen


def test_what_is_stranded_stays_at_the_head_of_its_queue() -> None:
    def unclaimed(number: int, first_seq: int) -> Look:
        look = a_look(first_seq=first_seq)
        look.consumers = {"INTAKE": Consumers(unclaimed=number)}
        return look

    assert found(unclaimed(2, 1), unclaimed(2, 1)) == {("stranded_messages", "INTAKE", "critical")}
    assert found(unclaimed(2, 1), unclaimed(2, 4)) == set()
    assert found(unclaimed(5000, 1), unclaimed(5000, 4)) == {("stranded_messages", "INTAKE", "critical")}


def test_a_stream_whose_end_is_gone() -> None:
    damaged = {("stream_damaged", "INTAKE", "critical")}
    assert found(a_look(last_seq=20), a_look()) == damaged
    assert found(a_look(last_seq=20), Look(silent="away"), a_look()) == damaged
    assert found(a_look(last_seq=20), a_look(created="anew")) == set()
    assert found(a_look(last_seq=20), a_look(replicas=3, peers=(PEER, PEER))) == set()  # a new leader may be a moment behind
    assert found(a_look(lost_bytes=7)) == damaged


def test_only_what_lasts_is_an_alarm_and_only_what_was_looked_at_is_cleared() -> None:
    board, key = AlarmBoard(), (Kind.CONSUMER_MISSING, "INTAKE/screener")
    look = a_look()
    look.consumers = {"INTAKE": Consumers(missing=("screener",))}
    condition = conditions(look, Past(), None, {})
    for _ in range(LOOKS[key[0]] - 1):
        board.take(condition, lambda _: True, NOW)
    board.take({}, lambda _: True, NOW)  # it was there again: the count begins anew
    for _ in range(LOOKS[key[0]] - 1):
        board.take(condition, lambda _: True, NOW)
        assert board.alarms == []
    with capture_logs() as told:
        board.take(condition, lambda _: True, NOW)
    assert [(line["event"], line["log_level"], line["about"]) for line in told] == [("alarm.raised", "error", key[1])]
    assert [(alarm.kind, alarm.about) for alarm in board.alarms] == [key]
    board.take({}, lambda key: covers(Look(silent="away"), look, key), NOW)
    assert len(board.alarms) == 1
    with capture_logs() as told:
        board.take({}, lambda key: covers(a_look(), look, key), NOW)
    assert [line["event"] for line in told] == ["alarm.cleared"]
    assert board.alarms == []
