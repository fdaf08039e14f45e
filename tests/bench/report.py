"""The figures of a run as JSON, and as Markdown for people; ratios against plain Postfix of the same run are what counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.machine import Machine
from bench.measure import Measured
from bench.plan import Entry

YARDSTICK = "postfix"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


class SystemResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one system; `failed` says why it ended early."""

    name: str
    title: str
    version: str
    entries: list[Entry]
    failed: str = ""

    def of(self, key: tuple[str, str, int, int]) -> Measured | None:
        return next((entry.measured for entry in self.entries if entry.key == key), None)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `harness`: the generator straight into the sink, which bounds what the harness itself can move."""

    machine: Machine
    options: str
    took_s: float
    harness: list[Entry]
    systems: list[SystemResult]
    left_out: dict[str, str]

    def complaints(self) -> Iterator[str]:
        """One sentence for each thing that should not be."""
        for system in self.systems:
            if system.failed:
                yield f"{system.name}: {system.failed}"
            for entry in system.entries:
                measured = entry.measured
                what = f"{system.name}, {measured.mix}, {entry.load} load"
                if measured.lost or measured.copies or measured.strays:
                    yield f"{what}: {measured.lost} lost, {measured.copies} copies, {measured.strays} strays"
                if measured.passed:
                    yield f"{what}: {measured.passed} passed that a rule should have caught"


def encoded(report: Report) -> bytes:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decoded(data: bytes) -> Report:
    """What `encoded` wrote."""
    return msgspec.json.decode(data, type=Report)


def write_between_markers(page: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers. ValueError for a page without them."""
    before, begin, rest = page.read_text().partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"{page} has no {' … '.join(markers)}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def markdown(report: Report) -> str:
    """Tables of everything that was measured."""
    return "\n\n".join(_sections(report))


def _sections(report: Report) -> Iterator[str]:
    yield f"{report.machine.sentence}. Run: `{report.options}`, {report.took_s / 60:.1f} minutes."
    versions = [
        f"- `{system.name}`: {system.title}" + (f" ({system.version})" if system.version else "") for system in report.systems
    ]
    versions += [f"- `{name}`: left out, {why}" for name, why in report.left_out.items()]
    yield "\n".join(versions)
    keys = dict.fromkeys(entry.key for system in report.systems for entry in system.entries if entry.load == "full")
    for key in keys:
        mix, _, connections, per_connection = key
        yield f"**{mix}**, {connections} connections, {per_connection} messages a connection\n\n{_table(report, key)}"
    yield f"CPU in milliseconds a message, and most memory in MB, by service, at full load:\n\n{_services(report)}"
    if report.harness:
        yield f"The harness alone, generator straight into sink:\n\n{_harness(report)}"
    complaints = list(report.complaints())
    yield "\n".join(f"- {each}" for each in complaints) if complaints else "Nothing lost, nothing twice, nothing past a rule."


def _table(report: Report, key: tuple[str, str, int, int]) -> str:
    mix, _, *shape = key
    yardstick = next((system.of(key) for system in report.systems if system.name == YARDSTICK), None)
    rows = []
    for system in report.systems:
        full = system.of(key)
        if full is None:
            continue
        half = system.of((mix, "half", *shape))
        ratio = f"{full.messages_per_s / yardstick.messages_per_s:.2f}" if yardstick else "–"
        rows.append(
            (
                f"`{system.name}`",
                f"{full.messages_per_s:.0f}",
                ratio,
                f"{full.megabytes_per_s:.1f}",
                _latencies(half),
                _latencies(full),
                f"{full.cpu_ms_per_message['all']:.2f}",
                f"{sum(full.peak_memory_mb.values()):.0f}",
                str(full.lost + (half.lost if half else 0)),
                str(full.copies + (half.copies if half else 0)),
                f"{max(full.elsewhere_cores, half.elsewhere_cores if half else 0):.2f}",
            )
        )
    heads = ("system", "messages/s", "× plain Postfix", "MB/s", "p50 / p99 / p99.9 ms, half load", "the same, full load")
    return table((*heads, "CPU ms/message", "memory MB", "lost", "copies", "cores busy elsewhere"), rows)


def _latencies(measured: Measured | None) -> str:
    if measured is None:
        return "–"
    # of fewer than a thousand, the slowest stands for the thousandth
    last = f"{measured.latency_p999_ms:.0f}" + ("" if measured.arrived >= 1000 else "*")
    return f"{measured.latency_p50_ms:.0f} / {measured.latency_p99_ms:.0f} / {last}"


def _services(report: Report) -> str:
    rows = []
    for system in report.systems:
        for entry in system.entries:
            if entry.load == "full" and entry.standard:
                measured = entry.measured
                parts = (f"{name} {ms:.2f}" for name, ms in measured.cpu_ms_per_message.items() if name != "all" and ms >= 0.005)
                memory = (f"{name} {megabytes:.0f}" for name, megabytes in measured.peak_memory_mb.items())
                rows.append((f"`{system.name}`", measured.mix, ", ".join(parts), ", ".join(memory)))
    return table(("system", "mix", "CPU", "memory"), rows)


def _harness(report: Report) -> str:
    rows = [
        (
            entry.measured.mix,
            f"{entry.measured.messages_per_s:.0f}",
            f"{entry.measured.megabytes_per_s:.0f}",
            f"{entry.measured.generator_cpu_ms:.2f}",
            f"{entry.measured.sink_cpu_ms:.2f}",
        )
        for entry in report.harness
    ]
    return table(("mix", "messages/s", "MB/s", "generator, CPU ms/message", "sink, CPU ms/message"), rows)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
