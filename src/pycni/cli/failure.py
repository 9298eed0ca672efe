"""What the command line says when it could not do what was asked, and the exit code that goes with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pycni.cli.tables import paint, printable, render_facts, width_of

OK = 0
FAILED = 1  # a plugin, the kernel or the disk refused
USAGE = 2  # the command line itself is wrong; argparse exits with the same number
NOT_FOUND = 3  # no such network, container, namespace or lease

# The specification's codes in words ("Error", well-known codes) and pycni's own from 100.
CODE_NAMES = {
    1: "incompatible CNI version",
    2: "unsupported field",
    3: "unknown container",
    4: "invalid environment",
    5: "I/O failure",
    6: "undecodable content",
    7: "invalid network config",
    8: "unusable network namespace",
    11: "try again later",
    50: "plugin not available",
    51: "plugin not available, containers affected",
    100: "host port taken",
    101: "addresses exhausted",
    102: "address taken",
    103: "firewall refused",
    104: "kernel lacks a feature",
    105: "already attached",
    106: "attachment broken",
    999: "internal error of the plugin",
}


# What JSON has where nobody gave a code: the specification's for what the caller said, and for what is not there.
_CODES = {USAGE: 4, NOT_FOUND: 3}


class Failure(Exception):
    """An operation that did not happen.

    *message* is one sentence; *facts* are label/value pairs shown below it (what was tried, where); *next_step* says
    what to do. *code* and *details* are those of the CNI error, as `--json` prints them.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = FAILED,
        code: int = 999,
        details: str = "",
        facts: Sequence[tuple[str, str]] = (),
        next_step: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
        self.details = details
        self.facts = tuple(facts)
        self.next_step = next_step

    def as_json(self) -> dict[str, Any]:
        """The CNI error object: code, msg and, if any, details; and, if any, facts (text by label) and nextStep."""
        code = _CODES.get(self.exit_code, self.code) if self.code == 999 else self.code
        facts: dict[str, str] = {}
        for label, text in self.facts:
            facts[label] = f"{facts[label]}\n{text}" if label in facts else text
        more = {"details": self.details, "facts": facts, "nextStep": self.next_step}
        return {"code": code, "msg": self.message, **{key: value for key, value in more.items() if value}}


def unwritable(path: str, error: OSError) -> Failure:
    """The failure for a file or directory that could not be read or written."""
    step = "run the command as root" if isinstance(error, PermissionError) and os.geteuid() else ""
    return Failure(f"{path}: {error.strerror or error}", code=5, next_step=step)


def write_text(path: str, text: str) -> None:
    """Put *text* in place of whatever the file at *path* has; Failure where it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as failure:
        raise unwritable(path, failure) from failure


def check_writable(path: str) -> None:
    """Failure where no file can be written at *path*, before long work is done for it; nothing is changed."""
    there = os.path.lexists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
        if not there:
            os.unlink(path)
    except OSError as failure:
        raise unwritable(path, failure) from failure


def warn(text: str) -> None:
    """A warning on stderr."""
    print(f"{paint('warning:', 'yellow', sys.stderr)} {printable(text)}", file=sys.stderr)


def report(failure: Failure, *, as_json: bool) -> int:
    """Show a failure: as the CNI error object on stdout, or as text on stderr; returns its exit code."""
    if as_json:
        print(json.dumps(failure.as_json(), indent=4, ensure_ascii=False))
        return failure.exit_code
    print(f"{paint('error:', 'red', sys.stderr)} {printable(failure.message)}", file=sys.stderr)
    facts = list(failure.facts)
    if failure.details:
        facts.insert(0, ("details", failure.details))
    if failure.code != 999:  # says nothing
        facts.insert(0, ("code", f"{failure.code} ({CODE_NAMES.get(failure.code, 'of the plugin')})"))
    if failure.next_step:
        facts.append(("next", failure.next_step))
    for line in render_facts(facts, width=width_of(sys.stderr)):
        print(line, file=sys.stderr)
    return failure.exit_code
