"""pycni's userland proxy against docker-proxy, the kernel's address translation and no detour at all, interleaved.

    sudo python bench/proxy.py              # under four minutes on two cores
    sudo python bench/proxy.py --quick      # under one
    sudo python bench/proxy.py --listen ::1 # from IPv6 to IPv4, which only a proxy can do

All ways lead to one server in one container; every measurement goes over each of them in turn, the order changed every
round. What counts are the ratios pycni / docker-proxy of neighbours in time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import proxy_report, setting
from bench.calm import Calm
from bench.proxy_sides import (
    BRIDGE,
    CONTAINER,
    DNAT_PORT,
    DOCKER_PORT,
    PORT,
    PYCNI_PORT,
    Lab,
    Way,
    ended,
    pss,
)

QUICK = {"rounds": 3, "seconds": 0.4, "ports": [1, 100]}
WARM_UP_S = 0.2
CALM_S = 20.0  # of waiting, at most, before each round


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """By name: the "loads" by load and way, figures of each round; the "memory" by number of ports, MB of each proxy;
    and which docker-proxy it was, the "reference"."""
    with Lab(given.listen) as lab:
        lab.translate()
        loads = measure_loads(lab, given)
        return {"loads": loads, "memory": measure_memory(lab, given), "reference": lab.reference}


def measure_loads(lab: Lab, given: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    with (
        ended([lab.start_pycni()]) as (pycni,),
        ended([lab.start_docker_proxy(DOCKER_PORT, proto) for proto in ("tcp", "udp")]) as (docker_tcp, docker_udp),
    ):
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        for load in proxy_report.LOADS:
            docker = docker_udp if load.mode == "datagram" else docker_tcp
            ways = [
                Way("pycni", lab.listen, PYCNI_PORT, pycni),
                Way("docker-proxy", lab.listen, DOCKER_PORT, docker),
                Way("dnat", BRIDGE, DNAT_PORT, 0),
                Way("direct", CONTAINER, PORT, 0),
            ]
            ways = ways[: 4 if given.kernel else 2]
            found[load.name] = {way.name: [] for way in ways}
            for way in ways:
                lab.measure(way, load.mode, WARM_UP_S, load.clients)
            for number in range(given.rounds):
                show(f"{load.name}: round {number + 1} of {given.rounds}")
                # A proxy's neighbour is always the other proxy: which of them is first changes.
                order = ways[1::-1] + ways[2:] if number % 2 else ways
                # Client, proxy and server pass the work round and each waits for its turn: on a busy machine that is
                # what is measured, and a proxy with ten threads gets more turns than one with one.
                Calm(CALM_S).wait()
                for way in order:
                    found[load.name][way.name].append(lab.measure(way, load.mode, given.seconds, load.clients))
        return found


def measure_memory(lab: Lab, given: argparse.Namespace) -> list[dict[str, float]]:
    found = []
    for ports in given.ports:
        show(f"memory of {ports} ports")
        with ended([lab.start_pycni(ports)]) as pids:
            one: dict[str, float] = {"ports": ports, "pycni": pss(pids)}
        if ports <= given.most_processes:
            with ended([lab.start_docker_proxy(DOCKER_PORT + 1 + number, "tcp") for number in range(ports)]) as pids:
                one["docker-proxy"] = pss(pids)
        found.append(one)
    return found


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description="pycni's userland proxy against docker-proxy, interleaved, as ratios")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each load over each way (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement (default 1)")
    parser.add_argument("--listen", default="127.0.0.1", help="the address that is served (default 127.0.0.1; ::1)")
    parser.add_argument("--ports", type=numbers, default=[1, 100, 1000, 10000], help="of which memory is measured")
    parser.add_argument(
        "--most-processes", type=int, default=100, help="docker-proxy processes at once, at most (default 100)"
    )
    parser.add_argument("--no-kernel", dest="kernel", action="store_false", help="only the proxies")
    parser.add_argument("--quick", action="store_true", help=f"a look: {QUICK}")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the setting there too")
    given = parser.parse_args(argv)
    if given.quick:
        vars(given).update(QUICK)
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = setting.read()
    measured = measure(given)
    where["docker-proxy"] = measured.pop("reference")
    found = proxy_report.summary(measured)
    show("")
    print(setting.shown(where))
    print(proxy_report.render(found), end="")
    setting.write(given, where, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
