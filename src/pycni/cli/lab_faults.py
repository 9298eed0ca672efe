"""`pycni lab cut|loss|…|heal|graph|ping-matrix|capture|test`: a lab looked at, broken, mended and tested."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable

from pycni.cli.failure import FAILED, OK, USAGE, Failure, write_text
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


def _cut(given: Namespace) -> int:
    return _say(breaking.break_links(find_lab(given.lab), "unplug" if given.no_carrier else "cut", given.links))


def _valued(kind: str) -> Callable[[Namespace], int]:
    return lambda given: _say(breaking.break_links(find_lab(given.lab), kind, given.links, given.value))


def _split(given: Namespace) -> int:
    return _say(breaking.split(find_lab(given.lab), [party.split(",") for party in given.parties]))


def _kill(given: Namespace) -> int:
    lab = find_lab(given.lab)
    return _say(breaking.kill(lab, f"{given.kind} {name}") for name in given.names)


def _start(given: Namespace) -> int:
    lab = find_lab(given.lab)
    return _say(breaking.start(lab, f"{given.kind} {name}", Progress()) for name in given.names)


def _reboot(given: Namespace) -> int:
    lab = find_lab(given.lab)
    return _say(breaking.reboot(lab, host, Progress()) for host in given.hosts)


def _heal(given: Namespace) -> int:
    lab = find_lab(given.lab)
    healed = breaking.heal(lab, given.what, Progress())
    return _say([*([f"no more: {text}" for text in healed] or ["nothing was broken"]), *_not_attached(lab)])


def _not_attached(lab: RunningLab) -> list[str]:
    """A line about containers of the file that are not there; [] where all are."""
    names = ", ".join(f"{host}/{name}" for host, name in missing(lab))
    return [f"not attached: {names}; `pycni lab up {lab.state['file']}` attaches them"] if names else []


# -- looks -------------------------------------------------------------------------------------------------------------


def _graph(given: Namespace) -> int:
    picture = picture_of(find_lab(given.lab or given.named_lab))
    named = os.path.splitext(given.output or "")[1]
    if given.format is None and named not in ("", ".svg", ".mmd", ".md"):
        raise Failure(
            f"{given.output}: a picture is .svg, or .mmd or .md for Mermaid",
            exit_code=USAGE,
            next_step="or say --format",
        )
    kind = given.format or ("mermaid" if named in (".mmd", ".md") else "svg")
    text = render_svg(draw(picture)) if kind == "svg" else render_mermaid(picture)
    if named == ".md":
        text = f"```mermaid\n{text}```\n"
    if given.output is None:
        sys.stdout.write(text)
        return OK
    write_text(given.output, text)
    print(os.path.abspath(given.output))
    return OK


def _ping_matrix(given: Namespace) -> int:
    lab = find_lab(given.lab or given.named_lab)
    families = (given.family,) if given.family else (4, 6)
    matrix = measure(
        picture_of(lab),
        namespaces_of(lab),
        count=max(given.count, 1),
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
        host, _, container = each.pair.source.partition("/")
        print(f"why: pycni lab exec --lab {lab.name} {host} -- pycni trace {container} {each.pair.address}")
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
    "cut": _cut,
    **{kind: _valued(kind) for kind in ("loss", "delay", "rate", "mtu")},
    "split": _split,
    "kill": _kill,
    "start": _start,
    "reboot": _reboot,
    "heal": _heal,
    "graph": _graph,
    "ping-matrix": _ping_matrix,
    "capture": _capture,
    "test": _test,
}
