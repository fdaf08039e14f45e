"""The three thresholds as a state machine, against the plainest model of them: a list of everything that was told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_api.alarms.kinds import Kind as AlarmKind
from postern_api.alerts.catalogue import ALARMS, CATALOGUE, AlertKind, Source, of_alarm, of_notice
from postern_api.alerts.objects import UNTIL_RESET, Thresholds
from postern_api.alerts.thresholds import AlertState, Event, Raise, acknowledged, count
from postern_core.notices import NoticeKind

T0 = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
LATER = T0 + timedelta(days=365)


def event(at_s: float = 0, times: int = 1, about: str = "192.0.2.7") -> Event:
    return Event(about, T0 + timedelta(seconds=at_s), times, "ingress-anon/one")


def told(thresholds: Thresholds, *events: Event, state: AlertState | None = None) -> tuple[AlertState, list[Raise | None]]:
    """Each of `events` by itself."""
    state, raises = state or AlertState(), []
    for each in events:
        state, raised = count(state, thresholds, [each], LATER)
        raises.append(raised)
    return state, raises


def at(raises: list[Raise | None]) -> list[int]:
    """Which of them brought a raise."""
    return [n for n, raised in enumerate(raises) if raised is not None]


def test_the_catalogue_has_every_notice_and_every_alarm_and_nothing_else() -> None:
    assert {of_notice(kind) for kind in NoticeKind} | {of_alarm(kind) for kind in AlarmKind} == set(AlertKind) == set(CATALOGUE)
    assert len(NoticeKind) + len(AlarmKind) == len(AlertKind)
    assert {kind for kind, entry in CATALOGUE.items() if entry.source is Source.ALARM} == ALARMS.keys()


PAGE = (Path(__file__).parents[3] / "docs/operate/alerts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", AlertKind)
def test_the_page_has_each_kind_with_its_defaults(kind: AlertKind) -> None:
    [row] = re.findall(rf"^\|[^|]*`{kind.value}`[^|]*\|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
    defaults = CATALOGUE[kind].defaults
    minutes = f"{defaults.minutes_before_reraise} minutes" if defaults.minutes_before_reraise else "at once"
    assert re.search(rf"\b{defaults.events_before_raise}\b.*\b{minutes}", row)
    assert (defaults.events_per_second, defaults.enabled, defaults.notify) == (0, True, True)


def test_enough_events_raise_and_then_counting_begins_anew() -> None:
    state, raises = told(Thresholds(events_before_raise=3), *(event(n) for n in range(7)))
    assert at(raises) == [2, 5]
    last = raises[5]
    assert last is not None
    assert (last.count, last.first_at, last.at) == (3, T0 + timedelta(seconds=3), T0 + timedelta(seconds=5))
    assert (state.total, state.pending, state.raises) == (7, 1, 2)


def test_events_per_second_are_counted_in_one_second_from_all_who_tell() -> None:
    thresholds = Thresholds(events_per_second=5)
    assert at(told(thresholds, *(event(n, times=4) for n in range(5)))[1]) == []
    assert at(told(thresholds, event(0.1, times=3), event(1, times=1), event(0.9, times=2, about="another"))[1]) == [2]


@pytest.mark.parametrize(("minutes", "expected"), [(0, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (UNTIL_RESET, [0])])
def test_minutes_before_it_is_raised_again(minutes: int, expected: list[int]) -> None:
    _, raises = told(Thresholds(minutes_before_reraise=minutes), *(event(60 * n) for n in range(5)))
    assert at(raises) == expected


def test_what_is_silent_until_a_reset_is_raised_after_it_and_not_after_an_acknowledgement() -> None:
    thresholds = Thresholds(minutes_before_reraise=UNTIL_RESET)
    state, _ = told(thresholds, event(0))
    state = acknowledged(state, "somebody", LATER)
    state, raises = told(thresholds, event(9000), state=state)
    assert at(raises) == []
    assert state.acknowledged_by == "somebody"
    assert at(told(thresholds, event(9001), state=AlertState())[1]) == [0]


def test_it_is_open_again_when_it_is_raised_again() -> None:
    state, _ = told(Thresholds(), event(0))
    state, raises = told(Thresholds(), event(1), state=acknowledged(state, "somebody", LATER))
    assert at(raises) == [0]
    assert (state.acknowledged_at, state.acknowledged_by) == (None, "")


def test_a_kind_that_is_switched_off_counts_and_raises_nothing() -> None:
    state, raises = told(Thresholds(enabled=False), event(0), event(1))
    assert (at(raises), state.total) == ([], 2)


def test_a_clock_that_is_years_ahead_silences_nothing() -> None:
    thresholds = Thresholds(minutes_before_reraise=1)
    state, raised = count(AlertState(), thresholds, [event(10 * 365 * 86400)], T0)
    assert raised is not None
    assert raised.at == state.raised_at == state.last_at == T0
    assert count(state, thresholds, [event(60)], T0 + timedelta(seconds=60))[1] is not None


def test_what_an_attacker_wrote_is_kept_in_bounds() -> None:
    fields: dict[str, str | int | float | bool] = {f"{n}" * 1000: "x" * 10_000 for n in range(50)}
    events = [Event(f"{n}" * 1000, T0 + timedelta(seconds=n), 1, "s", fields) for n in range(1000)]
    state, _ = count(AlertState(), Thresholds(events_before_raise=10_000), events, LATER)
    assert (state.total, len(state.subjects)) == (1000, 20)
    assert len(state.seconds) <= 10
    assert len(msgspec.json.encode(state)) < 400_000


# -- against the model


@dataclass
class Model:
    """Everything that was told since the last reset; the thresholds as docs/operate/alerts.md has them."""

    everything: list[tuple[datetime, int]] = field(default_factory=list)
    pending: int = 0
    raised_at: datetime | None = None

    def takes(self, thresholds: Thresholds, events: list[tuple[datetime, int]]) -> bool:
        self.everything += events
        self.pending += sum(times for _, times in events)
        newest_second = max(int(when.timestamp()) for when, _ in self.everything)
        by_second = Counter[int]()
        for when, times in self.everything:
            by_second[int(when.timestamp())] += times
        now = max(when for when, _ in events)
        # a second that is long over is not looked at any more: the tests' events keep within it
        busiest = max(by_second[int(when.timestamp())] for when, _ in events)
        assert newest_second - min(int(when.timestamp()) for when, _ in events) < 10
        enough = self.pending >= thresholds.events_before_raise and busiest >= thresholds.events_per_second
        n = thresholds.minutes_before_reraise
        again = self.raised_at is None or n == 0 or (n > 0 and now - self.raised_at >= timedelta(minutes=n))
        if not (thresholds.enabled and enough and again):
            return False
        self.pending, self.raised_at = 0, max(self.raised_at or now, now)
        return True


all_thresholds = st.builds(
    Thresholds,
    events_before_raise=st.integers(1, 12),
    events_per_second=st.integers(0, 6),
    minutes_before_reraise=st.integers(-1, 3),
    enabled=st.sampled_from([True, True, True, False]),
)
# steps forward, and events that come a few seconds late
batches = st.lists(st.lists(st.tuples(st.floats(0, 4, width=16), st.integers(1, 5)), min_size=1, max_size=4), max_size=12)


@given(
    thresholds=all_thresholds,
    told_batches=batches,
    steps=st.lists(st.integers(0, 150), min_size=12, max_size=12),
    resets=st.sets(st.integers(0, 11)),
)
def test_every_history_is_raised_as_the_model_says(
    thresholds: Thresholds, told_batches: list[list[tuple[float, int]]], steps: list[int], resets: set[int]
) -> None:
    state, model, clock, raises = AlertState(), Model(), T0, 0
    for n, batch in enumerate(told_batches):
        if n in resets:
            state, model, raises = AlertState(), Model(), 0
        clock += timedelta(seconds=steps[n])
        events = [(clock - timedelta(seconds=late), times) for late, times in batch]
        expected = model.takes(thresholds, events)
        state, raised = count(state, thresholds, [Event("x", when, times) for when, times in events], LATER)
        raises += raised is not None
        assert (raised is not None) == expected
        assert state.total == sum(times for _, times in model.everything)
        assert (state.pending, state.raised_at, state.raises) == (model.pending, model.raised_at, raises)
        assert (state.first_at, state.last_at) == (min(w for w, _ in model.everything), max(w for w, _ in model.everything))
        assert raises <= 1 or thresholds.minutes_before_reraise != UNTIL_RESET
        assert msgspec.json.decode(msgspec.json.encode(state), type=AlertState) == state
