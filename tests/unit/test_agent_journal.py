"""The journal: lines that programs can read, events by number, counters that cannot grow without end."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest

from pycni.agent.journal import BUCKETS_S, COMMANDS, KEPT_EVENTS, Journal, Words

ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
FAILED = '{"code": 101, "msg": "no address is left"}'


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_call_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the attachment, the outcome, the time it took and the caller's trace."""
    journal = Journal()
    journal.call("bridge", {**ADD, "TRACEPARENT": "00-1-2-01"}, 1, FAILED, 0.01234)
    (line,) = lines(capsys)
    del line["time"], line["number"]
    assert line == {
        "level": "warning",
        "event": "call",
        "plugin": "bridge",
        "command": "ADD",
        "container": "c1",
        "ifname": "eth0",
        "ms": 12.34,
        "outcome": "error",
        "code": 101,
        "msg": "no address is left",
        "traceparent": "00-1-2-01",
    }


def test_less_important_events_are_not_written_but_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The level is for the log; who follows events sees all."""
    journal = Journal("error")
    journal.call("bridge", ADD, 0, "{}", 0.001)
    journal.note("error", event="bad")
    assert [line["event"] for line in lines(capsys)] == ["bad"]
    assert [event["event"] for event in journal.events(None)[0]] == ["call", "bad"]


def test_bytes_that_are_no_text_do_not_spoil_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A container id that is no UTF-8, and an answer that is no JSON."""
    Journal().call("bridge", {**ADD, "CNI_CONTAINERID": "\udcff\n"}, 1, "oops", 0.001)
    (line,) = lines(capsys)
    assert (line["container"], line["code"], line["msg"]) == ("\udcff\n", 1, "oops")


class Gone(io.TextIOBase):
    """A standard error whose reader has left."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_log_that_nobody_reads_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was carried out must be answered, whatever happens to its line."""
    journal = Journal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Gone())
        journal.note("info", event="x")
    assert len(journal.events(None)[0]) == 1


def test_events_are_numbered_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Those after a number, in order; none twice and none left out."""
    journal = Journal()
    _, begin, missed = journal.events(None)
    assert (journal.events(begin), missed) == (([], begin, False), False)
    for number in range(3):
        journal.note("info", event=str(number))
    events, last, missed = journal.events(begin)
    assert [event["event"] for event in events] == ["0", "1", "2"]
    assert (events[-1]["number"], missed) == (last, False)
    assert [event["event"] for event in journal.events(last - 1)[0]] == ["2"]


def test_who_is_too_slow_hears_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Only so many are kept; the next agent's numbers are higher, and the gap shows."""
    journal = Journal("error")
    begin = journal.events(None)[1]
    for _ in range(KEPT_EVENTS):
        journal.note("info", event="x")
    assert journal.events(begin)[2] is False
    journal.note("info", event="x")
    events, _, missed = journal.events(begin)
    assert (len(events), missed) == (KEPT_EVENTS, True)
    later = Journal("error")
    later.note("info", event="started")
    assert later.events(begin)[0][0]["event"] == "started"


def test_listeners_are_called_from_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """At each event until they stop listening."""
    journal, heard = Journal(), threading.Semaphore(0)
    journal.listen(heard.release)
    thread = threading.Thread(target=journal.note, args=("info",), kwargs={"event": "x"})
    thread.start()
    assert heard.acquire(timeout=10)
    thread.join()
    journal.unlisten(heard.release)
    journal.note("info", event="y")
    assert not heard.acquire(blocking=False)


def test_calls_are_counted_by_outcome_and_duration(capsys: pytest.CaptureFixture[str]) -> None:
    """Each falls into one bucket; the ends belong to the lower one."""
    journal = Journal("error")
    for seconds in (0.001, 0.0011, 31.0):
        journal.call("bridge", ADD, 0, "{}", seconds)
    journal.call("bridge", ADD, 1, FAILED, 0.5)
    counted = dict(journal.tallies())
    assert set(counted) == {("bridge", "ADD", 0), ("bridge", "ADD", 101)}
    tally = counted["bridge", "ADD", 0]
    assert tally.count == 3
    assert tally.seconds == pytest.approx(31.0021)
    assert [number for number, count in enumerate(tally.buckets) if count] == [0, 1, len(BUCKETS_S)]


def test_invented_commands_do_not_make_counters(capsys: pytest.CaptureFixture[str]) -> None:
    """They count as one."""
    journal = Journal("error")
    for number in range(100):
        journal.call("bridge", {"CNI_COMMAND": f"X{number}"}, 1, FAILED, 0.001)
    ((key, tally),) = journal.tallies()
    assert (key, tally.count) == (("bridge", "other", 101), 100)
    assert "other" not in COMMANDS


def test_words_of_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for people is an event, however it comes in pieces; tracebacks and others' lines pass whole."""
    journal = Journal()
    words = Words(journal, sys.stderr)
    print("pycni: something", "is late", file=words)
    print("Traceback", "(most recent", "call last):", file=words)
    words.write("no end yet")
    said, passed = capsys.readouterr().err.splitlines()
    assert passed == "Traceback (most recent call last):"
    event = json.loads(said)
    assert (event["event"], event["level"], event["msg"]) == ("said", "warning", "something is late")
