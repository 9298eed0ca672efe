"""A scenario carried out on a lab that is up: step by step, each claim asked again until it holds or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from pycni.lab import breaking
from pycni.lab.checks import check
from pycni.lab.errors import LabError
from pycni.lab.report import ERROR, FAILED, PASSED, SKIPPED, Outcome, Report
from pycni.lab.running import RunningLab
from pycni.lab.scenario import VALUE_VERBS, Action, Expectation, Scenario, Step
from pycni.lab.watching import Watch

PAUSE_S = 0.02  # between two looks


def run_scenario(
    lab: RunningLab,
    scenario: Scenario,
    *,
    path: str = "",
    keep_going: bool = False,
    say: Callable[[str], None] = lambda line: None,
    waiting: Callable[[str], None] = lambda line: None,
) -> Report:
    """Every step; after one that failed the others are skipped, unless *keep_going*.

    *say* hears each line of what is done, *waiting* again and again what is waited for.
    """
    began, started = time.monotonic(), time.time()
    outcomes: list[Outcome] = []
    for number, step in enumerate(scenario.steps, start=1):
        if not keep_going and any(each.verdict in (FAILED, ERROR) for each in outcomes):
            outcomes += _skipped(step, number)
            continue
        say(f"{number}. {step.name}")
        outcomes += _StepRun(lab, number, say, waiting).run(step)
    names = tuple(step.name for step in scenario.steps)
    return Report(scenario.name, path, lab.name, started, time.monotonic() - began, names, tuple(outcomes))


def _skipped(step: Step, number: int) -> list[Outcome]:
    actions = [Outcome(number, "action", each.words, each.line, SKIPPED) for each in step.actions]
    claims = [Outcome(number, "claim", each.words, each.line, SKIPPED) for each in step.expectations]
    return [*actions, *claims]


class _StepRun:
    def __init__(
        self, lab: RunningLab, number: int, say: Callable[[str], None], waiting: Callable[[str], None]
    ) -> None:
        self.lab = lab
        self.number = number
        self.say = say
        self.waiting = waiting

    def run(self, step: Step) -> list[Outcome]:
        """The watches around the actions around the claims. After an action that failed no claim is asked."""
        outcomes: list[Outcome] = []
        watches: list[Watch] = []
        try:
            for claim in step.meanwhile:
                watches.append(Watch(self.lab, claim))
                watches[-1].start()
            for action in step.actions:
                outcomes.append(self._done("action", action, partial(_acted, self.lab, action)))
                if outcomes[-1].verdict != PASSED:
                    outcomes += _skipped(step, self.number)[len(outcomes) :]
                    return outcomes
            for claim in step.expectations:
                outcomes.append(self._done("claim", claim, partial(wait_for, self.lab, claim, self.waiting)))
        finally:
            outcomes += [self._done("meanwhile", each.claim, partial(_ended, each)) for each in watches]
        return outcomes

    def _done(self, kind: str, what: Action | Expectation, work: Callable[[], tuple[bool, str]]) -> Outcome:
        began = time.monotonic()
        try:
            good, seen = work()
            verdict = PASSED if good else FAILED
        except (LabError, OSError) as failure:
            verdict, seen = ERROR, str(failure)
        seconds = time.monotonic() - began
        mark = {PASSED: "ok  ", FAILED: "FAIL", ERROR: "ERR "}[verdict]
        line = f"   {mark} {seconds:6.2f} s  {'meanwhile ' if kind == 'meanwhile' else ''}{what.words}"
        self.say(f"{line}: {seen}" if seen and verdict != PASSED else line)
        return Outcome(self.number, kind, what.words, what.line, verdict, seen, seconds)


def _acted(lab: RunningLab, action: Action) -> tuple[bool, str]:
    return True, act(lab, action)


def _ended(watch: Watch) -> tuple[bool, str]:
    verdict = watch.stop()
    return verdict.good, verdict.seen


def act(lab: RunningLab, action: Action) -> str:
    """Carry one action out; what was done, in words."""
    lab.reload()
    if action.verb in ("cut", "unplug", *VALUE_VERBS):
        return "; ".join(breaking.break_links(lab, action.verb, action.targets, action.value))
    if action.verb == "split":
        return "; ".join(breaking.split(lab, action.parties))
    if action.verb == "heal":
        return "; ".join(breaking.heal(lab, action.targets)) or "nothing was broken"
    if action.verb == "run":
        host, _, container = action.targets[0].partition("/")
        return lab.run(host, container or None, action.command).stdout.strip()
    if action.verb == "kill":
        return "; ".join(breaking.kill(lab, target) for target in action.targets)
    verb = breaking.start if action.verb == "start" else breaking.reboot
    return "; ".join(verb(lab, target) for target in action.targets)


def wait_for(
    lab: RunningLab, claim: Expectation, waiting: Callable[[str], None] = lambda line: None
) -> tuple[bool, str]:
    """Look until the claim holds, and has held for as long as it must; else what was seen last."""
    began = time.monotonic()
    end = began + claim.within_s
    since: float | None = None
    while True:
        verdict = check(lab, claim)
        now = time.monotonic()
        if not verdict.good:
            since = None
            if now >= end:
                return False, f"{verdict.seen} (after {claim.within_s:g} s)"
        else:
            since = now if since is None else since
            if now - since >= claim.hold_s:
                return True, verdict.seen
        waiting(f"   …    {now - began:6.2f} s  {claim.words}: {verdict.seen}")
        time.sleep(PAUSE_S)
