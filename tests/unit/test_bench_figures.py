"""The arithmetic and the tables of the benchmarks."""

from __future__ import annotations

import importlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import add_del, breakdown, imports, report, traced_call
from bench.figures import Comparison, Spread, Target, milliseconds, ratio, render_table
from bench.sides import Outcome, network, with_result

seconds = st.floats(min_value=1e-6, max_value=1e3)


def test_spread_of_five_values_is_the_second_third_and_fourth() -> None:
    """Inclusive quartiles: with five values no value is invented."""
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)


def test_spread_of_one_value_is_that_value() -> None:
    """One burst is enough for a figure."""
    assert Spread.of([7.0]) == (7.0, 7.0, 7.0)


def test_spread_of_nothing_is_an_error() -> None:
    """A run without measurements must not end in a table."""
    with pytest.raises(ValueError, match="no measurements"):
        Spread.of([])


@given(st.lists(seconds, min_size=1, max_size=40))
def test_spread_is_ordered_and_within_the_values(values: list[float]) -> None:
    """Quartiles never leave the range that was measured."""
    found = Spread.of(values)
    slack = 1 + 1e-12
    assert min(values) <= found.low * slack
    assert found.low <= found.median * slack
    assert found.median <= found.high * slack
    assert found.high <= max(values) * slack


def test_ratio_is_that_of_pairs_and_not_of_medians() -> None:
    """A slow spell hits neighbours alike: here every pair says one half, while the medians would say 3 to 4."""
    found = Comparison.of([1.0, 3.0, 50.0], [2.0, 6.0, 100.0])
    assert found.ratio == (0.5, 0.5, 0.5)
    assert (found.ours.median, found.theirs.median) == (3.0, 6.0)


def test_measurements_without_a_partner_are_an_error() -> None:
    """A ratio needs both of a pair."""
    with pytest.raises(ValueError, match="shorter"):
        Comparison.of([1.0, 2.0], [1.0])


def test_target_says_how_far_off_it_is() -> None:
    """The limit itself still meets the target."""
    target = Target("ADD", 0.5)
    assert target.verdict(0.5) == "ADD: 0.50 (at most 0.5) met"
    assert target.verdict(0.61) == "ADD: 0.61 (at most 0.5) MISSED"


def test_spreads_are_shown_in_milliseconds_and_as_factors() -> None:
    """A tenth of a millisecond means nothing at a hundred."""
    assert milliseconds(Spread(0.0101, 0.02049, 1.2345)) == "20.5 (10.1 to 1234)"
    assert milliseconds(Spread(0.0004, 0.000476, 0.0012)) == "0.48 (0.40 to 1.2)"
    assert ratio(Spread(0.5, 0.612, 1.0)) == "0.61 (0.50 to 1.00)"


def test_table_is_markdown_with_figures_to_the_right() -> None:
    """The same text serves the terminal and the page."""
    assert render_table(("a", "ms"), [("ADD", "1.5"), ("DEL", "10.25")]) == (
        "| a   |    ms |\n| --- | ----: |\n| ADD |   1.5 |\n| DEL | 10.25 |\n"
    )


def test_report_compares_the_two_sides_at_every_number_of_containers() -> None:
    """From the measurements of a run to the table, the own cost and the verdicts."""
    first = {"wall": [[0.010, 0.012], [0.020, 0.024], [0.010, 0.012]], "cpu": [[0.010], [0.020], [0.010]]}
    later = {"wall": [[0.012, 0.012], [0.120, 0.120], [0.011, 0.011]], "cpu": [[0.010], [0.050], [0.010]]}
    burst = {"wall": [[1.0], [2.0]], "cpu": [[1.5], [2.0]], "failed": [0, 3]}
    by_existing = {0: dict.fromkeys(report.COMMANDS, first), 1000: dict.fromkeys(report.COMMANDS, later)}
    found = report.summary({"calls": by_existing, "bursts": {8: {"ADD": burst}}})
    text = report.render(found, burst=100, targets=report.STANDALONE)
    assert "0.50 (0.50 to 0.50)" in text
    assert "0 / 3" in text
    assert "1000 over 0" in text
    assert "ADD next to 0, pycni / reference: 0.50 (at most 1.5) met" in text
    assert "ADD next to 1000, pycni / reference: 0.10 (at most 0.5) met" in text
    assert "own ADD next to 1000 / next to 0: 1.09 (at most 1.2) met" in text
    assert json.loads(json.dumps(report.as_json(found)))["calls"][0]["wall"]["ratio"]["median"] == 0.5


def test_more_containers_than_a_bridge_has_ports_are_refused() -> None:
    """The kernel's limit, said before the run and not after minutes of it."""
    with pytest.raises(SystemExit):
        add_del.parse(["--existing", "0,1024"])


def test_check_and_del_get_the_result_of_add() -> None:
    """As runtimes do it (spec, section 4); after a failed ADD there is none."""
    conf = network(masquerade=True)
    assert with_result(conf, '{"ips": []}')["prevResult"] == {"ips": []}
    assert with_result(conf, "") == conf


def test_import_times_are_read_and_the_heading_is_not() -> None:
    """The format of -X importtime (Python's command line reference)."""
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       120 |        120 |   _json\n"
        "a plugin's own words\n"
        "import time:        30 |        150 | pycni.cni\n"
    )
    assert imports.parse_import_time(text) == [("_json", 120), ("pycni.cni", 30)]
    way = imports.Way("bridge", "ADD", [imports.parse_import_time(text)])
    assert (way.modules(ours=True), way.modules(ours=False)) == (1, 1)
    assert (way.self_ms(ours=True), way.self_ms(ours=False)) == (0.03, 0.12)
    assert way.dearest(1) == [("_json", 0.12)]


def test_phases_of_a_call_add_up_without_the_tracing() -> None:
    """From the start of the process to its end, as its parent saw them."""
    traced = {"phases": {"imports": 0.010, "store": 0.002, "tracing": 0.004}, "born": 100.005, "end": 100.021}
    outcome = Outcome(rc=0, start=100.0, wall=0.025, cpu=0.02, stdout="", stderr=json.dumps(traced))
    phases = breakdown.phases_of(outcome)
    assert phases == pytest.approx(
        {breakdown.START: 0.005, "imports": 0.010, "store": 0.002, breakdown.END: 0.004, breakdown.TOTAL: 0.021}
    )


@pytest.mark.parametrize("name", traced_call.BORDERS)
def test_what_the_clock_is_put_around_exists(name: str) -> None:
    """A function that was renamed would take its phase out of the breakdown."""
    module = importlib.import_module(name)
    for owner, names in traced_call.BORDERS[name][1].items():
        holder = getattr(module, owner) if owner else module
        assert [each for each in names.split() if each not in vars(holder)] == []
