"""From the figures of bench/overlay.py to its tables and verdicts."""

from __future__ import annotations

import json

from bench.overlay_report import distribution, render, summary


def loads(count: float, p50: float) -> list[dict[str, float]]:
    one = {"count": 1.0, "bytes": count * 1e9, "seconds": 1.0, "p50_us": p50, "p99_us": 2 * p50}
    return [one, one, one]


MEASURED = {
    "busy": 2,
    "transfer": {
        "on": {
            "upload": {"pycni": loads(0.96, 0), "by hand": loads(1.0, 0)},
            "request": {"pycni": loads(0, 21), "by hand": loads(0, 20)},
        }
    },
    "add": [{"command": "ADD", "by": "the agent", "members": 3, "wall": [0.008, 0.009, 0.010]}],
    "reach": {"waiting": [-0.001] * 98 + [0.050, 0.070]},
}


def test_ratios_and_verdicts() -> None:
    """Throughput must reach its least ratio, latency must not exceed its most; both ways are shown with their unit."""
    text = render(summary(MEASURED))
    assert "throughput, segmentation on, pycni / by hand: 0.960 (at least 0.97) MISSED" in text
    assert "p50, segmentation on, pycni / by hand: 1.05 (at most 1.05) met" in text
    assert "waiting: p99 in ms: 50.00 (at most 60) met" in text
    assert "2 measurements began" in text
    assert "9.0 (8.5 to 9.5)" in text


def test_parts_may_be_left_out() -> None:
    """What was not measured is not spoken of, and all of it is JSON."""
    found = summary({"reach": {"waiting": [0.001]}})
    assert set(found) == {"busy", "reach"}
    assert "throughput" not in render(found)
    assert json.loads(json.dumps(summary(MEASURED)))["reach"]["waiting"]["count"] == 100


def test_distribution() -> None:
    """In milliseconds, by rank."""
    values = [number / 1000 for number in range(1, 101)]
    assert distribution(values) == {"count": 100, "min": 1, "p50": 50, "p90": 90, "p99": 99, "max": 100}
