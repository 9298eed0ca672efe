"""pycni's overlay between two hosts against a VXLAN made by hand, ADD with etcd, and how soon a container is reached.

    sudo python bench/overlay.py                    # about three minutes on two cores
    sudo python bench/overlay.py --quick            # under one
    sudo python bench/overlay.py --parts reach      # only a part

Hosts are namespaces on one segment, with real etcds beside them. Both ways between two containers use the same uplinks,
and are measured in turn; what counts are the ratios of neighbours. See README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import overlay_report, setting
from bench.calm import Calm
from bench.overlay_sides import OverlaySide, World, asking_for
from bench.proxy import show
from bench.sides import with_result

PARTS = ("transfer", "add", "reach")
QUICK = {"rounds": 3, "seconds": 0.4, "adds": 5, "reaches": 20, "calm": 5.0}
WARM_UP_S = 0.3
LOADS = ("upload", "request")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """By part what was measured; see overlay_report.summary."""
    calm = Calm(given.calm)
    with World() as world:
        parts = {"transfer": measure_transfer, "add": measure_add, "reach": measure_reach}
        found = {name: parts[name](world, given, calm) for name in given.parts}
    return {**found, "busy": calm.missed}


def measure_transfer(world: World, given: argparse.Namespace, calm: Calm) -> dict[str, Any]:
    """By the underlay's segmentation, load and way the load's figures, in the order of rounds."""
    ways = world.ways(given.family)
    found: dict[str, Any] = {}
    for name, on in (("on", True), ("off", False)):
        world.segment_in_hardware(on)
        found[name] = {load: {way.name: [] for way in ways} for load in LOADS}
        for load in LOADS:
            for way in ways:
                world.measure(way, load, WARM_UP_S)
            for number in range(given.rounds):
                show(f"{load}, segmentation {name}: round {number + 1} of {given.rounds}")
                calm.wait()
                for way in ways[::-1] if number % 2 else ways:
                    found[name][load][way.name].append(world.measure(way, load, given.seconds))
    world.segment_in_hardware(True)
    return found


def measure_add(world: World, given: argparse.Namespace, calm: Calm) -> list[dict[str, Any]]:
    """ADD and DEL of one more container, by who carries them out and by members of etcd; seconds by round."""
    sides = (("a process", world.alone), ("the agent", world.a))
    kinds = [(by, side, members) for by, side in sides for members in sorted(world.etcds)]
    confs = {members: world.network(members=members, name=f"add{members}") for members in world.etcds}
    found = {(command, by, members): [] for command in ("ADD", "DEL") for by, _, members in kinds}  # type: ignore[var-annotated]
    for _, side in sides:
        side.make_containers(["measured"])
    # One container stays on each host and in each network: what is measured is one more, not the network's making.
    for _, side, members in kinds:
        side.make_containers([f"first{members}"])
        side.call(side.request("ADD", confs[members], f"first{members}"))
    calm.wait()
    for number in range(-1, given.adds):
        show(f"ADD: round {number + 1} of {given.adds}")
        for by, side, members in kinds[::-1] if number % 2 else kinds:
            for command, wall in _add_and_delete(side, confs[members], "measured"):
                if number >= 0:  # the first round fills caches
                    found[command, by, members].append(wall)
    for _, side, members in kinds:
        side.call(side.request("DEL", confs[members], f"first{members}"))
    return [
        {"command": command, "by": by, "members": members, "wall": wall}
        for (command, by, members), wall in found.items()
    ]


def _add_and_delete(side: OverlaySide, conf: dict[str, Any], container: str) -> list[tuple[str, float]]:
    added = side.call(side.request("ADD", conf, container))
    deleted = side.call(side.request("DEL", with_result(conf, added.stdout), container))
    return [("ADD", added.wall), ("DEL", deleted.wall)]


def measure_reach(world: World, given: argparse.Namespace, calm: Calm) -> dict[str, list[float]]:
    """Seconds from the return of an ADD on host a to the first answer that an existing container of host b gets.

    "waiting": that container asks for the address since before the ADD, every millisecond, as a client that retries;
    its neighbour entry is then pending, and would be for a second without an announcement. "then asking": it first asks
    when ADD has returned.
    """
    conf = world.network(members=1, name="reach")
    side, here = world.a, world.b
    box = here.host.container("asking")
    here.call(here.request("ADD", conf, "asking"))
    prober = world.prober(box)
    side.make_containers(["reached"])
    found: dict[str, list[float]] = {"waiting": [], "then asking": []}
    calm.wait()
    for number in range(given.reaches):
        for name, seconds in found.items():
            show(f"reach: round {number + 1} of {given.reaches}")
            address = f"10.4.{100 + number // 100}.{10 + 2 * (number % 100) + (name == 'waiting')}"
            request = asking_for(side.request("ADD", conf, "reached"), address)
            if name == "waiting":
                prober.begin(address)
            added = side.call(request)
            if name != "waiting":
                prober.begin(address)
            seconds.append(prober.first_answer() - added.start - added.wall)
            side.call(side.request("DEL", with_result(conf, added.stdout), "reached"))
    here.call(here.request("DEL", conf, "asking"))
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def parts(text: str) -> list[str]:
        wanted = text.split(",")
        if not set(wanted) <= set(PARTS):
            raise argparse.ArgumentTypeError(f"{text!r}: known are {', '.join(PARTS)}")
        return wanted

    parser = argparse.ArgumentParser(description="pycni's overlay against a VXLAN made by hand, interleaved, as ratios")
    parser.add_argument("--parts", type=parts, default=list(PARTS), help=f"only these of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each load over each way (default 15)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement (default 0.5)")
    parser.add_argument("--adds", type=int, default=21, help="ADDs and DELs of each kind (default 21)")
    parser.add_argument("--reaches", type=int, default=100, help="new containers to be reached (default 100)")
    parser.add_argument(
        "--calm", type=float, default=30.0, help="seconds to wait for an idle machine, in all (default 30)"
    )
    parser.add_argument(
        "--family", type=int, choices=(4, 6), default=4, help="of the containers' addresses (default 4)"
    )
    parser.add_argument("--quick", action="store_true", help=f"a look: {QUICK}")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the setting there too")
    given = parser.parse_args(argv)
    if given.quick:
        vars(given).update(QUICK)
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = setting.read()
    where["etcd"] = setting.package_version("etcd-server")
    found = overlay_report.summary(measure(given))
    show("")
    print(setting.shown(where))
    print(overlay_report.render(found), end="")
    setting.write(given, where, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
