"""The harness itself, end to end with Postern alone: what it counts, what it cannot overlook, what it writes. Its figures say nothing here."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import generator, sink
from bench.machine import filesystem
from bench.measure import Load, Measured, Running, Used, evaluate, measure, running_sink
from bench.mix import CAUGHT_WORD, MIXES, caught_flags, templates
from bench.plan import Plan, carry_out
from bench.processes import cpu_s, memory_bytes, running
from bench.report import BEGIN, END, Report, decoded, encoded, markdown, write_between_markers
from bench.rules import Rules, rules
from bench.run import measure_in_turn
from bench.systems import SYSTEMS, MissingError, System
from fixtures.ports import free_port
from fixtures.stack import environment

_TESTS = Path(__file__).resolve().parent.parent
_NOTHING = Used({}, {}, 0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """What `python -m bench.run --quick` wrote, and the folder with its files."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench.run", "--quick", "--systems", "postern", "--directory", str(folder)]
    command += ["--json", str(folder / "bench.json"), "--plot", str(folder / "bench.png")]
    done = subprocess.run(command, cwd=_TESTS, env=environment(), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = decoded((folder / "bench.json").read_bytes())
    assert markdown(report) in done.stdout
    return report, folder


def test_every_message_is_counted_once_and_the_caught_ones_do_not_arrive(quick: tuple[Report, Path]) -> None:
    (postern,) = quick[0].systems
    assert postern.failed == ""
    assert [(entry.load, entry.measured.mix) for entry in postern.entries] == [("full", "small"), ("half", "small")]
    for entry in postern.entries:
        measured = entry.measured
        assert (measured.messages, measured.expected, measured.arrived) == (200, 190, 190)
        assert (measured.lost, measured.copies, measured.strays, measured.passed) == (0, 0, 0, 0)


def test_figures_are_there_for_every_service(quick: tuple[Report, Path]) -> None:
    measured = quick[0].systems[0].entries[0].measured
    services = {"nats-server", "ingress-anon", "screener", "delivery", "api"}
    assert services <= measured.peak_memory_mb.keys()
    assert all(measured.peak_memory_mb[service] > 1 for service in services)
    assert measured.cpu_ms_per_message["all"] == pytest.approx(
        sum(ms for service, ms in measured.cpu_ms_per_message.items() if service != "all"), abs=0.01
    )
    assert measured.cpu_ms_per_message["all"] > 0
    assert 0 < measured.latency_p50_ms <= measured.latency_p99_ms <= measured.latency_p999_ms


def test_half_load_is_half_of_what_full_load_reached(quick: tuple[Report, Path]) -> None:
    full, half = quick[0].systems[0].entries
    assert half.measured.offered_per_s == pytest.approx(full.measured.messages_per_s / 2, abs=0.1)
    assert half.measured.messages_per_s < full.measured.messages_per_s


def test_picture_is_written_and_nothing_else_stays(quick: tuple[Report, Path]) -> None:
    assert (quick[1] / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in quick[1].iterdir()) == ["bench.json", "bench.png"]


def test_report_survives_json(quick: tuple[Report, Path]) -> None:
    assert decoded(encoded(quick[0])) == quick[0]


# --- what it cannot overlook


def _evaluated(load: Load, arrivals: list[tuple[int, int]], *, screened: bool = True) -> Measured:
    """Message n is begun at n seconds."""
    sent = b"".join(
        generator.RECORD.pack(n, (n - load.first) * 10**9, 0, 1000) for n in range(load.first, load.first + load.messages)
    )
    return evaluate(
        load, screened=screened, sent=sent, arrivals=b"".join(sink.RECORD.pack(*each) for each in arrivals), used=_NOTHING
    )


def _all_arrive(load: Load) -> list[tuple[int, int]]:
    """Each one second after it was begun, but for those to be caught."""
    flags = caught_flags(load.mix)
    return [(load.first + n, (n + 1) * 10**9) for n in range(load.messages) if not flags[n % len(flags)]]


def test_what_does_not_arrive_is_lost() -> None:
    load = Load("small", messages=200, first=500)
    arrivals = _all_arrive(load)
    assert _evaluated(load, arrivals).lost == 0
    assert _evaluated(load, arrivals[:-3]).lost == 3


def test_what_arrives_twice_is_a_copy_and_hides_no_loss() -> None:
    load = Load("small", messages=200)
    arrivals = _all_arrive(load)
    measured = _evaluated(load, [*arrivals[1:], arrivals[5]])
    assert (measured.lost, measured.copies, measured.arrived) == (1, 1, 189)


def test_what_a_rule_should_have_caught_is_seen() -> None:
    load = Load("small", messages=200)
    caught = caught_flags("small").index(True)
    assert _evaluated(load, [*_all_arrive(load), (caught, 10**9)]).passed == 1


def test_late_mail_of_an_earlier_measurement_is_a_stray_and_no_arrival() -> None:
    load = Load("small", messages=200, first=1000)
    measured = _evaluated(load, [*_all_arrive(load), (7, 10**9), (-1, 10**9)])
    assert (measured.strays, measured.arrived, measured.copies) == (2, 190, 0)


def test_nothing_that_arrived_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="nothing arrived"):
        _evaluated(Load("small", messages=200), [])


