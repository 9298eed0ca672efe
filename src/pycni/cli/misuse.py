"""What a wrong command line is answered: the usage of the command that was meant, and the nearest word there is."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any, NoReturn

from pycni.cli.failure import USAGE, Failure, report


class Misuse(SystemExit):
    """The command line is wrong; who catches it has it shown."""

    def __init__(self, prog: str, usage: str, message: str) -> None:
        super().__init__(USAGE)
        self.prog = prog
        self.usage = usage
        self.message = message

    def show(self, *, as_json: bool) -> int:
        """The usage and what is wrong on stderr, or an error object on stdout; the exit code."""
        if as_json:
            usage = " ".join(self.usage.removeprefix("usage: ").split())
            failure = Failure(f"{self.prog}: {self.message}", exit_code=USAGE, facts=[("usage", usage)])
            return report(failure, as_json=True)
        print(f"{self.usage}{self.prog}: error: {self.message}", file=sys.stderr)
        return USAGE


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest command for one that does not exist."""

    def error(self, message: str) -> NoReturn:
        raise Misuse(self.prog, self.format_usage(), message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Of a word too many the command's own parser complains, with its usage, not the one of all commands."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return given, unknown

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            if isinstance(action, argparse._SubParsersAction):
                choices = [choice.dest for choice in action._choices_actions]  # those that have a help, by one name
            near = difflib.get_close_matches(str(value), choices, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"{value!r} is unknown: {hint}")
