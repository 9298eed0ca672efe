"""The hosts of bench/overlay.py: two with an agent and one without on one segment, two etcds beside them, and next to
the overlay a VXLAN between the first two that is made by hand."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from bench.proxy_sides import compile_load
from bench.sides import PATH, ROOT, Plugins, Side, agent_plugins, standalone_plugins
from netns_fixtures import Container, Etcd, Host, Underlay, wait_until

UPLINK = "eth0"
PORT = 7000  # where a container's load server answers
OVERHEAD = 50  # bytes, over IPv4
HAND_VNI, HAND_MACS = 77, ("02:00:00:00:00:01", "02:00:00:00:00:02")
HAND_SUBNETS = {4: "10.9.0.", 6: "fd00:9::"}
NUMBERS = {"transfer": 1, "add1": 2, "add3": 3, "reach": 4}  # of networks, in their subnets
# What a NIC without tunnel offload cannot do; a veth passes packets of 64 KiB through as they are, which no wire does.
SEGMENTATION = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")


class Way(NamedTuple):
    """Between two containers: by pycni's overlay, or by hand."""

    name: str
    client: Container
    address: str  # of the server


class OverlaySide(Side):
    """A host of the segment with one set of plugins; `Side`'s calls, without an outside of its own."""

    def __init__(self, host: Host, plugins: Callable[[Host], Plugins]) -> None:
        self.name, self.host = host.name, host
        self.bin_dir, self.agent = plugins(host)
        argv = [sys.executable, f"{ROOT}/bench/worker.py"]
        self._worker = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": PATH})

    def __exit__(self, *_: object) -> None:
        """The host is deleted by whoever made it, and the worker with it."""


class Hosts:
    """Hosts and what else goes with them, newest first. A context manager."""

    def __init__(self) -> None:
        self.closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    def make_host(self, name: str) -> Host:
        made = Host(name)
        self.closing.callback(made.delete)
        return made