def test_latency_and_rate_are_of_the_known_times() -> None:
    load = Load("small", messages=200)
    arrivals = [(n, n * 10**9 + (5_000_000 if n < 198 else 70_000_000)) for n in range(200)]
    measured = _evaluated(load, arrivals, screened=False)
    assert (measured.latency_p50_ms, measured.latency_p99_ms, measured.latency_p999_ms) == (5, 70, 70)
    assert measured.messages_per_s == pytest.approx(200 / 199.07, abs=0.1)


def test_generator_and_sink_alone_lose_nothing(tmp_path: Path) -> None:
    port, arrivals = free_port(), tmp_path / "arrivals.bin"
    with running_sink(port, arrivals) as sink_pid:
        load = Load("mixed", messages=300, connections=7, per_connection=3)
        measured = measure(
            Running(port, {}), load, screened=False, sink_pid=sink_pid, arrivals=arrivals, sent=tmp_path / "sent.bin"
        )
    assert (measured.arrived, measured.lost, measured.copies, measured.refused_for_now, measured.hung_up) == (300, 0, 0, 0, 0)
    assert measured.megabytes_per_s > 0


# --- what is sent, and the rules


@pytest.mark.parametrize("mix", MIXES)
def test_five_percent_of_a_mix_are_caught_and_only_by_the_word_that_is_there_for_it(mix: str) -> None:
    made = templates(mix)
    assert [template.caught for template in made] == caught_flags(mix)
    assert sum(caught_flags(mix)) == round(len(made) * 0.05)
    others = [phrase.encode() for phrase in rules().phrases if phrase != CAUGHT_WORD]
    endings = tuple(f".{extension}" for extension in rules().extensions)
    for template in made:
        text = template.data[:20_000].lower()
        assert (CAUGHT_WORD.encode() in text) is template.caught
        assert not any(phrase in text for phrase in others)
        assert b"\r\n." not in template.data
        assert not "report.pdf".endswith(endings)
    assert not {"origin.example", "sender@origin.example"} & {*rules().domains, *rules().addresses}


def test_rules_are_as_many_as_they_are_said_to_be() -> None:
    made = rules()
    assert len(set(made.phrases)) == 1000
    assert len(set(made.extensions)) == 50
    assert len({*made.addresses, *made.domains}) == 200
    assert [phrase for group in made.phrase_groups() for phrase in group] == list(made.phrases)


def test_plan_numbers_no_message_twice() -> None:
    loads: list[Load] = []

    def send(load: Load) -> Measured:
        loads.append(load)
        return _evaluated(load, _all_arrive(load))

    entries = list(carry_out(Plan(MIXES, messages=150), send))
    ranges = sorted((load.first, load.first + load.messages) for load in loads)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    assert len({entry.key for entry in entries}) == len(entries) == 2 * len(MIXES) + 2
    assert [load.rate is None for load in loads[:3]] == [True, True, False]  # warm-up, full, half


# --- what is written


def test_tables_go_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    write_between_markers(page, "| new |")
    assert page.read_text() == f"above\n\n{BEGIN}\n| new |\n{END}\n\nbelow\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no"):
        write_between_markers(page, "new")


def test_performance_page_has_room_for_the_tables() -> None:
    text = (_TESTS.parent / "docs/performance.md").read_text()
    assert text.index(BEGIN) < text.index(END)


# --- processes, systems, machine


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[int]:
    """The pid of a shell whose child computes."""
    code = "import time; block = b'x' * 30_000_000; begun = time.process_time()\nwhile time.process_time() - begun < 1: pass\ntime.sleep(60)"
    with running(["sh", "-c", f'{sys.executable} -c "{code}"; true'], tmp_path / "out", cwd=tmp_path) as pid:
        yield pid


def test_cpu_time_and_memory_of_children_count(busy: int) -> None:
    deadline = time.monotonic() + 60
    while cpu_s([busy]) < 0.9 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cpu_s([busy]) >= 0.9
    assert memory_bytes([busy]) > 30_000_000


