"""`pycni lab trace SRC DST`: a packet's way through a lab, each half of it on the host that sees it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator

from pycni.cli.failure import FAILED, OK, Failure
from pycni.cli.lab import find_lab
from pycni.cli.tables import paint
from pycni.cli.trace.facts import HERE
from pycni.cli.trace.telling import Told, print_outcome, print_way
from pycni.lab.faults import faults_in, told
from pycni.lab.picture_of import picture_of
from pycni.lab.running import RunningLab
from pycni.lab.tracing import ends_of


def trace(given: Namespace) -> int:
    """Exit code 1 where something is missing. The second half is looked at where the first is in order.

    No host sees what the lab's switches do to its packets, so what is broken on purpose is told as `ps` tells it.
    """
    lab = find_lab(given.lab)
    halves: list[Told] = []
    for half in _halves(given, lab):
        halves.append(half)
        if not given.json:
            print(("\n" if len(halves) > 1 else "") + paint(f"on {half['host']}:", "bold", sys.stdout))
            print_way(half)
    missing, faults = halves[-1]["missing"], [told(fault) for fault in faults_in(lab.state) if fault.kind != "kill"]
    if given.json:
        print(json.dumps({"lab": lab.name, "halves": halves, "missing": missing, "faults": faults}, indent=4))
    else:
        print_outcome({**halves[-1], "otherHalf": None})
        for fault in faults:
            print(f"fault: {fault}")
    return FAILED if missing else OK


def _halves(given: Namespace, lab: RunningLab) -> Iterator[Told]:
    """What `pycni trace` says on the host of SRC, then on that of DST."""
    source, target = ends_of(picture_of(lab), given.source, given.target, given.family)
    addresses, last = (source.address, target.address), target.host or source.host
    if source.container or source.host == last:
        half = _told(given, lab, source.host, addresses)
        if source.host != last:
            _refuse_namesake(half, source.host, given.target)
        yield half
        if half["missing"] or source.host == last or not (target.container or given.port):
            return
        addresses = half["leavesAs"] or half["source"]["address"], half["target"]["address"]
    yield _told(given, lab, last, addresses)


def _refuse_namesake(half: Told, host: str, target: str) -> None:
    """Where the address of *target*, which is on another host, is on *host* a container's of its own."""
    end = half["target"]
    if end["place"] == HERE:
        raise Failure(
            f"on {host} {end['address']} is {end['container']} of its own network {end['network']}, and not {target}",
            next_step="networks without overlay are each host's own: publish a port, and trace to HOST --port N",
        )


def _told(given: Namespace, lab: RunningLab, host: str, addresses: tuple[str, str]) -> Told:
    argv = [sys.executable, "-m", "pycni", "trace", *addresses, "--json"]
    argv += ["--port", str(given.port)] if given.port else []
    argv += ["--proto", given.proto] if given.proto else []
    done = lab.run(host, None, argv, check=False)
    try:
        said: Told = json.loads(done.stdout)
    except ValueError:
        raise Failure(f"{host}: pycni trace {' '.join(addresses)}: {done.stderr.strip() or done.stdout}") from None
    if "steps" not in said:
        raise Failure(
            f"{host}: {said['msg']}",
            exit_code=done.returncode,
            code=said["code"],
            details=said.get("details", ""),
            facts=tuple(said.get("facts", {}).items()),
            next_step=said.get("nextStep", ""),
        )
    return said


HANDLERS = {"trace": trace}
