"""`pycni lab`: the verbs over labs, each a few lines over `pycni.lab`."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module, resources
from typing import Any

from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.tables import age, counted, paint, print_table
from pycni.lab import foreground
from pycni.lab.bringing_up import bring_up, take_down
from pycni.lab.errors import LabError
from pycni.lab.faults import faults_in, told
from pycni.lab.looking import as_json, rows
from pycni.lab.parsing import STDIN, read_lab
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab, all_labs
from pycni.lab.state import NAME, directory_of, names, traces

Handler = Callable[[Namespace], int]


def lab(given: Namespace) -> int:
    """Dispatch to the second word."""
    if given.lab_command is None:
        raise Failure("pycni lab: say what: up, ps, exec, down, … (`pycni lab --help`)", exit_code=USAGE)
    try:
        return _handler(given.lab_command)(given)
    except LabError as failure:
        raise Failure(
            failure.message,
            exit_code=failure.exit_code,
            code=failure.code,
            details="\n".join(failure.details),
            next_step=failure.next_step,
        ) from None


def _handler(verb: str) -> Handler:
    if verb in _VERBS:
        return _VERBS[verb]
    module = f"pycni.cli.lab_{verb if verb in ('attach', 'trace') else 'faults'}"
    others: dict[str, Handler] = import_module(module).HANDLERS
    return others[verb]


def find_lab(given: str | None) -> RunningLab:
    """The lab that the words mean: a name, a file, or the only one that is up."""
    if given is None:
        there = names()
        if len(there) == 1:
            return RunningLab.load(there[0])
        if not there:
            raise LabError("no lab is up", next_step="`pycni lab up FILE`", exit_code=NOT_FOUND)
        hint = "say its name; beside HOST or a fault by `--lab NAME`"
        raise LabError(f"which of the labs: {', '.join(there)}?", next_step=hint, exit_code=USAGE)
    return RunningLab.load(_name_of(given))


def _name_of(given: str) -> str:
    """The lab that was brought up from a file, which may be gone, or that the file describes; else the words
    themselves."""
    if NAME.match(given) and not os.path.isfile(given):
        return given
    path = os.path.abspath(given)
    from_it = [each.name for each in all_labs()[0] if os.path.abspath(str(each.state["file"])) == path]
    if len(from_it) == 1:
        return from_it[0]
    if from_it and not os.path.isfile(given):
        raise LabError(f"which of the labs: {', '.join(from_it)}?", next_step="say its name", exit_code=USAGE)
    return read_lab(given).name


# -- up and down -------------------------------------------------------------------------------------------------------


def _up(given: Namespace) -> int:
    file = STDIN if given.file == "-" else given.file
    want = read_lab(file)
    if given.name:
        want = want.replace(name=given.name, document={**want.document, "name": given.name})
    progress = Progress(quiet=given.quiet or given.json)
    difference = bring_up(want, file=file, progress=progress, dry_run=given.dry_run)
    if given.json:
        steps = [step.as_dict() for step in difference.steps]
        told = {"lab": want.name, "fresh": difference.fresh, "anew": difference.reason, "steps": steps}
        print(json.dumps({**told, "dryRun": given.dry_run, "seconds": round(progress.elapsed_s, 3)}, indent=4))
    elif given.dry_run:
        for step in difference.steps:
            print(step)
        print(f"{counted(len(difference.steps), 'step')}; nothing was changed")
    elif difference.steps:
        means = f"{_mean(progress, 'host')}{_mean(progress, 'container')}"
        print(f"lab {want.name} is up after {progress.elapsed_s:.1f} s{means}")
    else:
        print(f"lab {want.name} is up; nothing was to be done")
    return OK


def _mean(progress: Progress, kind: str) -> str:
    """The share of one thing in the time that all of its kind took together."""
    number, seconds = progress.spent.get(kind, (0, 0.0))
    return f", {1000 * seconds / number:.0f} ms for each of {counted(number, kind)}" if number else ""


def _down(given: Namespace) -> int:
    if given.all and given.lab:
        raise Failure("say a lab or --all, not both", exit_code=USAGE)
    gone = [_name_of(given.lab)] if given.lab else traces()
    if len(gone) > 1 and not given.all:
        hint = "say its name, or --all"
        raise Failure(f"which of the labs: {', '.join(gone)}?", next_step=hint, exit_code=USAGE)
    told = []
    for name in gone:
        began = time.monotonic()
        there = os.path.isdir(directory_of(name))
        ended = take_down(name)
        took = time.monotonic() - began
        told.append({"lab": name, "wasThere": there, "processes": ended, "seconds": round(took, 3)})
        if not given.json:
            text = f"is down after {took:.1f} s; ended: {ended} process{'' if ended == 1 else 'es'}"
            print(f"lab {name} {text}" if there else f"lab {name} is not up")
    if given.json:
        print(json.dumps(told, indent=4))
    elif not gone:
        print("no lab is up")
    return OK


# -- looking -----------------------------------------------------------------------------------------------------------


def _ps(given: Namespace) -> int:
    labs, broken = ([find_lab(given.lab)], {}) if given.lab else all_labs()
    answer = FAILED if broken else OK
    if given.json:
        unknown = [{"name": name, "error": failure.message} for name, failure in broken.items()]
        print(json.dumps([*(as_json(each) for each in labs), *unknown], indent=4))
        return answer
    if not labs and not broken:
        print("no lab is up")
    for number, each in enumerate(labs):
        if number:
            print()
        print(
            paint(
                f"{each.name}: {each.phase} for {age(time.time() - each.state['created'])}, {each.state['file']}",
                "bold",
                sys.stdout,
            )
        )
        print_table(("HOST", "CONTAINER", "NETWORK", "ADDRESSES", "STATE"), rows(each))
        for fault in faults_in(each.state):
            print(f"fault: {told(fault)}")
    for name, failure in broken.items():
        print(f"{name}: {failure.message}; {failure.next_step}")
    return answer


def _inspect(given: Namespace) -> int:
    print(json.dumps({**as_json(find_lab(given.lab)), "faults": find_lab(given.lab).state.get("faults", [])}, indent=4))
    return OK


def _logs(given: Namespace) -> int:
    found = find_lab(given.lab)
    path = found.log(given.of)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
            if given.lines is not None:
                text = _last_lines(text, given.lines)
            while True:
                sys.stdout.write(json.dumps({"of": given.of, "text": text}) + "\n" if given.json and text else text)
                sys.stdout.flush()
                if not given.follow or not os.path.exists(path):
                    return OK
                time.sleep(0.1)
                text = file.read()
    except FileNotFoundError:
        host, _, container = given.of.partition("/")
        no_command = container and found.container(host, container).process is None
        silent = "has no command that could write" if no_command else "has written nothing"
        raise Failure(f"{given.of} {silent}", exit_code=NOT_FOUND) from None


def _last_lines(text: str, count: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[max(len(lines) - count, 0) :])


def _save(given: Namespace) -> int:
    from pycni.lab.saving import save

    found = find_lab(given.lab)
    path = given.output or f"{found.name}.tar.gz"
    if path == "-":
        if given.json or sys.stdout.isatty():
            hint = "-o FILE, or without --json into a pipe"
            raise Failure("an archive is nothing for a terminal or for JSON", exit_code=USAGE, next_step=hint)
        save(found, f"{found.name}.tar.gz", sys.stdout.buffer)
        return OK
    entries = save(found, path)
    print(
        json.dumps({"file": os.path.abspath(path), "entries": entries}, indent=4)
        if given.json
        else f"{path}: {counted(len(entries), 'file')}"
    )
    return OK


def _schema(given: Namespace) -> int:
    print(resources.files("pycni.lab").joinpath("schema.json").read_text(encoding="utf-8"), end="")
    return OK


# -- programs ----------------------------------------------------------------------------------------------------------


def _exec(given: Namespace) -> int:
    argv = list(given.argv)  # argparse leaves everything behind the first word as it is
    if argv[:1] == ["--lab"] and len(argv) > 1:
        given.lab, argv = argv[1], argv[2:]
    if argv[:1] == ["--"]:
        del argv[0]
    if not argv or argv[0].startswith("-"):
        raise Failure("pycni lab exec: say what to run: exec HOST[/CONTAINER] -- COMMAND", exit_code=USAGE)
    return _stand_for(given, argv, {})


def _shell(given: Namespace) -> int:
    return _stand_for(given, ["/bin/sh", "-i"], {"PS1": f"{given.where}# ", "HISTFILE": ""}, shell=True)


def _stand_for(given: Namespace, argv: list[str], more: dict[str, str], *, shell: bool = False) -> int:
    """Run the program; its exit code, signals and terminal are this process's."""
    found = find_lab(given.lab)
    host, _, container = given.where.partition("/")
    command = found.argv(host, container or None, argv)
    sys.stdout.flush()
    with found.pid_namespace(host) as fd:
        code = foreground.run(fd, command, found.environment(more), shell=shell)
    return foreground.end_as(code)


_VERBS: dict[str, Handler] = {
    "up": _up,
    "down": _down,
    "ps": _ps,
    "inspect": _inspect,
    "logs": _logs,
    "save": _save,
    "schema": _schema,
    "exec": _exec,
    "shell": _shell,
}
HANDLERS: dict[str, Any] = {"lab": lab}