def test_process_that_we_started_is_gone_after_its_block(tmp_path: Path) -> None:
    with running(["sleep", "60"], tmp_path / "out", cwd=tmp_path) as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_absent_peer_is_left_out_with_a_reason() -> None:
    absent = dataclasses.replace(SYSTEMS["postern"], programs=("no-such-program-of-postern",))
    with pytest.raises(MissingError, match="no-such-program-of-postern"):
        absent.prepare(install=False)


def test_every_system_of_the_issue_is_there_and_only_plain_postfix_does_not_screen() -> None:
    assert list(SYSTEMS) == ["postern", "postfix", "postfix-checks", "postfix-rspamd", "postfix-amavis", "haraka"]
    assert [name for name, system in SYSTEMS.items() if not system.screened] == ["postfix"]


_IN_ITS_NETWORK = """
import os, socket, sys
from pathlib import Path
from bench.network import enter_network
before = os.readlink("/proc/self/ns/net")
if sys.argv[1] == "nobody":
    os.setresuid(65534, 65534, 0)
told = enter_network(own=sys.argv[1] != "as it is")
os.seteuid(os.getresuid()[2])
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), timeout=5).close()
routes = len(Path("/proc/self/net/route").read_text().splitlines()) - 1
print(told, before != os.readlink("/proc/self/ns/net"), Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(), routes, sep="|")
"""


@pytest.mark.parametrize("how", ["as root", "nobody", "as it is"])
def test_a_benchmark_has_a_loopback_of_its_own_where_it_may(how: str) -> None:
    if how != "as it is" and os.geteuid() != 0:
        how = "as whoever it is"  # an unprivileged user may not, and is told so
    done = subprocess.run(
        [sys.executable, "-c", _IN_ITS_NETWORK, how],
        cwd=_TESTS,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told, is_own, control, routes = done.stdout.strip().split("|")
    if how == "as root":
        assert (told, is_own, control, routes) == ("a network namespace of its own, reno", "True", "reno", "0")
    else:
        assert is_own == "False"
        assert told.startswith("the machine's network")
        assert ("not permitted" in told) == (how != "as it is")
        assert told.endswith(control)


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b".", b"")), min_size=1, max_size=4), st.data())
def test_the_sink_sees_the_end_of_a_message_wherever_the_blocks_end(bodies: list[bytes], data: st.DataObject) -> None:
    """And a QUIT that comes in one with it, as Postfix sends it."""
    messages = [sink.MARK + b"%010d\r\n\r\n" % n + body * 30 + b"\r\n.\r\n" for n, body in enumerate(bodies)]
    log, transport = io.BytesIO(), MagicMock()
    protocol = sink.SinkProtocol(log)
    protocol.connection_made(transport)
    for n, message in enumerate(messages):
        protocol.data_received(b"DATA\r\n")
        whole = message + (b"QUIT\r\n" if n == len(messages) - 1 else b"")
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)))
        for begin, end in itertools.pairwise((0, *cuts, len(whole))):
            protocol.data_received(whole[begin:end])
    assert [number for number, _ in sink.RECORD.iter_unpack(log.getvalue())] == list(range(len(messages)))
    assert transport.close.called


def test_systems_take_turns_and_one_that_fails_stops_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def relay(_own: Path, sink_port: int, _rules: Rules) -> Iterator[Running]:
        yield Running(sink_port, {})  # a relay that costs nothing: the sink itself

    @contextmanager
    def broken(_own: Path, _sink_port: int, _rules: Rules) -> Iterator[Running]:
        raise RuntimeError("it does not start")
        yield

    systems = {name: System(name, start, screened=False) for name, start in (("a", relay), ("b", broken), ("c", relay))}
    monkeypatch.setattr("bench.run.SYSTEMS", systems)
    a, b, c = measure_in_turn(["a", "b", "c"], Plan(mixes=("small", "mixed"), messages=50, shapes=False), tmp_path)
    assert b.failed == "it does not start"
    for system in (a, c):
        assert (system.failed, [entry.load for entry in system.entries]) == ("", ["full", "half"] * 2)
        assert all(entry.measured.arrived == 50 for entry in system.entries)
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines() if " load, " in line]
    assert lines == [[name, mix, load] for mix in ("small", "mixed") for name in ("a", "c") for load in ("full", "half")]
    assert list(tmp_path.iterdir()) == []


def test_file_system_is_that_of_the_innermost_mount() -> None:
    assert filesystem(Path("/proc/self")) == "proc"
    assert filesystem(Path(os.sep)) != "unknown"
