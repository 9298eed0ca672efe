"""A scenario's file: what it can say, and that every error in it is found, with line and key."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pycni.lab.errors import LabError
from pycni.lab.naming import matching, parse_span
from pycni.lab.scenario import Scenario
from pycni.lab.scenario_file import parse_scenario, read_scenario

LAB = """
lab:
  name: drill
  networks: {blue: {ipv4: 10.1.0.0/16}, red: {ipv4: 10.2.0.0/16}}
  hosts:
    h[1-3]: {containers: {web: {networks: [blue]}, db: {networks: [blue, red]}}}
"""


def parse(steps: str, *, lab: str = LAB) -> Scenario:
    return parse_scenario(f"name: x{lab}steps:\n{textwrap.indent(textwrap.dedent(steps), '  ')}", "x.yaml")


def errors(steps: str, *, lab: str = LAB) -> list[str]:
    with pytest.raises(LabError) as caught:
        parse(steps, lab=lab)
    assert caught.value.exit_code == 2
    assert "lab-scenarios.md" in caught.value.next_step
    return [line.removeprefix("x.yaml:") for line in caught.value.details]


def test_every_verb_and_claim() -> None:
    """All that a file can say, in its order, with the words of the report."""
    scenario = parse("""
        - name: all
          heal: all
          cut: [h1, h2:eth0]
          unplug: h3:lan
          loss: {h1: 20%, h2: 5%}
          rate: {h1: 10mbit}
          mtu: {h1: 1400}
          delay: {h1: 20ms}
          split: [[h1, h2], h3]
          kill: [agent h1, host h2]
          start: agent h1
          reboot: h3
          run: {on: h1/web, command: "true"}
          expect:
            - reach: all
            - reach: blue
            - reach: {from: h1/*, to: h2/db, network: red, family: 6}
            - unreachable: {from: h1, to: h2}
            - address: {of: h1/db, network: red, is: [10.2.0.0/16]}
            - port: {from: h1, to: h2, port: 80, answer: hello}
            - port: {from: h1/web, to: "2001:db8::1", port: 53, protocol: udp, send: x, open: false}
            - throughput: {from: h1/web, to: h2/db, share: 50%}
            - run: {on: h1, command: [uname, -n], output: h1, exit: 0}
    """)
    (step,) = scenario.steps
    assert scenario.lab is not None and scenario.lab.name == "drill"
    assert [action.words for action in step.actions] == [
        "heal all",
        "cut h1 h2:eth0",
        "unplug h3:lan",
        "loss h1 20%",
        "loss h2 5%",
        "rate h1 10mbit",
        "mtu h1 1400",
        "delay h1 20ms",
        "split h1 h2 | h3",
        "kill agent h1 host h2",
        "start agent h1",
        "reboot h3",
        "run on h1/web: /bin/sh -c true",
    ]
    assert [claim.words for claim in step.expectations] == [
        "reach all",
        "reach blue",
        "reach h1/* → h2/db on red over IPv6",
        "unreachable h1 → h2",
        "address of h1/db on red: 10.2.0.0/16",
        "port 80/tcp of h2 answers 'hello' for h1",
        "port 53/udp of 2001:db8::1 is refused to h1/web",
        "throughput h1/web → h2/db at least 50 % of the underlay's",
        "on h1: `uname -n` says 'h1'",
    ]


def test_deadlines_are_of_the_claim_else_of_the_file() -> None:
    """`within` and `for` in ms, s or m; ten seconds where nobody says."""
    text = "within: 3s\nsteps:\n- expect: [{reach: all}, {reach: all, within: 500ms, for: 1m}]\n"
    first, second = parse_scenario(text, "x").steps[0].expectations
    assert (first.within_s, first.hold_s) == (3.0, 0.0)
    assert (second.within_s, second.hold_s) == (0.5, 60.0)
    assert parse_scenario("steps: [{expect: [{reach: all}]}]", "x").steps[0].expectations[0].within_s == 10.0


def test_names_of_steps() -> None:
    """Their own, else what is done, else their number."""
    steps = parse("- {name: one, cut: h1}\n- cut: h1\n- expect: [{reach: all}]\n").steps
    assert [step.name for step in steps] == ["one", "cut h1", "step 3"]


def test_without_a_lab_names_are_not_doubted() -> None:
    """Which lab it will be is not known before `--lab`."""
    scenario = parse("- {cut: h7, expect: [{reach: green}, {reach: {from: h9/*}}]}", lab="\n")
    assert scenario.lab is None


def test_errors_have_line_and_key() -> None:
    """All in one go, each where it stands, with what there is instead."""
    assert errors("""
        - cut: h9
        - cut: h1:eth7
        - expect: [{reach: green}]
        - expect: [{reach: {from: h1/*, to: h9}}]
        - expect: [{address: {of: h1/none, is: 10.1.0.1}}]
        - loss: {h1: 120%}
        - reboot: etcd1
        - cot: h1
    """) == [
        "9: steps[0].cut: lab drill has no host 'h9'; there are h1, h2, h3",
        "10: steps[1].cut: h1 has no link 'eth7'; there are eth0 (lan)",
        "11: steps[2].expect[0].reach: lab drill has no network 'green'; there are blue, red",
        "12: steps[3].expect[0].reach.to: 'h9' matches no host or container of lab drill",
        "13: steps[4].expect[0].address.of: h1 has no container 'none'; there are web, db",
        "14: steps[5].loss.h1: '120%' is no share such as 20% (more than 0, at most 100)",
        "15: steps[6].reboot: lab drill has no host 'etcd1'; there are h1, h2, h3",
        "16: steps[7]: does nothing: it needs `expect` or one of cut, unplug, heal, kill, start, reboot, loss, delay, "
        "rate, mtu, split, run",
        "16: steps[7].cot: unknown key: did you mean 'cut'?",
    ]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("cut: 5", "must be a text or a list of texts"),
        ("cut:", "needs something to do it to"),
        ("loss: 20%", "is a mapping of links, such as {h1: 20%}"),
        ("delay: {h1: 50}", "'50' is no delay such as 50ms"),
        ("mtu: {h1: small}", "'small' is no MTU"),
        ("split: [h1]", "at least two parties"),
        ("split: [[h1, h2], [h2]]", "h2 is named twice"),
        ("kill: etcd h1", "h1 is no member of etcd"),
        ("start: agent h4", "has no host 'h4'"),
        ("heal: lost", "has no host 'lost'"),
        ("heal: h1:eth4", "h1 has no link 'eth4'"),
        ("kill: h1", "'h1' is not `agent HOST`, `etcd MEMBER` or `host HOST`"),
        ("run: {on: h1}", "needs `command`"),
        ("expect: [{reach: all, unreachable: all}]", "must have exactly one of"),
        ("expect: [{reech: all}]", "did you mean 'reach'?"),
        ("expect: [{reach: }]", "needs to be said of what"),
        ("expect: [{reach: {family: 5}}]", "is 4 or 6"),
        ("expect: [{reach: all, within: 1h}]", "'1h' is no time"),
        ("expect: [{address: {of: h1, is: 10.1.0.1}}]", "'h1' is not HOST/CONTAINER"),
        ("expect: [{address: {of: h1/web}}]", "needs `is`"),
        ("expect: [{address: {of: h1/web, is: here}}]", "'here' is neither an address nor a prefix"),
        ("expect: [{port: {from: h1, to: h2}}]", "needs `port`"),
        ("expect: [{port: {from: h1, to: h2, port: 53, protocol: udp}}]", "say `send`"),
        ("expect: [{port: {to: h2, port: 80}}]", "needs `from`"),
        ("expect: [{throughput: {from: h1/web, to: h1/db, share: 50%}}]", "both ends are on one host"),
        ("expect: [{throughput: {from: h1/web, to: h2/db}}]", "needs `share`"),
        ("{expect: [{reach: all}], meanwhile: [{unreachable: all}]}", "only `reach` can be watched"),
        ("[]", "must be a mapping"),
    ],
)
def test_what_a_step_cannot_say(step: str, said: str) -> None:
    """In words that say what it can."""
    assert any(said in line for line in errors(f"- {step}")), errors(f"- {step}")


def test_a_scenario_without_steps_is_none() -> None:
    """It would pass."""
    with pytest.raises(LabError, match="needs steps"):
        parse_scenario("name: x\n", "x.yaml")


def test_errors_of_the_lab_are_those_of_its_file(tmp_path: Path) -> None:
    """A lab in a file of its own is found from the scenario's directory, and its errors name it."""
    (tmp_path / "lab.yaml").write_text("hosts: {h1: {containers: {a: {networks: [nope]}}}}\n")
    (tmp_path / "s.yaml").write_text("lab: lab.yaml\nsteps: [{expect: [{reach: all}]}]\n")
    with pytest.raises(LabError, match=r"lab\.yaml:1: .*nope"):
        read_scenario(str(tmp_path / "s.yaml"))
    (tmp_path / "s.yaml").write_text("lab: none.yaml\nsteps: [{expect: [{reach: all}]}]\n")
    with pytest.raises(LabError, match=r"s\.yaml:1: lab: there is no file .*none\.yaml"):
        read_scenario(str(tmp_path / "s.yaml"))


def test_patterns() -> None:
    """A star does not pass a slash: hosts and containers are told apart."""
    names = ["h1", "h2", "h1/web", "h2/web", "h2/db"]
    assert matching(names, "*") == ["h1", "h2"]
    assert matching(names, "*/web") == ["h1/web", "h2/web"]
    assert matching(names, "h[12]") == ["h1", "h2"]
    assert matching(names, "h2/*") == ["h2/web", "h2/db"]


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("3", 3), ("1.5s", 1.5), ("200ms", 0.2), ("2m", 120)])
def test_spans(text: str, seconds: float) -> None:
    """Seconds where no unit is said."""
    assert parse_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1s", "11m", "1 h", "soon"])
def test_spans_that_are_none(text: str) -> None:
    """None of them is zero by accident."""
    with pytest.raises(ValueError, match="is no time"):
        parse_span(text)
