"""The simulation of the pipeline: nothing vanishes in it, no core does more than it can, and it says what can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import sizing
from bench.curve_stack import Stored
from bench.machine import Machine
from bench.measure import Measured
from bench.plan import Entry
from bench.report import Report, SystemResult
from bench.service_times import SERVICES, ServiceTimes, compared, steps, times_of
from bench.simulation import Load, Outcome, simulate
from bench.sizing import MARKERS, MESSAGES_A_DAY, PAGE, Assumptions, size
from postern_core.batch import MOST_MEMBERS

_STORED = Stored(mix="small", sent_bytes=6000, message_bytes=6600, disposition_bytes=470, event_bytes=700)


def _times(sync_ms: float = 0.2, **cpu_ms: float) -> ServiceTimes:
    return ServiceTimes(dict.fromkeys(SERVICES, 0.5) | cpu_ms, sync_ms)


service_times = st.builds(
    ServiceTimes,
    st.fixed_dictionaries({name: st.floats(0.01, 5) for name in SERVICES}),
    st.floats(0, 3),
)
loads = st.builds(Load, st.integers(1, 120), st.integers(1, 30), st.none() | st.floats(10, 2000))
replica_counts = st.fixed_dictionaries({name: st.integers(1, 4) for name in ("gate", "screener", "delivery", "api")})


@settings(deadline=None, max_examples=60)
@given(service_times, loads, st.floats(0.5, 8), replica_counts)
def test_everything_that_enters_leaves_once_and_takes_its_cpu_time(
    times: ServiceTimes, load: Load, cores: float, replicas: dict[str, int]
) -> None:
    outcome = simulate(times, load, cores=cores, replicas=replicas)
    assert outcome.begun == outcome.accepted == outcome.arrived == len(outcome.latencies_ms) == load.messages
    for service, cpu_ms in times.cpu_ms.items():
        assert outcome.busy_ms[service] == pytest.approx(cpu_ms * load.messages)
    assert 0 < outcome.latencies_ms[0] <= outcome.latencies_ms[-1] <= outcome.last_arrival_ms <= outcome.end_ms


@settings(deadline=None, max_examples=60)
@given(service_times, st.integers(1, 120), st.floats(0.5, 8))
def test_no_faster_than_the_cores_the_slowest_process_and_the_disk(times: ServiceTimes, messages: int, cores: float) -> None:
    outcome = simulate(times, Load(messages), cores=cores)
    work_ms = times.total_ms * messages
    assert outcome.end_ms >= work_ms / cores * (1 - 1e-9)
    single = max(ms for name, ms in times.cpu_ms.items() if name != "broker")
    assert outcome.end_ms >= single * messages * (1 - 1e-9)
    assert outcome.end_ms >= times.sync_ms * messages / MOST_MEMBERS * (1 - 1e-9)


@settings(deadline=None, max_examples=60)
@given(service_times, st.integers(50, 120), st.integers(1, 6))
def test_more_cores_are_never_slower_but_for_the_order_of_the_last_messages(
    times: ServiceTimes, messages: int, cores: int
) -> None:
    few, many = (simulate(times, Load(messages), cores=each).end_ms for each in (cores, 2 * cores))
    # a list schedule may lose what is under way at the end (Graham's anomaly): a message's work for each connection at most
    assert many <= few + 20 * (times.total_ms + 3 * times.sync_ms)


def test_cores_that_are_all_busy_give_cores_by_cpu_time() -> None:
    times = _times(sync_ms=0)
    outcome = simulate(times, Load(2000), cores=2)
    assert 2000 * 1000 / outcome.end_ms == pytest.approx(2000 / times.total_ms, rel=0.03)
    assert outcome.messages_per_s >= 2000 * 1000 / outcome.end_ms  # traces are written behind the last arrival


@pytest.mark.parametrize("cores", [0.5, 1.4, 2.4, 2.6])
def test_part_of_a_core_makes_no_process_faster_than_a_core(cores: float) -> None:
    times = _times(sync_ms=0, delivery=5)
    assert simulate(times, Load(200), cores=cores).messages_per_s <= 200
    assert (
        simulate(_times(sync_ms=0), Load(500), cores=cores).messages_per_s
        <= cores * 1000 / times.cpu_ms["api"] / len(SERVICES) * 1.1
    )


def test_one_slow_process_bounds_the_rest_and_its_replicas_help() -> None:
    times = _times(screener=4)
    one = simulate(times, Load(1000), cores=16)
    three = simulate(times, Load(1000), cores=16, replicas={"screener": 3})
    assert one.messages_per_s == pytest.approx(250, rel=0.03)
    assert three.messages_per_s == pytest.approx(750, rel=0.03)


def test_a_slow_disk_bounds_everything_but_what_waits_goes_together() -> None:
    slow = _times(sync_ms=50)
    alone = simulate(slow, Load(100, connections=1), cores=16)
    many = simulate(slow, Load(2000, connections=200), cores=16)
    assert alone.messages_per_s < 1000 / 50
    assert 8 * 1000 / 50 < many.messages_per_s <= MOST_MEMBERS * 1000 / 50


def test_message_in_an_idle_system_takes_what_its_steps_take() -> None:
    times = _times(sync_ms=2)
    before_arrival = 0.0
    for visit in steps(times):
        before_arrival += 2 if visit.stream else visit.cpu_ms
        if visit.arrives:
            break
    outcome = simulate(times, Load(20, rate=1), cores=2)
    assert outcome.latencies_ms == pytest.approx([before_arrival] * 20)


def test_steps_spend_what_was_measured_and_accept_only_what_is_on_disk() -> None:
    visits = list(steps(_times()))
    for service in SERVICES:
        assert sum(visit.cpu_ms for visit in visits if visit.service == service) == pytest.approx(0.5)
    accepted = next(n for n, visit in enumerate(visits) if visit.accepts)
    assert "INTAKE" in [visit.stream for visit in visits[:accepted]]
    assert [visit.accepts for visit in visits].count(True) == [visit.arrives for visit in visits].count(True) == 1


def test_service_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="services"):
        ServiceTimes({"gate": 1.0}, 0.2)


# --- from a run of the benchmark


def _measured(messages_per_s: float = 400, elsewhere_cores: float = 0) -> Measured:
    cpu_ms = {"nats-server": 1.0, "ingress-anon": 0.5, "screener": 0.5, "delivery": 0.5, "api": 0.3, "ingress-auth": 0.1}
    return Measured(
        mix="small",
        connections=20,
        per_connection=10,
        offered_per_s=None,
        messages=2000,
        expected=1900,
        arrived=1900,
        lost=0,
        copies=0,
        passed=0,
        strays=0,
        messages_per_s=messages_per_s,
        megabytes_per_s=messages_per_s * 0.006,
        latency_p50_ms=1,
        latency_p99_ms=2,
        latency_p999_ms=3,
        cpu_ms_per_message=cpu_ms | {"all": 2.9},
        peak_memory_mb={"nats-server": 100, "ingress-anon": 50, "screener": 80, "delivery": 60, "api": 70},
        refused_for_now=0,
        hung_up=0,
        generator_cpu_ms=0.1,
        sink_cpu_ms=0.1,
        elsewhere_cores=elsewhere_cores,
    )


def _report(measured: Measured) -> Report:
    machine = Machine(
        cores=2,
        cpu="",
        memory_gib=1,
        kernel="",
        system="",
        python="",
        filesystem="",
        sync_ms=0.2,
        busy_cores_before=0,
        commit="",
        started="",
    )
    half = Entry(load="half", measured=measured)
    system = SystemResult(name="postern", title="", version="", entries=[Entry(load="full", measured=measured), half])
    return Report(machine=machine, options="", took_s=1, harness=[], systems=[system], left_out={})


def test_times_are_those_of_the_full_load_without_what_others_took() -> None:
    ((measured, times),) = compared(_report(_measured(elsewhere_cores=0.5)))
    assert measured.messages == 2000
    assert times.total_ms == pytest.approx(measured.cpu_ms_per_message["all"] + 0.2)
    assert times.cpu_ms["api"] == pytest.approx(0.4)
    assert (times.cores, times.sync_ms) == (1.5, 0.2)
    with pytest.raises(ValueError, match="no full load"):
        list(compared(_report(_measured()), "postfix"))


@pytest.mark.parametrize("messages_a_day", MESSAGES_A_DAY)
def test_what_the_table_asks_for_keeps_up_and_no_process_is_over_its_share(messages_a_day: int) -> None:
    measured = _measured()
    times = times_of(measured, sync_ms=0.2, cores=2)
    found = size(messages_a_day, times, measured, _STORED, Assumptions())
    assert found.keeps_up
    for service, number in found.replicas.items():
        assert found.peak_per_s * times.cpu_ms[service] / 1000 <= number * 0.6 * (1 + 1e-9)
    assert found.peak_per_s * times.postern_ms / 1000 <= found.cores * 0.6 * (1 + 1e-9)
    assert found.disk_bytes["DISPOSITIONS"] == messages_a_day * 7 * 470
    assert found.disk_bytes["EVENTS"] == messages_a_day * 2 * 700
    assert found.disk_bytes["DEFERRED"] == pytest.approx(messages_a_day * 6600 * 4 / 24)


def test_too_little_for_the_load_is_seen() -> None:
    measured = _measured()
    times = times_of(measured, sync_ms=0.2, cores=2)
    found = size(100_000_000, times, measured, _STORED, Assumptions(utilisation=1.5))
    assert not found.keeps_up


def test_disk_that_is_too_slow_for_a_line_is_marked_there() -> None:
    lines = sizing.markdown(_report(_measured()), _STORED).splitlines()
    marked = {line.split(" | ")[0].strip("| ") for line in lines if "| **0.1**" in line}
    assert marked == {"100,000,000"}
    assert sum(line.startswith(("| 1", "| 3")) for line in lines) == len(MESSAGES_A_DAY)


def test_sizing_page_has_room_for_the_table(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.index(MARKERS[0]) < text.index(MARKERS[1])


def test_rate_of_an_outcome_counts_to_the_last_arrival() -> None:
    outcome = Outcome(100, 100, 100, 500.0, 900.0, {}, tuple(range(100)))
    assert outcome.messages_per_s == 200
    assert (outcome.latency_ms(0.5), outcome.latency_ms(1)) == (50, 99)
