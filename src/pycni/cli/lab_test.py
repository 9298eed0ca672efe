"""`pycni lab test`: scenarios on labs of their own or on one that is up, with reports and an exit code."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from functools import partial

from pycni.cli.failure import FAILED, OK, check_writable, write_text
from pycni.cli.lab import find_lab
from pycni.cli.tables import printable, width_of
from pycni.lab.bringing_up import bring_up, take_down
from pycni.lab.errors import USAGE, LabError
from pycni.lab.progress import Progress
from pycni.lab.report import Report, junit_xml
from pycni.lab.running import RunningLab, read_state
from pycni.lab.scenario import Scenario
from pycni.lab.scenario_file import read_scenario
from pycni.lab.scenario_run import run_scenario


def test(given: Namespace) -> int:
    """Files are read and tried before the first lab is touched: an error in the last is not found out after minutes."""
    scenarios = [(path, read_scenario(path)) for path in given.scenario]
    for path, scenario in scenarios:
        if scenario.lab is None and not given.lab:
            raise LabError(f"{path} names no lab", next_step="--lab NAME of one that is up", exit_code=USAGE)
    for path in filter(None, (given.junit, given.report)):
        check_writable(path)
    stream = sys.stderr if given.json else sys.stdout
    reports: list[Report] = []
    try:
        for path, scenario in scenarios:
            reports.append(_run(given, path, scenario, Progress(stream)))
    finally:  # what was found out is not lost with a lab that cannot be brought up
        text = _reported(given, reports)
    if given.json:
        print(text)
    return OK if all(each.passed for each in reports) else FAILED


def _reported(given: Namespace, reports: list[Report]) -> str:
    """The JSON of *reports*, which are in the files that were asked for."""
    passed = len(reports) == len(given.scenario) and all(each.passed for each in reports)
    told = {"passed": passed, "scenarios": [each.as_json() for each in reports]}
    text = json.dumps(told, indent=4, ensure_ascii=False)
    if given.junit:
        write_text(given.junit, junit_xml(reports))
    if given.report:
        write_text(given.report, text + "\n")
    return text


def _run(given: Namespace, path: str, scenario: Scenario, progress: Progress) -> Report:
    if given.lab:
        return _carried_out(given, path, scenario, find_lab(given.lab), progress)
    assert scenario.lab is not None
    want = scenario.lab
    if given.name:
        want = want.replace(name=given.name, document={**want.document, "name": given.name})
    own = read_state(want.name) is None
    progress.say(f"{scenario.name}: lab {want.name} {'is brought up' if own else 'is up already'}")
    try:
        try:
            bring_up(want, file=path, progress=Progress(progress.stream, quiet=True))
        except (LabError, OSError):
            own = False  # it has cleaned up itself; what is there now is somebody else's
            raise
        return _carried_out(given, path, scenario, RunningLab.load(want.name), progress)
    finally:
        if own and not given.keep:
            take_down(want.name)


def _carried_out(given: Namespace, path: str, scenario: Scenario, lab: RunningLab, progress: Progress) -> Report:
    report = run_scenario(
        lab, scenario, path=path, keep_going=given.keep_going, say=progress.say, waiting=partial(_wait, progress)
    )
    progress.say(f"{scenario.name}: {report.summary}")
    return report


def _wait(progress: Progress, text: str) -> None:
    """On a terminal, in the line that the next one takes the place of: what is waited for."""
    width = width_of(progress.stream)
    if width is not None:
        progress.stream.write(f"\r\x1b[K{printable(text)[: width - 1]}")
        progress.stream.flush()
