"""The guard and the measurement of parts: what they compare, when they say no, and a tiny run of each. Their figures say nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench import generator, parts
from bench.alone import Duel, Taken, duel, taken
from bench.guard import REFERENCE, Effort, Section, compare, decide, judged, sections
from bench.inspection import inspect
from bench.measure import TESTS, Load
from bench.report import write_between_markers
from bench.run import PAGE
from bench.workers import Screened, Workers
from fixtures.stack import environment

_REFERENCE = {"gate": 2.0, "stack": 0.4}


def _section(*figures: dict[str, float]) -> Section:
    """What gives these figures, those of the first measurement first; a measurement too many is an error."""
    given: Iterator[dict[str, float]] = iter(figures)
    return lambda: next(given)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(_REFERENCE))
    return path


# --- the verdict


def test_a_ratio_at_the_edge_of_what_is_tolerated_passes_and_below_it_fails() -> None:
    fine, edge, low = (compare({"gate": value}, _REFERENCE)[0] for value in (2.4, 1.5, 1.49))
    assert (fine.failed, edge.failed, low.failed) == (False, False, True)
    assert fine.fell < 0 < edge.fell < low.fell


def test_what_did_not_fall_is_measured_once_and_passes(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decide({"a": _section({"gate": 1.9}), "b": _section({"stack": 0.31})}, reference, renew=False) == 0
    assert "no regression" in capsys.readouterr().out


def test_what_fell_by_noise_is_measured_again_and_passes(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decide({"a": _section({"gate": 1.0}, {"gate": 1.9}), "b": _section({"stack": 0.4})}, reference, renew=False) == 0
    assert "gate fell, once more" in capsys.readouterr().out


def test_what_fell_twice_fails_and_the_table_says_which(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decide({"a": _section({"gate": 1.0}, {"gate": 1.2}), "b": _section({"stack": 0.4})}, reference, renew=False) == 1
    told = capsys.readouterr().out
    assert "| gate | 1.20 | 2.00 | -40% | FELL |" in told
    assert "| stack | 0.40 | 0.40 | +0% | ok |" in told
    assert "1 of 2 fell" in told


def test_of_two_measurements_the_better_one_of_each_figure_counts(reference: Path) -> None:
    both = _section({"gate": 1.0, "stack": 0.4}, {"gate": 2.0, "stack": 0.1})
    assert decide({"both": both}, reference, renew=False) == 0


def test_every_section_is_measured_also_behind_one_that_fell(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fallen = {"a": _section({"gate": 1.0}, {"gate": 1.0}), "b": _section({"stack": 0.1}, {"stack": 0.1})}
    assert decide(fallen, reference, renew=False) == 1
    assert "2 of 2 fell" in capsys.readouterr().out


def test_without_a_reference_nothing_passes(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decide({"a": _section({"new": 1.0})}, reference, renew=False) == 2
    assert "no reference for new" in capsys.readouterr().err
    assert decide({"a": _section({"gate": 2.0})}, reference.with_name("absent"), renew=False) == 2


def test_what_cannot_be_measured_does_not_pass(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("the gate did not start")

    assert decide({"a": broken}, reference, renew=False) == 2
    assert "the gate did not start" in capsys.readouterr().err


def test_messages_a_second_are_not_judged_while_others_are_busy_but_cpu_is() -> None:
    measured = {"gate, messages/s": 0.1, "gate, CPU": 2.0}
    assert judged(measured, 0.3, 0.35) == measured
    assert judged(measured, 0.4, 0.35) == {"gate, CPU": 2.0}


def test_a_fall_that_was_seen_in_quiet_stands_when_the_second_measurement_says_nothing(reference: Path) -> None:
    assert decide({"a": _section({"gate": 1.0}, {})}, reference, renew=False) == 1


def test_no_reference_is_made_on_a_busy_machine(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _section({"gate, CPU": 1.0}, {"gate, CPU": 1.0, "gate, messages/s": 1.0}, {"gate, CPU": 1.0})
    assert decide({"a": one}, reference, renew=True) == 2
    assert decide({"a": _section(*[{"gate, CPU": 1.0}] * 3)}, reference, renew=True) == 2
    assert "too busy" in capsys.readouterr().err
    assert json.loads(reference.read_bytes()) == _REFERENCE


def test_renewed_reference_is_the_low_end_of_its_runs(reference: Path) -> None:
    runs = _section(
        {"a, CPU": 2.2, "a, messages/s": 0.5}, {"a, CPU": 1.8, "a, messages/s": 0.6}, {"a, CPU": 2.0, "a, messages/s": 0.55}
    )
    assert decide({"both": runs}, reference, renew=True) == 0
    assert json.loads(reference.read_bytes()) == {"a, CPU": 1.8, "a, messages/s": 0.5}


# --- what is compared


def _taken(messages_per_s: float, **cpu_ms: float) -> Taken:
    return Taken(messages_per_s=messages_per_s, cpu_ms_per_message=cpu_ms)


def test_ratios_are_of_the_same_round_and_their_median_counts() -> None:
    ours = [_taken(300, gate=1, broker=1), _taken(150, gate=2, broker=2), _taken(100, gate=4, broker=4)]
    stock = [_taken(100, aiosmtpd=4), _taken(50, aiosmtpd=8), _taken(100, aiosmtpd=4)]
    found = Duel(mix="4k", ours=ours, stock=stock)
    assert found.rate == 3
    assert (found.cpu("gate"), found.cpu()) == (4, 2)


def test_both_sides_take_turns_and_each_begins() -> None:
    order: list[str] = []

    def side(name: str) -> Taken:
        order.append(name)
        return _taken(1)

    duel("4k", lambda: side("ours"), lambda: side("stock"), rounds=3)
    assert order == ["ours", "stock", "stock", "ours", "ours", "stock"]


def test_rate_is_from_the_first_begun_to_the_last_250_and_what_is_missing_is_no_figure() -> None:
    sent = b"".join(generator.RECORD.pack(n, n * 10**9, (n + 2) * 10**9, 1000) for n in range(4))
    assert taken(Load("4k", 4), sent, {"gate": 0.1}) == _taken(0.8, gate=25)
    with pytest.raises(RuntimeError, match="4 of 5"):
        taken(Load("4k", 5), sent, {})


def test_inspection_reaches_the_verdicts_that_the_messages_are_made_for() -> None:
    found = inspect("50k", 2, 0.01)
    assert len(found.ms_per_message) == len(found.loop_ms) == 2
    assert found.ms > 0 < found.per_loop


# --- the whole of it, too short to say anything

# half a minute on a machine that has nothing else to do, several times that beside other tests: only what hangs is ended by it
_PATIENCE_S = 540


def run_to_its_end(command: list[str]) -> str:
    """What it printed. One that hangs is asked to end, so that its servers do not stay."""
    with subprocess.Popen(
        command, cwd=TESTS, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            told, _ = running.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            running.terminate()
            told, _ = running.communicate()
            pytest.fail(f"it hung:\n{told}")
    assert running.returncode == 0, told
    return told


@pytest.mark.timeout(_PATIENCE_S + 60)
def test_a_tiny_run_measures_every_ratio_that_has_a_reference(tmp_path: Path) -> None:
    written = tmp_path / "written.json"
    command = [
        sys.executable,
        "-m",
        "bench.guard",
        "--quick",
        "--renew",
        "--directory",
        str(tmp_path),
        "--reference",
        str(written),
    ]
    run_to_its_end(command)
    measured = json.loads(written.read_bytes())
    assert measured.keys() == json.loads(REFERENCE.read_bytes()).keys()
    assert all(value > 0 for value in measured.values())
    assert [path.name for path in tmp_path.iterdir()] == ["written.json"]  # and nothing else stays


@pytest.mark.timeout(_PATIENCE_S + 60)
def test_a_tiny_run_marks_every_target_for_a_part(tmp_path: Path) -> None:
    written = tmp_path / "parts.json"
    command = [sys.executable, "-m", "bench.parts", "--quick", "--directory", str(tmp_path), "--json", str(written)]
    told = run_to_its_end(command)
    found = msgspec.json.decode(written.read_bytes(), type=parts.Parts)
    assert parts.markdown(found) in told
    assert {
        "nats-server",
        "ingress-anon",
        "ingress-auth",
        "screener",
        "delivery",
        "api",
        "supervisor",
    } <= found.idle.memory_mb.keys()
    assert [mark.what.partition(",")[0] for mark in parts.marks(found)] == [
        *["gate alone"] * 4,
        "inspection",
        "one screener worker with the broker",
        "two screener workers where inspection is the load",
        "embedded stack",
        "an idle connection",
        "an idle connection inside TLS",
        "an honest client beside 200 idle and 20 dripping ones",
        "start to first mail",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["parts.json"]


def _screened(messages_per_s: float) -> Screened:
    return Screened(messages_per_s=messages_per_s, screener_ms=1, broker_ms=1)


def test_a_target_that_is_missed_is_marked() -> None:
    slow = Duel(mix="50k", ours=[_taken(290, gate=1, broker=1)], stock=[_taken(100, aiosmtpd=3)])
    idle = parts.Idle(first_start_s=5.1, second_start_s=1, idle_s=60, memory_mb={"api": 351})
    inspection = parts.Inspection(mix="50k", ms_per_message=[0.51], loop_ms=[10])
    crowd = parts.Connections(idle=10_000, dripping=1000, idle_kb=40.1, idle_tls_kb=40, all_mb=400, honest_ms=1001)
    run = parts.Parts(
        machine=None,  # type: ignore[arg-type]
        options="",
        took_s=0,
        gate=[slow],
        inspection=[inspection],
        workers=Workers(mix="50k", rules_only=[_screened(999)], one=[_screened(300)], two=[_screened(530)]),
        idle=idle,
        connections=crowd,
    )
    assert [mark.met for mark in parts.marks(run)] == [False, True, False, False, False, False, False, True, False, False]


def test_reference_of_a_run_that_says_nothing_is_refused() -> None:
    command = [sys.executable, "-m", "bench.guard", "--quick", "--renew"]
    done = subprocess.run(command, cwd=TESTS, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "say nothing" in done.stderr


def test_performance_page_has_room_for_the_parts(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    write_between_markers(page, "| new |", parts.MARKERS)
    assert "| new |" in page.read_text()
    assert set(sections(Effort(), tmp_path)) == {"gate, 4 KB", "gate, 50 KB", "stack", "inspection"}
