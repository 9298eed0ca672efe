"""Order of one command: parse, dispatch, and turn whatever happened into text (or JSON) and an exit code."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module

from pycni import __version__
from pycni.cli.failure import OK, Failure, report
from pycni.cli.misuse import Misuse
from pycni.cli.parser import parse
from pycni.cni.errors import CniError

INTERRUPTED = 130
_MODULES = {
    "verbs": ("add", "del", "check"),
    "upkeep": ("gc", "status", "version"),
    "agent": ("agent", "reconcile"),
    "events": ("events",),
    "attachments": ("list", "inspect"),
    "leases": ("ipam",),
    "etcd": ("etcd",),
    "ports": ("ports",),
    "lab": ("lab",),
    "peers": ("peers", "networks"),
    "trace.command": ("trace",),
    "install": ("install",),
    "uninstall": ("uninstall",),
    "doctor": ("doctor",),
    "completion": ("completion",),
    "manual": ("man",),
}


def _handler(command: str) -> Callable[[Namespace], int]:
    """The function of a command; each command loads only its own modules."""
    module = next(module for module, commands in _MODULES.items() if command in commands)
    handler: Callable[[Namespace], int] = import_module(f"pycni.cli.{module}").HANDLERS[command]
    return handler


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and return its exit code."""
    _open_what_is_closed()
    _write_what_is_no_text()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (`head`) has enough
        _give_up_stdout()
        return OK
    except OSError as exc:
        _give_up_stdout()
        return report(Failure(f"standard output: {exc.strerror or exc}", code=5), as_json=False)


def _open_what_is_closed() -> None:
    """/dev/null in place of what the caller has closed (`>&-`): Python has None there, and the next file opened would
    become standard output for the plugins."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # where open() has given that very number
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _write_what_is_no_text() -> None:
    """Characters that stdout's encoding lacks become escapes, as on stderr: bytes of the command line that are no
    UTF-8, or an ellipsis in Latin-1."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """Python flushes stdout once more at exit and would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    """As `run`; OSError where stdout cannot be written."""
    try:
        given = parse(words)
    except Misuse as wrong:
        return wrong.show(as_json="--json" in words)
    except SystemExit as end:  # argparse has printed the help
        return int(end.code or 0)
    try:
        if given.version:
            print(f"pycni {__version__}")
            return OK
        return _handler(given.command)(given)
    except KeyboardInterrupt:
        print("pycni: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except (Failure, CniError, OSError) as exc:
        if isinstance(exc, OSError):
            sys.stdout.flush()  # fails once more where stdout is what failed: that is said once, and by `run`
        return report(_as_failure(exc), as_json=getattr(given, "json", False))


def _as_failure(exc: Failure | CniError | OSError) -> Failure:
    if isinstance(exc, Failure):
        return exc
    if isinstance(exc, CniError):
        return Failure(exc.msg, code=int(exc.code), details=exc.details)
    where = f"{exc.filename}: " if exc.filename else ""
    step = "run the command as root" if isinstance(exc, PermissionError) and os.geteuid() else ""
    return Failure(f"{where}{exc.strerror or exc}", code=5, next_step=step)
