"""Reports of a scenario: as CI systems read them."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pycni.lab.report import ERROR, FAILED, PASSED, SKIPPED, Outcome, Report, junit_xml

OUTCOMES = (
    Outcome(1, "action", "cut h1", 4, PASSED, "h1:eth0 is cut", 0.02),
    Outcome(1, "claim", "reach all", 6, FAILED, "no answer: h1/a → h2/a\nsecond line", 3.0),
    Outcome(1, "meanwhile", "reach blue", 5, ERROR, "h2 is off", 3.1),
    Outcome(2, "action", "heal all", 8, SKIPPED),
)


def report(*outcomes: Outcome, name: str = "drill") -> Report:
    return Report(name, "drill.yaml", "x", 1_700_000_000.0, 6.25, ("break", "mend"), outcomes)


def test_junit_has_a_case_for_each_outcome() -> None:
    """Counts of all and of each suite, time, file and line; what was seen in the element of the verdict."""
    root = ElementTree.fromstring(junit_xml([report(*OUTCOMES), report(OUTCOMES[0], name="other")]))
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "12.500",
    }
    suite = root[0]
    assert suite.get("name") == "drill" and suite.get("timestamp") == "2023-11-14T22:13:20+00:00"
    assert [case.get("name") for case in suite] == ["cut h1", "reach all", "meanwhile: reach blue", "heal all"]
    assert [case.get("classname") for case in suite][::3] == ["drill.01 break", "drill.02 mend"]
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"], ["skipped"]]
    failure = suite[1][0]
    assert failure.get("message") == "no answer: h1/a → h2/a" and failure.text == "no answer: h1/a → h2/a\nsecond line"
    assert suite[1].get("file") == "drill.yaml" and suite[1].get("line") == "6"


def test_json_has_steps_with_outcomes() -> None:
    """The same, to be worked with."""
    told = json.loads(json.dumps(report(*OUTCOMES).as_json()))
    assert told["passed"] is False
    assert told["counts"] == {"passed": 1, "failed": 1, "error": 1, "skipped": 1}
    assert [step["name"] for step in told["steps"]] == ["break", "mend"]
    assert told["steps"][0]["outcomes"][1]["verdict"] == "failed"
    assert told["steps"][0]["outcomes"][1]["line"] == 6


def test_passed_is_without_failure_or_error() -> None:
    """A run that did nothing did not pass."""
    assert report(OUTCOMES[0]).passed
    assert not report().passed
    assert not report(OUTCOMES[0], OUTCOMES[1]).passed
    assert not report(OUTCOMES[0], OUTCOMES[2]).passed
    assert report(*OUTCOMES).summary == "1 passed, 1 failed, 1 error, 1 skipped in 6.2 s"


@given(st.text(), st.text(), st.text())
def test_junit_is_xml_whatever_a_program_said(name: str, words: str, seen: str) -> None:
    """Control characters, surrogates, tags."""
    outcome = Outcome(1, "claim", words, 1, FAILED, seen, 0.1)
    root = ElementTree.fromstring(junit_xml([report(outcome, name=name)]).encode())
    assert len(root[0]) == 1
