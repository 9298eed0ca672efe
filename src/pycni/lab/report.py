"""What a scenario came to, as values, as JSON and as the JUnit XML that CI systems show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pycni.cni.value import Value

PASSED, FAILED, ERROR, SKIPPED = "passed", "failed", "error", "skipped"


class Outcome(Value):
    """One action or claim: *verdict* is one of the above, *seen* says why in words, *line* is that of the file."""

    step: int  # counts from 1
    kind: str  # "action", "claim" or "meanwhile"
    words: str
    line: int
    verdict: str
    seen: str = ""
    seconds: float = 0.0


class Report(Value):
    """A whole run; *started* in seconds since 1970, *steps* are the names of all of them."""

    scenario: str
    path: str
    lab: str
    started: float
    seconds: float
    steps: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    def count(self, verdict: str) -> int:
        return sum(each.verdict == verdict for each in self.outcomes)

    @property
    def passed(self) -> bool:
        return bool(self.outcomes) and not self.count(FAILED) and not self.count(ERROR)

    @property
    def summary(self) -> str:
        """ "12 passed, 1 failed, 3 skipped in 4.2 s"."""
        counts = [f"{self.count(verdict)} {verdict}" for verdict in (PASSED, FAILED, ERROR, SKIPPED)]
        told = [text for text in counts if not text.startswith("0 ")]
        return f"{', '.join(told) or 'nothing done'} in {self.seconds:.1f} s"

    def as_json(self) -> dict[str, Any]:
        steps = [
            {
                "name": name,
                "outcomes": [
                    {key: value for key, value in each.as_dict().items() if key != "step"}
                    for each in self.outcomes
                    if each.step == number
                ],
            }
            for number, name in enumerate(self.steps, start=1)
        ]
        told = {"scenario": self.scenario, "file": self.path, "lab": self.lab, "passed": self.passed}
        counts = {verdict: self.count(verdict) for verdict in (PASSED, FAILED, ERROR, SKIPPED)}
        return {**told, "started": self.started, "seconds": round(self.seconds, 3), "counts": counts, "steps": steps}


def junit_xml(reports: Sequence[Report]) -> str:
    """One `testsuite` for each report; a `testcase` for each action and claim, in a class for each step."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites{_totals(reports)}>"]
    for report in reports:
        stamp = quoteattr(_timestamp(report.started))
        lines.append(f"  <testsuite name={quoteattr(_clean(report.scenario))} timestamp={stamp}{_totals([report])}>")
        lines += [_case(report, each) for each in report.outcomes]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _totals(reports: Sequence[Report]) -> str:
    counts = {
        "tests": sum(len(report.outcomes) for report in reports),
        "failures": sum(report.count(FAILED) for report in reports),
        "errors": sum(report.count(ERROR) for report in reports),
        "skipped": sum(report.count(SKIPPED) for report in reports),
        "time": f"{sum(report.seconds for report in reports):.3f}",
    }
    return "".join(f' {name}="{value}"' for name, value in counts.items())


def _case(report: Report, outcome: Outcome) -> str:
    step = report.steps[outcome.step - 1]
    place = f"{report.scenario}.{outcome.step:02} {step}"
    words = outcome.words if outcome.kind != "meanwhile" else f"meanwhile: {outcome.words}"
    head = f"    <testcase classname={quoteattr(_clean(place))} name={quoteattr(_clean(words))}"
    head += f' file={quoteattr(_clean(report.path))} line="{outcome.line}" time="{outcome.seconds:.3f}"'
    if outcome.verdict == PASSED:
        return f"{head}/>"
    if outcome.verdict == SKIPPED:
        return f"{head}><skipped/></testcase>"
    tag = "failure" if outcome.verdict == FAILED else "error"
    seen = _clean(outcome.seen)
    return f"{head}><{tag} message={quoteattr(seen.splitlines()[0] if seen else '')}>{escape(seen)}</{tag}></testcase>"


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 has no way to write ("Characters", section 2.2), and surrogates."""
    kept = (char if char in "\t\n" or " " <= char < "\ud800" or "\ue000" <= char < "\ufffe" else "?" for char in text)
    return "".join(kept)


def _timestamp(seconds: float) -> str:
    """ISO 8601, as `datetime` writes it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
