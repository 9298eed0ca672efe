"""`pycni lab cut|loss|…|heal|graph|ping-matrix|capture|test`: a lab looked at, broken, mended and tested."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable

from pycni.cli.failure import FAILED, OK, USAGE, Failure, check_writable, write_text
from pycni.cli.lab import find_lab
from pycni.cli.tables import counted, print_table, width_of
from pycni.lab import breaking, capture
from pycni.lab.checks import namespaces_of
from pycni.lab.drawing import render_svg
from pycni.lab.graph import draw
from pycni.lab.looking import missing
from pycni.lab.matrix import Matrix, measure
from pycni.lab.matrix_view import compact, draw_matrix, legend, rows
from pycni.lab.mermaid import render_mermaid
from pycni.lab.picture_of import picture_of
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab


def _say(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return OK


# -- faults ------------------------------------------------------------------------------------------------------------


Verb = Callable[[Namespace, RunningLab, Progress], Iterable[str]]


def _change(verb: Verb) -> Callable[[Namespace], int]:
    """A command that breaks or mends: what was done, a line each, or as an object with the faults there are now."""

    def command(given: Namespace) -> int:
        lab = find_lab(given.lab)
        did = verb(given, lab, Progress(quiet=given.json))
        if not given.json:
            return _say(did)
        answer = {"lab": lab.name, "did": list(did)}
        lab.reload()
        print(json.dumps({**answer, "faults": lab.state.get("faults", [])}, indent=4))
        return OK

    return command


def _cut(given: Namespace, lab: RunningLab, _: Progress) -> Iterable[str]:
    return breaking.break_links(lab, "unplug" if given.no_carrier else "cut", given.links)


def _valued(kind: str) -> Verb:
    return lambda given, lab, _: breaking.break_links(lab, kind, given.links, given.value)


def _split(given: Namespace, lab: RunningLab, _: Progress) -> Iterable[str]:
    return breaking.split(lab, [party.split(",") for party in given.parties])


def _kill(given: Namespace, lab: RunningLab, _: Progress) -> Iterable[str]:
    return (breaking.kill(lab, f"{given.kind} {name}") for name in given.names)


def _start(given: Namespace, lab: RunningLab, progress: Progress) -> Iterable[str]:
    return (breaking.start(lab, f"{given.kind} {name}", progress) for name in given.names)


def _reboot(given: Namespace, lab: RunningLab, progress: Progress) -> Iterable[str]:
    return (breaking.reboot(lab, host, progress) for host in given.hosts)


def _heal(given: Namespace, lab: RunningLab, progress: Progress) -> Iterable[str]:
    healed = breaking.heal(lab, given.what, progress)
    return [*([f"no more: {text}" for text in healed] or ["nothing was broken"]), *_not_attached(lab)]


def _not_attached(lab: RunningLab) -> list[str]:
    """A line about containers of the file that are not there; [] where all are."""
    names = ", ".join(f"{host}/{name}" for host, name in missing(lab))
    return [f"not attached: {names}; `pycni lab up {lab.state['file']}` attaches them"] if names else []


# -- looks -------------------------------------------------------------------------------------------------------------


def _graph(given: Namespace) -> int:
    lab = find_lab(given.lab or given.named_lab)
    picture = picture_of(lab)
    named = os.path.splitext(given.output or "")[1]
    if given.format is None and named not in ("", ".svg", ".mmd", ".md"):
        raise _no_picture(given.output, "a picture is .svg, or .mmd or .md for Mermaid", "or say --format")
    kind = given.format or ("mermaid" if named in (".mmd", ".md") else "svg")
    text = render_svg(draw(picture)) if kind == "svg" else render_mermaid(picture)
    if named == ".md":
        text = f"```mermaid\n{text}```\n"
    if given.output in (None, "-"):
        sys.stdout.write(json.dumps({"lab": lab.name, "format": kind, "text": text}) + "\n" if given.json else text)
        return OK
    write_text(given.output, text)
    path = os.path.abspath(given.output)
    print(json.dumps({"lab": lab.name, "format": kind, "file": path}, indent=4) if given.json else path)
    return OK


def _no_picture(path: str, what: str, next_step: str = "") -> Failure:
    return Failure(f"{path}: {what}", exit_code=USAGE, next_step=next_step)


def _ping_matrix(given: Namespace) -> int:
    if given.picture:
        if os.path.splitext(given.picture)[1] != ".svg":
            raise _no_picture(given.picture, "a picture of pings is .svg")
        check_writable(given.picture)
    lab = find_lab(given.lab or given.named_lab)
    families = (given.family,) if given.family else (4, 6)
    matrix = measure(
        picture_of(lab),
        namespaces_of(lab),
        count=given.count,
        timeout_s=max(given.timeout, 0.01),
        families=families,
        progress=_progress,
    )
    if given.picture:
        write_text(given.picture, render_svg(draw_matrix(matrix, lab.name)))
    if given.json:
        print(json.dumps({"lab": lab.name, **matrix.as_json()}, indent=4))
    else:
        _show(matrix, given, lab)
    return FAILED if matrix.wrong else OK


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{'' if done >= of else f'… {done} of {of} pairs'}")
        sys.stderr.flush()


def _show(matrix: Matrix, given: Namespace, lab: RunningLab) -> None:
    head, table = rows(matrix)
    width = width_of(sys.stdout)
    widest = sum(max(map(len, column)) + 2 for column in zip(head, *table, strict=True)) if table else 0
    if given.compact or (width is not None and widest > width):
        _say([*compact(matrix), legend()])
    else:
        print_table(head, table, right=head[1:])
    for each in matrix.wrong[:20]:
        pair = each.pair
        lost = f"{each.lost} of {each.echoes.sent} lost" if each.echoes.sent else "not asked"
        verb = "answers, but must not" if pair.expected == "no" else lost
        print(f"{pair.source} → {pair.target} on {pair.network} ({pair.address or 'no address'}): {verb}")
    wrong = len(matrix.wrong)
    for each in [each for each in matrix.wrong if each.pair.address and not each.reached][:1]:
        print(f"why: pycni lab trace --lab {lab.name} {each.pair.source} {each.pair.address}")
    summary = f"{counted(len(matrix.names), 'container')}, {counted(len(matrix.seen), 'pair')} asked, "
    print(f"{summary}{'all as expected' if not wrong else f'{wrong} not as expected'}")
    _say(_not_attached(lab))
    if given.picture:
        print(os.path.abspath(given.picture))


def _capture(given: Namespace) -> int:
    return capture.capture(
        find_lab(given.lab),
        given.target,
        interface=given.interface,
        file=given.write,
        count=given.count,
        seconds=given.time,
        expression=[given.filter] if given.filter else [],
    )


def _test(given: Namespace) -> int:
    from pycni.cli.lab_test import test

    return test(given)


HANDLERS: dict[str, Callable[[Namespace], int]] = {
    "cut": _change(_cut),
    **{kind: _change(_valued(kind)) for kind in ("loss", "delay", "rate", "mtu")},
    "split": _change(_split),
    "kill": _change(_kill),
    "start": _change(_start),
    "reboot": _change(_reboot),
    "heal": _change(_heal),
    "graph": _graph,
    "ping-matrix": _ping_matrix,
    "capture": _capture,
    "test": _test,
}
