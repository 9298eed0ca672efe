"""Hosts that take addresses from one etcd at the same time: how many a second, in how many round trips, how late.

    sudo python bench/etcd_alloc.py            # about half a minute on two cores
    sudo python bench/etcd_alloc.py --quick    # a few seconds

Each host is a process with a connection of its own, and takes one address after the other; nothing else is done (no
interface is made). On a machine with few cores most of the time is that of the sixteen interpreters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures, setting
from bench.figures import Target
from bench.setting import ROOT
from netns_fixtures import Etcd, Namespace

RESULTS = Path(__file__).with_name("results") / "etcd_alloc.json"
MEMBERS = (1, 3)
TRIPS = Target("round trips of an address, on average", 2.0)
NUMBER = int(ip_address("10.1.0.1"))


class Case(NamedTuple):
    """name: what is taken from what. pools: of each address of a taking. full: of a single pool that just holds what is
    taken, which part of it is full at the end, instead of *pools*. length: prefix length of blocks, 0: addresses."""

    name: str
    pools: tuple[tuple[str, str], ...] = ()
    full: float = 0.0
    length: int = 0
    transport: str = "gateway"


WIDE, WIDE6 = ("10.1.0.1", "10.1.255.254"), ("fd00:1::1", "fd00:1::ffff:ffff:ffff:fffe")
CASES = (
    Case("an address of a /16", (WIDE,)),
    Case("an address of a /16, over gRPC as in the agent", (WIDE,), transport="grpc"),
    Case("one of each family", (WIDE, WIDE6)),
    Case("an address, until 96 % are taken", full=0.96),
    Case("an address, until all are taken", full=1.0),
    Case("a block of 64", (("10.0.0.0", "10.63.255.255"),), length=26),
)


def measure(case: Case, etcd: Etcd, place: Namespace, given: argparse.Namespace, prefix: str) -> dict[str, Any]:
    pools = case.pools
    if case.full:
        last = NUMBER + round(given.contenders * given.count / case.full) - 1
        pools = ((str(ip_address(NUMBER)), str(ip_address(last))),)
    config: dict[str, Any] = {"etcd": {"endpoints": etcd.endpoints, "prefix": prefix}, "transport": case.transport}
    config |= {"pools": pools, "length": case.length, "count": given.count}
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    hosts = []
    for at in range(given.contenders):
        argv = [sys.executable, "-m", "bench.etcd_contender", json.dumps({**config, "node": f"h{at}"})]
        hosts.append(place.popen(argv, stdin=PIPE, stdout=PIPE, env=env))
    for host in hosts:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
    for host in hosts:
        assert host.stdin is not None
        host.stdin.write("go\n")
        host.stdin.flush()
    told = [json.loads(host.communicate()[0]) for host in hosts]
    taken = [one for each in told for one in each["taken"]]
    seconds = [one for each in told for one in each["seconds"]]
    trips = [one for each in told for one in each["trips"]]
    wall_s = max(each["ended"] for each in told) - min(each["began"] for each in told)
    return {
        "case": case.name,
        "members": len(etcd.members),
        "per_second": round(len(seconds) / wall_s, 1),
        "round_trips": round(statistics.fmean(trips), 3),
        "most_round_trips": max(trips),
        "p50_ms": round(statistics.median(seconds) * 1000, 2),
        "p99_ms": round(statistics.quantiles(seconds, n=100)[98] * 1000, 2),
        "takings": len(seconds),
        "twice": len(taken) - len(set(taken)),
        "errors": sorted({error for each in told for error in each["errors"]}),
    }


def render(found: Sequence[dict[str, Any]]) -> str:
    columns = ("per_second", "round_trips", "most_round_trips", "p50_ms", "p99_ms")
    header = ("taken", "members", "a second", "round trips", "at most", "median, ms", "99 %, ms")
    rows = [[one["case"], str(one["members"]), *(f"{one[name]:g}" for name in columns)] for one in found]
    return figures.render_table(header, rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hosts that take addresses from one etcd at the same time")
    parser.add_argument("--contenders", type=int, default=16, help="hosts (default 16)")
    parser.add_argument("--count", type=int, default=40, help="takings of each host (default 40)")
    parser.add_argument("--quick", action="store_true", help="8 takings of each host")
    parser.add_argument("--json", metavar="FILE", default=str(RESULTS), help=f"default {RESULTS.name} in results/")
    given = parser.parse_args(argv)
    if given.quick:
        given.count = 8
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given, where, found = parse(argv), setting.read(), []
    place = Namespace("bench", lo_up=True)
    try:
        with tempfile.TemporaryDirectory(prefix="pycni-bench-") as directory:
            for members in MEMBERS:
                etcd = Etcd([(place, "127.0.0.1")] * members, Path(directory, str(members)))
                Path(directory, str(members)).mkdir()
                etcd.start()
                try:
                    for at, case in enumerate(CASES):
                        found.append(measure(case, etcd, place, given, f"/bench/{at}"))
                    where["etcd"] = str(dict(etcd.members[0].get("/version") or {}).get("etcdserver"))  # type: ignore[call-overload]
                finally:
                    etcd.delete()
    finally:
        place.delete()
    print(render(found))
    average = max(one["round_trips"] for one in found if not one["case"].startswith("a block"))
    print(TRIPS.verdict(average))
    setting.write(given, where, {"found": found})
    wrong = [one for one in found if one["twice"] or one["errors"]]
    for one in wrong:
        print(f"{one['case']}: {one['twice']} taken twice, errors {one['errors']}", file=sys.stderr)
    return 1 if wrong or average > TRIPS.limit else 0


if __name__ == "__main__":
    sys.exit(main())
