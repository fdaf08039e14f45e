"""`make bench`: Postern and its peers, in turn on this machine, from generator to sink.

    python -m bench.run --systems postern,postfix --mixes small,mixed --json ../var/bench.json --plot ../var/bench.png

Peers that are absent are installed from Debian (as root) or npm; `--no-install` leaves them out, and it says which. Exit code 0 when everything
that was started ran to its end and lost nothing, sent nothing twice and let nothing past a rule; 1 otherwise.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx

from bench.machine import filesystem, machine
from bench.measure import Load, Measured, Running, measure, running_sink
from bench.mix import MIXES
from bench.network import enter_network
from bench.plan import Entry, Plan, carry_out
from bench.plot import draw
from bench.report import Report, SystemResult, encoded, markdown, write_between_markers
from bench.rules import rules
from bench.systems import SYSTEMS, MissingError, System
from fixtures.ports import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs/performance.md"
_QUICK = Plan(mixes=("small",), messages=200, shapes=False)
_NOT_DISKS = ("tmpfs", "ramfs")


@contextmanager
def private_directory(below: Path) -> Iterator[Path]:
    """A directory that goes away again, and that the users of peers' daemons can pass through."""
    directory = Path(tempfile.mkdtemp(prefix="postern-bench-", dir=below))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure_in_turn(names: list[str], plan: Plan, below: Path) -> list[SystemResult]:
    """All of these systems, which take turns: what is measured of one comes right behind the same of the others, since a machine that is shared with
    others changes its speed within minutes. Whoever waits for his turn does nothing."""
    results: dict[str, SystemResult] = {}
    with ExitStack() as started:
        turns = {name: started.enter_context(closing(_turns(name, SYSTEMS[name], plan, below))) for name in names}
        while turns:
            for name, turn in tuple(turns.items()):
                try:
                    next(turn)
                except StopIteration as ended:
                    results[name] = ended.value
                    del turns[name]
    return [results[name] for name in names]


def _turns(name: str, system: System, plan: Plan, below: Path) -> Generator[None, None, SystemResult]:
    """Start it, carry out the plan, one kind of load a turn, stop it. What it fails with is in the result."""
    entries: list[Entry] = []
    version = failed = ""
    with private_directory(below) as directory:
        port, arrivals, own = free_port(), directory / "arrivals.bin", directory / name
        own.mkdir(mode=0o711)
        try:
            with running_sink(port, arrivals) as sink_pid, system.start(own, port, rules()) as running:
                version = running.version
                print(f"{name}: {version}", flush=True)

                def send(load: Load) -> Measured:
                    return measure(
                        running, load, screened=system.screened, sink_pid=sink_pid, arrivals=arrivals, sent=directory / "sent.bin"
                    )

                for entry in carry_out(plan, send):
                    entries.append(entry)
                    print(f"  {name:14} {_line(entry)}", flush=True)
                    # half load comes right behind full load: nobody begins it cold
                    if entry.load == "half" or not entry.standard:
                        yield
        except (RuntimeError, OSError, subprocess.SubprocessError, httpx.HTTPError) as trouble:
            failed = str(trouble) or repr(trouble)
            print(f"{name}: {failed}", file=sys.stderr, flush=True)
    return SystemResult(name=name, title=system.title, version=version, entries=entries, failed=failed)


def measure_harness(plan: Plan, below: Path) -> list[Entry]:
    """The generator straight into the sink, at full load."""
    with private_directory(below) as directory:
        port, arrivals = free_port(), directory / "arrivals.bin"
        with running_sink(port, arrivals) as sink_pid:
            bare = Running(port, {})

            def send(load: Load) -> Measured:
                return measure(bare, load, screened=False, sink_pid=sink_pid, arrivals=arrivals, sent=directory / "sent.bin")

            return list(carry_out(plan, send, only_full=True))


def _line(entry: Entry) -> str:
    measured = entry.measured
    return (
        f"{measured.mix:6} {entry.load} load, {measured.connections} × {measured.per_connection}: {measured.messages} messages, "
        f"{measured.messages_per_s:.0f}/s, {measured.megabytes_per_s:.1f} MB/s, p50 {measured.latency_p50_ms:.0f} ms, "
        f"p99 {measured.latency_p99_ms:.0f} ms, CPU {measured.cpu_ms_per_message['all']:.2f} ms, {measured.lost} lost, "
        f"{measured.copies} copies, {measured.elsewhere_cores:.2f} cores busy elsewhere"
    )


def run(names: list[str], plan: Plan, *, install: bool, own_network: bool, below: Path, options: str) -> Report:
    """All of it. Systems that cannot run here are left out, and the report says why."""
    begun = time.monotonic()
    left_out = {}
    # installed before anything is measured: an unpacking package manager is no quiet machine
    for name in names:
        try:
            SYSTEMS[name].prepare(install=install)
        except MissingError as missing:
            left_out[name] = str(missing)
            print(f"{name}: left out, {missing}", flush=True)
    network = enter_network(own=own_network)
    with private_directory(below) as directory:
        what = machine(directory, network)
    print(what.sentence, flush=True)
    harness = measure_harness(plan, below)
    systems = measure_in_turn([name for name in names if name not in left_out], plan, below)
    took_s = round(time.monotonic() - begun, 1)
    return Report(machine=what, options=options, took_s=took_s, harness=harness, systems=systems, left_out=left_out)


def several(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A parser of `a,b,c` for an option that takes any of `choices`."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for each in chosen:
            if each not in choices:
                raise argparse.ArgumentTypeError(f"no {each!r}: {', '.join(choices)}")
        return chosen

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=several(tuple(SYSTEMS)), default=list(SYSTEMS), help=f"default: {','.join(SYSTEMS)}")
    parser.add_argument("--mixes", type=several(MIXES), default=list(MIXES), help=f"default: {','.join(MIXES)}")
    parser.add_argument("--seconds", type=float, default=10, help="that one measurement should take (default 10)")
    parser.add_argument("--messages", type=int, default=None, help="of each measurement, instead of --seconds")
    parser.add_argument(
        "--quick", action="store_true", help="a few small messages, to see that the harness works: its figures say nothing"
    )
    parser.add_argument("--no-install", action="store_true", help="leave out peers that are not there")
    parser.add_argument(
        "--machine-network", action="store_true", help="the machine's own loopback, as its firewall and sysctls have it"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), help="on a real disk, for queues and streams (default /var/tmp)"
    )
    parser.add_argument("--json", type=Path, default=None, help="write the figures")
    parser.add_argument("--plot", type=Path, default=None, help="write a picture as PNG")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write_docs:
        parser.error("the figures of --quick say nothing: they do not belong into the documentation")
    return arguments


def main() -> int:
    arguments = _arguments()
    # so that every system under test is stopped on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if (kind := filesystem(arguments.directory)) in _NOT_DISKS:
        print(
            f"{arguments.directory} is {kind}: nothing there is durable, the figures will flatter everyone (see --directory)",
            file=sys.stderr,
        )
    plan = _QUICK if arguments.quick else Plan(tuple(arguments.mixes), arguments.seconds, arguments.messages)
    options = shlex.join(["bench.run", *sys.argv[1:]])
    report = run(
        arguments.systems,
        plan,
        install=not arguments.no_install,
        own_network=not arguments.machine_network,
        below=arguments.directory,
        options=options,
    )
    text = markdown(report)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(encoded(report))
    if arguments.plot:
        draw(arguments.plot, report)
    if arguments.write_docs:
        write_between_markers(PAGE, text)
    return 1 if any(report.complaints()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
