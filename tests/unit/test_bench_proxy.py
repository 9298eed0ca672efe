"""What bench/proxy.py makes of its measurements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import proxy, proxy_report
from bench.proxy_report import LOADS, render, summary, verdicts


def one(**figures: float) -> dict[str, float]:
    return {"count": 1000, "bytes": 1e9, "seconds": 1.0, "p50_us": 50, "p99_us": 100, "cpu": 0.2, **figures}


def measured(ours: dict[str, float], theirs: dict[str, float], memory: list[dict[str, float]]) -> dict[str, Any]:
    rounds = {"pycni": [one(**ours)] * 3, "docker-proxy": [one(**theirs)] * 3, "direct": [one(cpu=0.0)] * 3}
    return {"loads": {load.name: rounds for load in LOADS}, "memory": memory}


def test_ratios_are_those_of_rates_and_costs() -> None:
    """Half the seconds are twice the rate and, with half the CPU, half the cost."""
    found = summary(measured({"seconds": 0.5, "cpu": 0.1}, {}, []))
    by = {(each["load"], each["figure"]): each for each in found["loads"]}
    upload = by["to the container", "throughput"]
    assert upload["ratio"]["median"] == pytest.approx(2)
    assert upload["ways"]["docker-proxy"]["median"] == pytest.approx(8)  # Gb/s: a GB in a second
    assert by["to the container", "CPU"]["ratio"]["median"] == pytest.approx(0.5)
    assert by["datagrams, there and back", "CPU"]["ways"]["pycni"]["median"] == pytest.approx(100)  # us
    assert "direct" not in by["to the container", "CPU"]["ways"]  # no proxy, no CPU of one
    json.dumps(found)


def test_targets_are_met_or_missed_in_words() -> None:
    """Rates are to be high, costs low; memory both as a ratio and in MB."""
    memory = [{"ports": 100, "pycni": 7.0, "docker-proxy": 70.0}, {"ports": 1000, "pycni": 31.0}]
    good = verdicts(summary(measured({"cpu": 0.1}, {}, memory)))
    assert [line for line in good if "MISSED" in line] == ["memory of 1000 ports, MB: 31.00 (at most 30) MISSED"]
    assert "memory of 100 ports, pycni / docker-proxy: 0.10 (at most 0.3) met" in good
    bad = verdicts(summary(measured({"seconds": 1.1, "p50_us": 60}, {}, [])))
    assert sum("MISSED" in line for line in bad) == len(bad) == 9


def test_tables_have_a_row_for_every_figure() -> None:
    """And empty cells where a way has none."""
    text = render(summary(measured({}, {}, [{"ports": 10, "pycni": 6.5}])))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + sum(len(load.figures) for load in LOADS) + 2 + 1
    assert rows[-1].split("|")[1:-1] == [" 10    ", "       6.5 ", "                  ", "       "]


def test_quick_run_is_one_of_options() -> None:
    """What `--quick` sets can be set by hand."""
    given = proxy.parse(["--quick"])
    assert {key: getattr(given, key) for key in proxy.QUICK} == proxy.QUICK
    assert proxy_report.OURS == "pycni"
