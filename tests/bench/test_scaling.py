"""The scaling harness: what it judges, and that every curve can be measured. Its figures say nothing here."""

from __future__ import annotations

import email
import subprocess
import sys
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.curve_rules import policy
from bench.curve_stack import fragments
from bench.generator import Work
from bench.growth import Curve, Point, weight
from bench.mix import templates
from bench.scaling import CURVES, MARKERS, PAGE, QUICK, ScalingReport, decoded, encoded, markdown
from fixtures.stack import environment
from postern_core.policy import KeywordCondition

_TESTS = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.timeout(400)  # four stacks start and stop, one after another


def _curve(costs: dict[int, float]) -> Curve:
    return Curve(name="c", n_is="n", cost_is="s", points=[Point(n, cost) for n, cost in costs.items()])


# --- the judgement

SIZES = (10, 1000, 10_000, 100_000)


@pytest.mark.parametrize("power", [0, 0.5, 1])
@pytest.mark.parametrize("fixed", [0, 100])
def test_linear_and_slower_growth_is_no_worse(power: float, fixed: float) -> None:
    assert not _curve({n: fixed + n**power for n in SIZES}).worse_than_n_log_n


@pytest.mark.parametrize("fixed", [0, 100])
@pytest.mark.parametrize("power", [1.5, 2])
def test_growth_with_a_power_over_one_is_worse_also_behind_fixed_costs(power: float, fixed: float) -> None:
    assert _curve({n: fixed + n**power for n in SIZES}).worse_than_n_log_n


def test_n_log_n_has_exponent_one_and_steps_of_one() -> None:
    curve = _curve({n: weight(n) / 7 for n in SIZES})
    assert curve.exponent == pytest.approx(1)
    assert curve.steepest == pytest.approx(1)
    assert not curve.worse_than_n_log_n


@given(st.floats(1e-6, 1e6), st.floats(0.1, 3))
def test_unit_of_cost_changes_no_exponent(unit: float, power: float) -> None:
    one, other = (_curve({n: factor * n**power for n in SIZES}) for factor in (1, unit))
    assert one.exponent == pytest.approx(other.exponent)


def test_one_point_is_no_curve() -> None:
    assert _curve({10: 1.0}).exponent is None
    assert not _curve({10: 1.0}).worse_than_n_log_n


# --- the measurements


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScalingReport, Path, str]:
    """What `python -m bench.scaling --quick` wrote and printed, and the folder with its files."""
    folder = tmp_path_factory.mktemp("scaling")
    command = [sys.executable, "-m", "bench.scaling", "--quick", "--directory", str(folder)]
    command += ["--json", str(folder / "scaling.json"), "--plot", str(folder / "scaling.png")]
    done = subprocess.run(command, cwd=_TESTS, env=environment(), capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return decoded((folder / "scaling.json").read_bytes()), folder, done.stdout


def test_every_curve_is_measured_at_every_size(quick: tuple[ScalingReport, Path, str]) -> None:
    report, _, _ = quick
    assert report.failed == {}
    sizes = {curve.name: [point.n for point in curve.points] for curve in report.curves}
    assert all(point.cost > 0 and point.told for curve in report.curves for point in curve.points)
    found = {name.partition(" ")[0].rstrip(","): numbers for name, numbers in sizes.items()}
    assert found == {
        "workers": list(QUICK.workers),
        "backlog": list(QUICK.backlog),
        "rules": list(QUICK.patterns),
        "recipients": list(QUICK.recipients),
        "deferred": list(QUICK.rows),
    }
    assert set(found) == set(CURVES)
    assert sum("SQLite" in name for name in sizes) == 3


def test_streams_keep_a_message_with_its_envelope_and_its_dispositions(quick: tuple[ScalingReport, Path, str]) -> None:
    stored = quick[0].stored
    assert stored is not None
    assert 0 < stored.sent_bytes < stored.message_bytes < 2 * stored.sent_bytes
    assert 100 < stored.disposition_bytes < 10_000
    assert stored.event_bytes > 0


def test_table_and_picture_are_written_and_nothing_else_stays(quick: tuple[ScalingReport, Path, str]) -> None:
    report, folder, printed = quick
    assert markdown(report) in printed
    assert decoded(encoded(report)) == report
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["scaling.json", "scaling.png"]


def test_curve_that_is_worse_and_one_that_failed_stand_in_the_table(quick: tuple[ScalingReport, Path, str]) -> None:
    report = ScalingReport(
        machine=quick[0].machine, options="", took_s=1, curves=[_curve({n: n**2 for n in SIZES})], failed={"rules": "no room"}
    )
    assert report.worse == ["c"]
    assert "**worse**" in markdown(report)
    assert "- rules: no room" in markdown(report)


# --- what is sent, and the rules


@pytest.mark.parametrize("size", [1, 99, 250])
def test_policy_has_as_many_phrases_as_asked_and_none_that_a_message_holds(size: int) -> None:
    phrases: list[str] = []
    for rule in policy(size).rules:
        assert isinstance(rule.condition, KeywordCondition)
        phrases += rule.condition.phrases
    assert len(set(phrases)) == size
    texts = [template.data.lower() for template in templates("small")]
    assert not any(phrase.encode() in text for phrase in phrases for text in texts)


def test_fragments_are_in_every_text_and_never_a_word_of_it() -> None:
    for template in templates("small")[:20]:
        body = email.message_from_bytes(template.data, policy=SMTP).get_content()
        assert not set(fragments()) & set(body.split())
        assert sum(body.count(fragment) for fragment in fragments()) > 1000


def test_generator_names_each_recipient_once() -> None:
    opening = Work([], 1, None, recipients=3).opening.splitlines()
    assert len(opening) == len(set(opening)) == 5
    assert Work([], 1, None).opening == b"MAIL FROM:<sender@origin.example>\r\nRCPT TO:<recipient@relay.example>\r\nDATA\r\n"


def test_performance_page_has_room_for_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.index(MARKERS[0]) < text.index(MARKERS[1])
