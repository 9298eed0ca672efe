"""Published ports: pycni against the reference plugins and netavark in one interleaved run, as ratios.

    sudo python bench/portmap.py             # about fifteen minutes on two cores
    sudo python bench/portmap.py --quick     # under one

ADD and DEL of bridge and portmap together, with 1, 10, 100 ports and a range of 10 000, then next to many containers
with a port each. Each side has a host of its own (namespaces), and they take turns; see README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import portmap_report, setting
from bench.add_del import BRIDGE_PORTS, settle, show
from bench.calm import Calm
from bench.portmap_parties import EXISTING_PORTS, Chain, Netavark, Party, Ports, Taken, netavark_plugins
from bench.portmap_report import EMPTY, NETAVARK, ONE, OURS, RANGE, REFERENCE
from bench.sides import Side, agent_plugins, reference_plugins, standalone_plugins

MEASURED = "measured"
SINGLE = [Ports(ONE, 1), Ports("10", 10), Ports("100", 100)]
CALM_S = 180.0  # seconds of waiting, in all
WIDE = Ports(RANGE, 10_000, is_range=True)
PLUGINS = {OURS[0]: standalone_plugins, OURS[1]: agent_plugins, REFERENCE: reference_plugins}
QUICK = {"rounds": 5, "netavark_rounds": 1, "existing": 100, "existing_rounds": 5}

Figures = dict[str, dict[str, dict[str, list[float]]]]  # command → side → "wall", "cpu" → seconds, by round


def measure_lives(rounds: int, netavark_rounds: int) -> dict[str, Figures]:
    """By number of ports: the container is the only one of its host. netavark takes part in the first rounds only."""
    with contextlib.ExitStack() as stack:
        parties: dict[str, Party] = {name: _chain(stack, name, plugins) for name, plugins in PLUGINS.items()}
        other = stack.enter_context(Side(NETAVARK, netavark_plugins))
        other.make_containers([MEASURED])
        found: dict[str, Figures] = {ports.label: {} for ports in (*SINGLE, WIDE)}
        for name, party in {**parties, NETAVARK: Netavark(other)}.items():
            _life(party, SINGLE[0])  # bridge, tables, caches
            if name == NETAVARK:
                parties[name] = party
        ours = {name: parties[name] for name in OURS}
        for number in range(rounds):
            if number == netavark_rounds:
                del parties[NETAVARK]
            for ports in SINGLE:
                show(f"round {number + 1} of {rounds}: {ports.label}", fleeting=True)
                _turns(parties, ports, number, found[ports.label])
            show(f"round {number + 1} of {rounds}: {WIDE.label}", fleeting=True)
            _turns(ours, WIDE, number, found[WIDE.label])
        return found


def measure_existing(existing: int, rounds: int) -> Figures:
    """Next to *existing* containers with a port each; of ours there are hosts without them too."""
    with contextlib.ExitStack() as stack:
        crowds = {name: _chain(stack, name, plugins) for name, plugins in PLUGINS.items()}
        for name, chain in crowds.items():
            show(f"{name}: {existing} containers")
            names = [f"present{number}" for number in range(existing)]
            chain.side.make_containers(names)
            chain.populate(names, EXISTING_PORTS, os.cpu_count() or 1)
        parties: dict[str, Party] = dict(crowds)
        parties |= {name + EMPTY: _chain(stack, name + EMPTY, PLUGINS[name]) for name in OURS}
        for party in parties.values():
            _life(party, SINGLE[0])
        settle()
        # A container that has come up says so to every port of its bridge, some milliseconds later: next to a thousand
        # that would be measured with whatever call comes next, on another side.
        calm = Calm(CALM_S)
        found: Figures = {}
        for number in range(rounds):
            show(f"next to {existing}: round {number + 1} of {rounds}", fleeting=True)
            _turns(parties, SINGLE[0], number, found, calm.wait)
        return found


def _chain(stack: contextlib.ExitStack, name: str, plugins: Any) -> Chain:
    side = stack.enter_context(Side(name.replace(", ", "-").replace(" ", "-"), plugins))
    side.make_containers([MEASURED])
    return Chain(side)


def _life(party: Party, ports: Ports) -> tuple[Taken, Taken]:
    return party.attach(MEASURED, ports), party.detach(MEASURED, ports)


def _turns(
    parties: dict[str, Party], ports: Ports, number: int, found: Figures, rest: Callable[[], None] = lambda: None
) -> None:
    """One ADD on each side, then one DEL; each side begins in its turn, and every neighbourhood has both orders. *rest*
    is called before each."""
    names = list(parties)
    order = names[number % len(names) :] + names[: number % len(names)]
    if number // len(names) % 2:
        order.reverse()
    for command in portmap_report.COMMANDS:
        for name in order:
            party = parties[name]
            rest()
            taken = (party.attach if command == "ADD" else party.detach)(MEASURED, ports)
            of_side = found.setdefault(command, {}).setdefault(name, {"wall": [], "cpu": []})
            of_side["wall"].append(taken.wall)
            of_side["cpu"].append(taken.cpu)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    lives = measure_lives(given.rounds, given.netavark_rounds)
    existing = measure_existing(given.existing, given.existing_rounds) if given.existing else {}
    return {"lives": lives, "existing": existing}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="published ports: pycni, the reference plugins, netavark; as ratios")
    parser.add_argument("--rounds", type=int, default=21, help="measurements with 1, 10, 100 ports (default 21)")
    parser.add_argument("--netavark-rounds", type=int, default=5, help="of them with netavark (default 5)")
    parser.add_argument("--existing", type=int, default=1000, help="containers already there (default 1000, 0: none)")
    parser.add_argument("--existing-rounds", type=int, default=21, help="measurements next to them (default 21)")
    parser.add_argument("--quick", action="store_true", help=f"a look: {QUICK}")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the setting there too")
    given = parser.parse_args(argv)
    if given.quick:
        vars(given).update(QUICK)
    if not 0 <= given.existing < BRIDGE_PORTS:
        parser.error(f"--existing: a bridge takes {BRIDGE_PORTS} ports, one of them is measured")
    if not 1 <= given.netavark_rounds <= given.rounds:
        parser.error("--netavark-rounds: at least 1, at most --rounds")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = {**setting.read(), "netavark": setting.package_version("netavark")}
    found = portmap_report.summary(measure(given))
    show("")
    print(setting.shown(where))
    print(portmap_report.render(found, given.existing), end="")
    setting.write(given, where, portmap_report.as_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
