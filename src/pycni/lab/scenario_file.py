"""The scenario's file, read and doubted: everything that is wrong with it in one go, each with line and key."""

from __future__ import annotations

import os
from collections.abc import Callable

from pycni.lab.claims_file import ClaimReader
from pycni.lab.document import Fields, Node, Problems, load
from pycni.lab.faults import KILLED, LINK_KINDS, parse_delay, parse_mtu, parse_percent, parse_rate
from pycni.lab.naming import Known
from pycni.lab.parsing import lab_of, read_lab, read_text
from pycni.lab.scenario import DEFAULT_WITHIN_S, VALUE_VERBS, VERBS, Action, Expectation, Scenario, Step
from pycni.lab.topology import Lab

SCENARIO_FORMAT = "docs/lab-scenarios.md explains the format"

#: How the value of a link's fault is read, and an example of it.
_VALUES: dict[str, tuple[Callable[[str], object], str]] = {
    "loss": (parse_percent, "20%"),
    "delay": (parse_delay, "50ms"),
    "rate": (parse_rate, "10mbit"),
    "mtu": (parse_mtu, "1400"),
}


def read_scenario(path: str) -> Scenario:
    """The scenario in the file *path*. LabError with every error and its line, and where it cannot be read."""
    text = read_text(path)
    stem = os.path.basename(path).split(".")[0]
    return parse_scenario(text, path, default_name=stem, directory=os.path.dirname(os.path.abspath(path)))


def parse_scenario(text: str, path: str, *, default_name: str = "scenario", directory: str = "/") -> Scenario:
    """As `read_scenario`, from the file's text; *path* is what errors call it."""
    problems = Problems(path, SCENARIO_FORMAT)
    scenario = _Parser(Fields(load(text, path), problems), directory).scenario(default_name)
    problems.check()
    return scenario


class _Parser:
    def __init__(self, top: Fields, directory: str) -> None:
        self.top = top
        self.problems = top.problems
        self.directory = directory
        self.known = Known(top.problems, None)
        self.claims = ClaimReader(self.known, DEFAULT_WITHIN_S)

    def scenario(self, default_name: str) -> Scenario:
        name = self.top.text("name", default_name)
        self.known.lab = self._lab()
        self.claims.within_s = self.known.span(self.top, "within", DEFAULT_WITHIN_S)
        nodes = self.top.items("steps")
        if not nodes:
            self.top.wrong("steps", "a scenario needs steps")
        steps = tuple(self._step(node, at) for at, node in enumerate(nodes, start=1))
        self.top.finish()
        return Scenario(name=name, steps=steps, lab=self.known.lab)

    def _lab(self) -> Lab | None:
        """The lab's own file, or the lab in this one."""
        node = self.top.get("lab")
        if node is None:
            return None
        if isinstance(node.value, str):
            path = os.path.join(self.directory, node.value)
            if os.path.exists(path):
                return read_lab(path)
            self.problems.add(node, f"there is no file {path}")
            return None
        return lab_of(node, Problems(self.problems.path), default_name="lab", directory=self.directory)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self, node: Node, number: int) -> Step:
        fields = Fields(node, self.problems)
        said = [verb for verb in VERBS if fields.get(verb) is not None or fields.has(verb)]
        actions = [action for verb in said for action in self._actions(fields, verb)]
        # In the order of the file, not of this module: a link may be healed before another is cut.
        actions.sort(key=lambda action: action.line)
        name = fields.text("name") or "; ".join(action.words for action in actions) or f"step {number}"
        expected = tuple(filter(None, map(self.claims.read, fields.items("expect"))))
        meanwhile = tuple(filter(None, map(self._watched, fields.items("meanwhile"))))
        if not actions and not expected:
            self.problems.add(node, f"does nothing: it needs `expect` or one of {', '.join(VERBS)}")
        fields.finish()
        return Step(name=name, line=node.line, actions=tuple(actions), expectations=expected, meanwhile=meanwhile)

    def _watched(self, node: Node) -> Expectation | None:
        made = self.claims.read(node)
        if made is not None and made.claim != "reach":
            self.problems.add(node, f"only `reach` can be watched all the time, not `{made.claim}`")
        return made

    def _actions(self, fields: Fields, verb: str) -> list[Action]:
        node = fields.get(verb)
        if node is None:
            fields.wrong(verb, "needs something to do it to")
            return []
        if verb == "run":
            run = Fields(node, self.problems)
            made = Action(verb, node.line, (self.known.place(run, "on"),), command=self.known.command(run))
            run.finish()
            return [made]
        if verb == "split":
            return [Action(verb, node.line, parties=self._parties(node))]
        if verb in VALUE_VERBS:
            return self._valued(node, verb)
        nodes = node.value if isinstance(node.value, tuple) else (node,)
        targets = [self._target(each, verb) for each in nodes]
        return [Action(verb, node.line, tuple(filter(None, targets)))]

    def _valued(self, node: Node, verb: str) -> list[Action]:
        """`loss: {h1: 20%, h2:eth1: 5%}`."""
        if not isinstance(node.value, dict) or not node.value:
            self.problems.add(node, f"is a mapping of links, such as {{h1: {_VALUES[verb][1]}}}")
            return []
        actions = []
        for link, value in node.value.items():
            self.known.link(value, link)
            text = str(value.value)
            try:
                _VALUES[verb][0](text)
            except ValueError as failure:
                self.problems.add(value, str(failure))
            actions.append(Action(verb, value.line, (link,), text))
        return actions

    def _parties(self, node: Node) -> tuple[tuple[str, ...], ...]:
        """`split: [[h1, h2], [h3]]`, or `split: [h1, h2]` for parties of one."""
        nodes = node.value if isinstance(node.value, tuple) else ()
        parties = []
        for each in nodes:
            members = each.value if isinstance(each.value, tuple) else (each,)
            parties.append(tuple(self.known.machine(member, str(member.value)) for member in members))
        if len(parties) < 2:
            self.problems.add(node, "is a list of at least two parties, such as [[h1, h2], [h3]]")
        named = [name for party in parties for name in party]
        for name in sorted({name for name in named if named.count(name) > 1}):
            self.problems.add(node, f"{name} is named twice")
        return tuple(parties)

    def _target(self, node: Node, verb: str) -> str:
        if not isinstance(node.value, str):
            self.problems.add(node, "must be a text or a list of texts")
            return ""
        text = node.value
        if verb in ("cut", "unplug"):
            self.known.link(node, text)
        elif verb == "reboot":
            self.known.machine(node, text)
        elif text.partition(" ")[0] in KILLED:
            self.known.process(node, text)
        elif verb in ("kill", "start"):
            self.problems.add(node, f"{text!r} is not `agent HOST`, `etcd MEMBER` or `host HOST`")
        elif text not in ("all", "kill", "split", *LINK_KINDS):
            self.known.link(node, text)
        return text