class World(Hosts):
    """`a` and `b` have an agent, `alone` has none. etcds: by number of members."""

    def __init__(self, *, members: tuple[int, ...] = (1, 3), mtu: int = 1500) -> None:
        super().__init__()
        try:
            self.directory = self.closing.enter_context(tempfile.TemporaryDirectory(prefix="pycni-bench-"))
            hosts = [self.make_host(name) for name in ("a", "b", "alone", *(f"etcd{count}" for count in members))]
            self.segment = Underlay(hosts, mtu=mtu, ifname=UPLINK)
            self.closing.callback(self.segment.delete)
            self.etcds = dict(zip(members, map(self._etcd, members, hosts[3:]), strict=True))
            self.a = OverlaySide(hosts[0], agent_plugins)
            self.b = OverlaySide(hosts[1], agent_plugins)
            self.alone = OverlaySide(hosts[2], standalone_plugins)
        except BaseException:
            self.closing.close()
            raise

    def _etcd(self, members: int, host: Host) -> Etcd:
        etcd = Etcd([(host, self.segment.address(host))] * members, Path(self.directory) / host.name)
        self.closing.callback(etcd.delete)
        Path(self.directory, host.name).mkdir()
        etcd.start()
        return etcd

    def network(self, *, members: int, name: str, family: int = 4) -> dict[str, Any]:
        """The configuration of an overlay network in the etcd of so many members."""
        number = NUMBERS[name]
        subnet = f"10.{number}.0.0/16" if family == 4 else f"fd00:{number}::/64"
        return {
            "cniVersion": "1.0.0",
            "name": name,
            "type": "pycni-overlay",
            "etcd": {"endpoints": self.etcds[members].endpoints, "prefix": f"/pycni/bench{members}"},
            "ipam": {"type": "pycni-ipam", "ranges": [[{"subnet": subnet}]]},
        }

    # -- the ways between two containers -------------------------------------------------------------------------------

    def ways(self, family: int = 4) -> tuple[Way, Way]:
        """pycni's overlay and the one made by hand, each with a server on host b."""
        load = compile_load(self.directory)
        conf = self.network(members=1, name="transfer", family=family)
        ends: list[tuple[Container, str]] = []
        for side in (self.a, self.b):
            box = side.host.container("ours")
            request = side.request("ADD", conf, "ours")
            address = json.loads(side.call(request).stdout)["ips"][0]["address"]
            ends.append((box, address.partition("/")[0]))
        by_hand = self._by_hand(family)
        found = (Way("pycni", ends[0][0], ends[1][1]), Way("by hand", by_hand[0], f"{HAND_SUBNETS[family]}2"))
        for server, way in zip((ends[1][0], by_hand[1]), found, strict=True):
            _serve(server, load, way.address)
            ping = ["ping", "-c1", "-W1", "-q", way.address]
            wait_until(lambda way=way: not way.client.run(ping, check=False).returncode, 10, way.name)  # type: ignore[misc]  # noqa: B023
        self.load = load
        return found

    def _by_hand(self, family: int) -> list[Container]:
        """A VXLAN with static entries between a and b, as pycni's l2 mode makes it."""
        boxes = []
        sides = (self.a.host, self.b.host)
        for at, host in enumerate(sides):
            box, other = host.container("hand"), sides[1 - at]
            mtu = self.segment.mtu - OVERHEAD
            mine, its = f"{HAND_SUBNETS[family]}{at + 1}", f"{HAND_SUBNETS[family]}{2 - at}"
            tunnel = f"id {HAND_VNI} dstport 4789 local {self.segment.address(host)} dev {UPLINK} nolearning proxy"
            host.ip_batch(
                f"link add hand0 mtu {mtu} type bridge",
                f"link add hand1 mtu {mtu} type vxlan {tunnel}",
                "link set hand1 master hand0 up",
                f"link add hand2 mtu {mtu} type veth peer name eth0 mtu {mtu} address {HAND_MACS[at]} netns {box.pid}",
                "link set hand2 master hand0 up",
                "link set hand0 up",
                f"neigh replace {its} lladdr {HAND_MACS[1 - at]} dev hand1 nud permanent",
            )
            entry = ["bridge", "fdb", "replace", HAND_MACS[1 - at], "dev", "hand1"]
            host.run([*entry, "dst", self.segment.address(other), "self", "permanent"])
            host.run([*entry, "master", "static"])
            nodad = " nodad" if family == 6 else ""
            box.ip_batch(
                f"addr add {mine}/{24 if family == 4 else 64} dev eth0{nodad}", "link set eth0 up", "link set lo up"
            )
            boxes.append(box)
        return boxes

    def segment_in_hardware(self, on: bool) -> None:
        """Whether the underlay takes tunnelled packets of up to 64 KiB."""
        for side in (self.a, self.b):
            for feature in SEGMENTATION:
                side.host.run(["ethtool", "-K", UPLINK, feature, "on" if on else "off"])

    def measure(self, way: Way, mode: str, seconds: float) -> dict[str, float]:
        """One run of the load: "count", "bytes", "seconds", "p50_us" and "p99_us"."""
        # Requests wait for each other, so both ends on one processor show what the way costs, not how fast it wakes.
        argv = [*_on(1 if mode == "request" else 0), self.load, mode, way.address, str(PORT), f"{seconds:g}", "1"]
        said = way.client.run(argv, timeout=seconds + 30).stdout
        return dict(zip(("count", "bytes", "seconds", "p50_us", "p99_us"), map(float, said.split()), strict=True))

    # -- from ADD to the first answer ----------------------------------------------------------------------------------

    def prober(self, box: Container) -> Prober:
        return Prober(box)


class Prober:
    """Pings from a container without pause until the first answer."""

    def __init__(self, box: Container) -> None:
        argv = [sys.executable, f"{ROOT}/bench/overlay_probe.py"]
        self._process = box.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": PATH})

    def begin(self, address: str) -> None:
        """Returns once the first request was sent."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{address}\n")
        self._process.stdin.flush()
        self._line()

    def first_answer(self) -> float:
        """When it came, seconds of CLOCK_MONOTONIC; RuntimeError where none did."""
        at = float(self._line())
        if not at:
            raise RuntimeError("the new container never answered")
        return at

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the prober ended: exit {self._process.wait()}")
        return line


def asking_for(request: Mapping[str, Any], address: str) -> dict[str, Any]:
    """*request* of an ADD with a wish for *address*."""
    environment = {**request["env"], "CNI_ARGS": f"IgnoreUnknown=1;IP={address}"}
    return {**request, "env": environment}


def _serve(box: Container, load: str, address: str) -> None:
    argv = [*_on(1), load, "server", address, str(PORT)]
    server = box.popen(argv, stdout=subprocess.PIPE)
    if server.stdout is None or server.stdout.readline() != "ready\n":
        raise RuntimeError("the load's server does not start")


def _on(processor: int) -> list[str]:
    """Words before a command that keep it on one processor, where there are several."""
    return ["taskset", "-c", str(processor)] if (os.cpu_count() or 1) > 1 else []
