"""What do the entries that lead to other hosts cost: to write, to read back, to remove; next to iproute2's batches.

    sudo python bench/forwarding.py [--endpoints 10000]

One host in namespaces of its own. An endpoint of another host is three entries: one of the VXLAN device, one of its
bridge, one neighbour. Every figure is the median of a few rounds, in µs an entry.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netns_fixtures import Host, Underlay
from pycni.change.forwarding import Entry, FdbEntry, NeighbourEntry, PortEntry
from tests.kernel.tunnel_lab import VXLAN, Site, l2_entries

ROUNDS = 5


def endpoints(count: int) -> list[Entry]:
    """*count* endpoints, spread over two hundred hosts."""
    out: list[Entry] = []
    for number in range(count):
        address = f"10.{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        mac = "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        out += l2_entries(mac, f"192.0.2.{number % 200 + 50}", address)
    return out


def batches(entries: list[Entry]) -> tuple[str, str]:
    """The same for `bridge -batch` and `ip -batch`."""
    fdb = [
        f"fdb replace {one.mac} dev {VXLAN} dst {one.vtep} self permanent"
        for one in entries
        if isinstance(one, FdbEntry)
    ]
    fdb += [f"fdb replace {one.mac} dev {VXLAN} master static sticky" for one in entries if isinstance(one, PortEntry)]
    neighbours = [one for one in entries if isinstance(one, NeighbourEntry)]
    lines = [f"neigh replace {one.address} lladdr {one.mac} dev {VXLAN} nud permanent" for one in neighbours]
    return "\n".join(fdb) + "\n", "\n".join(lines) + "\n"


def timed(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--endpoints", type=int, default=10_000)
    entries = endpoints(parser.parse_args().endpoints)
    fdb, neighbours = batches(entries)
    figures: dict[str, list[float]] = {}
    with ExitStack() as closing:
        host = Host("h1")
        closing.callback(host.delete)
        underlay = Underlay([host])
        closing.callback(underlay.delete)
        site = Site(underlay, host, 4, closing)
        site.bridged()

        def by_iproute2() -> None:
            host.run(["bridge", "-batch", "-"], input=fdb)
            host.run(["ip", "-batch", "-"], input=neighbours)

        for _ in range(ROUNDS):
            steps: dict[str, Callable[[], object]] = {
                "write": lambda: site.change(entries),
                "write what is there": lambda: site.change(entries),
                "read": site.entries,
                "remove": lambda: site.change([], entries),
                "write by iproute2's batches": by_iproute2,
            }
            for name, step in steps.items():
                figures.setdefault(name, []).append(timed(len(entries), step))
            if site.entries() != frozenset(entries):
                raise SystemExit("the two ways have not written the same")
            site.change([], entries)
    print(f"{len(entries)} entries, median of {ROUNDS} rounds (least), µs an entry")
    for name, found in figures.items():
        print(f"  {name:30}{statistics.median(found):6.1f} ({min(found):.1f})")


if __name__ == "__main__":
    main()
