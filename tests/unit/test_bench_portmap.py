"""What the benchmark of published ports makes of its measurements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import portmap, portmap_report
from bench.portmap_parties import Ports
from bench.portmap_report import EMPTY, NETAVARK, ONE, OURS, RANGE, REFERENCE


def figures(**seconds: list[float]) -> dict[str, Any]:
    """By side, the same for wall and CPU; names as in the report, with _ for spaces."""
    return {name: {"wall": values, "cpu": values} for name, values in seconds.items()}


def measured(ours: float, range_s: float, crowd_s: float) -> dict[str, Any]:
    """Three rounds: *ours* seconds for every single life against 1 of the reference."""
    single = {side: [ours] * 3 for side in OURS} | {REFERENCE: [1.0] * 3, NETAVARK: [2.0]}
    lives = {ports: {command: figures(**single) for command in ("ADD", "DEL")} for ports in (ONE, "10", "100")}
    lives[RANGE] = {command: figures(**{side: [range_s] * 3 for side in OURS}) for command in ("ADD", "DEL")}
    crowd = (
        {side: [crowd_s] * 3 for side in OURS} | {side + EMPTY: [ours] * 3 for side in OURS} | {REFERENCE: [1.0] * 3}
    )
    return {"lives": lives, "existing": {command: figures(**crowd) for command in ("ADD", "DEL")}}


def test_every_target_gets_a_verdict() -> None:
    """Per side of ours: ADD and DEL of one port, of 100 and of the range, and two of ADD next to 1000."""
    found = portmap_report.summary(measured(0.1, 0.15, 0.11))
    lines = list(portmap_report.verdicts(found, 1000))
    assert len(lines) == 2 * (2 + 2 + 2 + 2)
    assert all(line.endswith("met") for line in lines)
    missed = list(portmap_report.verdicts(portmap_report.summary(measured(0.5, 1.5, 0.7)), 1000))
    assert [line.rpartition(" ")[2] for line in missed].count("MISSED") == 3 + 4 + 4
    assert not [line for line in portmap_report.verdicts(found, 100) if "next to" in line]


def test_rounds_without_netavark_do_not_count_for_it() -> None:
    """netavark takes part in the first rounds: its ratio is that of those, the reference's that of all."""
    data = measured(0.1, 0.1, 0.1)
    data["lives"][ONE]["ADD"][OURS[0]]["wall"][:] = [0.2, 0.1, 0.1]
    found = portmap_report.summary(data)["lives"]
    first = [one for one in found if (one["ports"], one["command"], one["ours"]) == (ONE, "ADD", OURS[0])]
    assert {one["theirs"]: one["wall"].ratio.median for one in first} == {REFERENCE: 0.1, NETAVARK: 0.1}


def test_report_and_json_hold_every_comparison() -> None:
    """A row for each, and the same in the file."""
    found = portmap_report.summary(measured(0.1, 0.15, 0.11))
    text = portmap_report.render(found, 1000)
    assert text.count("\n| ADD") == text.count("\n| DEL") == 12 + 6 + 4
    assert json.loads(json.dumps(portmap_report.as_json(found)))["own"][0]["wall"]["ratio"]["median"] == 1.0


def test_ports_are_spelled_for_both_protocols() -> None:
    """A range is one mapping for CNI; single ports are as many for either side."""
    (only,) = Ports("", 10_000, 20_000, is_range=True).cni()
    assert (only["hostPort"], only["hostPortEnd"]) == (20_000, 29_999)
    three = Ports("", 3, 8080)
    assert [each["hostPort"] for each in three.cni()] == [each["host_port"] for each in three.netavark()]


@pytest.mark.parametrize("argv", [["--existing", "1024"], ["--rounds", "2", "--netavark-rounds", "3"]])
def test_impossible_runs_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A bridge has 1024 ports, and netavark cannot take part more often than there are rounds."""
    with pytest.raises(SystemExit):
        portmap.parse(argv)
    assert argv[0].strip("-") in capsys.readouterr().err
