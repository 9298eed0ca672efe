"""One agent in a network of a thousand hosts, which are only records in etcd: start, memory, and what a change costs.

    sudo python bench/overlay_scale.py                        # 1000 hosts with 20 endpoints each, about two minutes
    sudo python bench/overlay_scale.py --hosts 50 --changes 20

What one change costs is measured beside 20 endpoints first, then beside all of them: it must not grow with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import setting
from bench.calm import Calm
from bench.figures import Spread, milliseconds, render_table
from bench.overlay_fleet import Fleet, Place
from bench.overlay_sides import Hosts
from bench.proxy import show
from bench.proxy_sides import cpu_of
from bench.sides import PATH, PYCNI_DIR, SOURCE, install
from netns_fixtures import Etcd, Underlay, wait_until
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys
from pycni.host import lookups
from pycni.host.rtnl import Netlink

T = TypeVar("T")
NETWORK, PREFIX = "fleet", "/pycni/scale"
SUBNET, FIRST = "10.128.0.0/10", "10.160.0.1"  # the fleet's addresses lie where ADD draws none by chance, mostly
FEW_HOSTS, DEADLINE_S, POLL_S = 1, 300.0, 0.0002
REST_S = 5.0


class ScaleWorld(Hosts):
    """A host with an agent and one container, and an etcd."""

    def __init__(self) -> None:
        super().__init__()
        try:
            directory = Path(self.closing.enter_context(tempfile.TemporaryDirectory(prefix="pycni-bench-")))
            self.host, self.store = (self.make_host(name) for name in ("a", "etcd"))
            self.segment = Underlay([self.host, self.store])
            self.closing.callback(self.segment.delete)
            etcd = Etcd([(self.store, self.segment.address(self.store))], directory)
            self.closing.callback(etcd.delete)
            etcd.start()
            self.connection = {"endpoints": etcd.endpoints, "prefix": PREFIX}
            self.keys = Keys(PREFIX)
            install(self.host, "c")
            self.start_agent()
            self.device, self.vni = self._attach()
            self.kernel = self.closing.enter_context(self.host.in_namespace(Netlink))
        except BaseException:
            self.closing.close()
            raise

    def start_agent(self) -> None:
        argv, environment = [sys.executable, "-m", "pycni", "agent"], {"PATH": PATH, "PYTHONPATH": SOURCE}
        self.agent = self.host.popen(argv, env=environment, stderr=subprocess.DEVNULL)
        wait_until(lambda: self._answers(self.agent.pid), 20, "the agent answers")

    def _answers(self, pid: int) -> bool:
        try:
            return bool(self.status()["pid"] == pid)
        except Exception:  # not yet
            return False

    def stop_agent(self) -> None:
        self.agent.terminate()
        self.agent.wait(30)

    def status(self) -> dict[str, Any]:
        said = self.host.run(
            [sys.executable, "-m", "pycni", "agent", "status", "--json"], env={"PATH": PATH, "PYTHONPATH": SOURCE}
        )
        told: dict[str, Any] = json.loads(said.stdout)
        return told

    def _attach(self) -> tuple[str, int]:
        """One container, for whose sake the host follows the network; the VXLAN device and its VNI."""
        ipam = {"type": "pycni-ipam", "ranges": [[{"subnet": SUBNET}]]}
        conf = {"cniVersion": "1.0.0", "name": NETWORK, "type": "pycni-overlay", "etcd": self.connection, "ipam": ipam}
        box = self.host.container("c1")
        call = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": box.file, "CNI_IFNAME": "eth0"}
        environment = {**call, "CNI_PATH": PYCNI_DIR, "PATH": PATH}
        self.host.run([f"{PYCNI_DIR}/pycni-overlay"], input=json.dumps(conf), env=environment)
        record = self.ask(lambda client: client.get(self.keys.network(NETWORK)))
        assert record is not None
        vni = NetworkRecord.parse(record.value).vni
        return f"vxlan{vni}", vni

    def ask(self, question: Callable[[Client], T]) -> T:
        """Ask etcd from its own host."""
        conf = EtcdConf.parse(ConfKeys(self.connection, "etcd"))

        def answer() -> T:
            with open_client(conf) as client:
                return question(client)

        return self.store.in_namespace(answer)

    def fleet(self, client: Client) -> Fleet:
        return Fleet(client, self.keys, NETWORK, self.vni, first=FIRST)

    def programmed(self, place: Place) -> bool:
        """Whether the kernel sends to *place* where it is."""
        link = self.kernel.link(self.device)
        end = lookups.tunnel_end(self.kernel, link.index, bytes.fromhex(place.mac.replace(":", ""))) if link else None
        return str(end) == place.vtep

    def wait(self, places: Iterable[Place], *, there: bool = True) -> None:
        """Until all of *places* are programmed, or none of them."""
        for place in places:
            wait_until(lambda: self.programmed(place) == there, DEADLINE_S, f"{place} {there}")  # noqa: B023


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Times in seconds, CPU in seconds, memory in bytes."""
    calm = Calm(given.calm)
    with ScaleWorld() as world:
        few, many = range(FEW_HOSTS), range(given.hosts)
        world.ask(lambda client: world.fleet(client).join(few, given.endpoints))
        world.wait(_places(world, few, given.endpoints))
        calm.wait()
        show(f"a change beside {len(few) * given.endpoints} endpoints")
        found: dict[str, Any] = {"few": {"endpoints": len(few) * given.endpoints, **_change_costs(world, given)}}
        found["few"]["memory_bytes"] = world.status()["memory_bytes"]
        world.stop_agent()
        show(f"writing {given.hosts} hosts")
        began = time.monotonic()
        world.ask(lambda client: world.fleet(client).join(many, given.endpoints))
        found["driver_s"] = time.monotonic() - began
        found["start"] = _start(world, _places(world, many, given.endpoints))
        calm.wait()
        show(f"a change beside {given.hosts * given.endpoints} endpoints")
        found["many"] = {"endpoints": given.hosts * given.endpoints, **_change_costs(world, given)}
        found["many"]["memory_bytes"] = world.status()["memory_bytes"]
        found["rest"] = _at_rest(world)
        found["burst"] = _burst(world, given)
        found["busy"] = calm.missed
        return found


def _places(world: ScaleWorld, hosts: Iterable[int], endpoints: int) -> list[Place]:
    fleet = Fleet(None, world.keys, NETWORK, world.vni, first=FIRST)  # type: ignore[arg-type]  # it asks nothing
    return [fleet.place(host, number, endpoints) for host in hosts for number in range(endpoints)]


def _start(world: ScaleWorld, places: list[Place]) -> dict[str, float]:
    """From the start of an agent that knows nothing, beside a kernel that has next to nothing, to all being there."""
    show("an agent starts")
    began = time.monotonic()
    world.start_agent()
    answers = time.monotonic() - began
    some = places[
        FEW_HOSTS * len(places) // (2 + FEW_HOSTS) :: max(1, len(places) // 50)
    ]  # none that are there already
    wait_until(lambda: any(map(world.programmed, some)), DEADLINE_S, "the first entry")
    first = time.monotonic() - began
    world.wait(places)
    whole = time.monotonic() - began
    return {
        "answers_s": answers,
        "first_s": first,
        "all_s": whole,
        "cpu_s": cpu_of(world.agent.pid),
        "entries": len(places),
    }


def _change_costs(world: ScaleWorld, given: argparse.Namespace) -> dict[str, Any]:
    """Of an endpoint that comes and goes again: seconds from the request to etcd until the kernel has it, and the CPU
    time that the agent needs for one change."""
    seconds: list[float] = []
    extra = Fleet(None, world.keys, NETWORK, world.vni, first=FIRST)  # type: ignore[arg-type]
    before = cpu_of(world.agent.pid)
    for number in range(given.changes):
        place = extra.place(given.hosts + 1, number, given.endpoints)
        place = place._replace(vtep=extra.place(0, 0, 1).vtep)  # of host 0, which is there
        began = time.monotonic()
        world.ask(lambda client: world.fleet(client).add(place, 0))  # noqa: B023
        world.wait([place])
        seconds.append(time.monotonic() - began)
        world.ask(lambda client: world.fleet(client).remove(place))  # noqa: B023
        world.wait([place], there=False)
    cpu = (cpu_of(world.agent.pid) - before) / (2 * given.changes)
    return {"seen_s": Spread.of(seconds)._asdict(), "cpu_s": cpu, "changes": 2 * given.changes}


def _at_rest(world: ScaleWorld) -> dict[str, float]:
    """What the agent needs while nothing happens: seconds of CPU in a second."""
    show("at rest")
    before, began = cpu_of(world.agent.pid), time.monotonic()
    time.sleep(REST_S)
    return {"cpu_share": (cpu_of(world.agent.pid) - before) / (time.monotonic() - began)}


def _burst(world: ScaleWorld, given: argparse.Namespace) -> dict[str, float]:
    """A hundredth more of hosts, and at least one, joins at once: until the kernel has the last of their endpoints."""
    hosts = range(given.hosts + 10, given.hosts + 11 + given.hosts // 100)
    show(f"{len(hosts)} hosts join")
    before, began = cpu_of(world.agent.pid), time.monotonic()
    world.ask(lambda client: world.fleet(client).join(hosts, given.endpoints))
    written = time.monotonic() - began
    world.wait(_places(world, hosts, given.endpoints))
    whole = time.monotonic() - began
    cpu = cpu_of(world.agent.pid) - before
    return {"endpoints": len(hosts) * given.endpoints, "written_s": written, "all_s": whole, "cpu_s": cpu}


def render(found: dict[str, Any]) -> str:
    start, burst, few, many = found["start"], found["burst"], found["few"], found["many"]
    rows = [
        (
            str(one["endpoints"]),
            milliseconds(Spread(**one["seen_s"])),
            f"{one['cpu_s'] * 1000:.2f}",
            _mb(one["memory_bytes"]),
        )
        for one in (few, many)
    ]
    table = render_table(
        ("endpoints", "a change is in the kernel after, ms", "CPU of a change, ms", "memory, MB"), rows
    )
    lines = [
        f"an agent starts beside {start['entries']} endpoints: answers after {start['answers_s']:.2f} s, first in",
        f"the kernel after {start['first_s']:.2f} s, all after {start['all_s']:.2f} s; CPU {start['cpu_s']:.2f} s",
        f"{burst['endpoints']} endpoints join at once: written in {burst['written_s']:.2f} s, in the kernel after",
        f"{burst['all_s']:.2f} s; CPU {burst['cpu_s'] * 1000:.0f} ms",
        f"at rest: {found['rest']['cpu_share'] * 100:.2f} % of one processor",
        "",
        table,
        f"CPU of a change beside all / beside few: {many['cpu_s'] / few['cpu_s']:.2f}\n",
    ]
    return "\n".join(lines)


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="one agent of pycni in a network of many simulated hosts")
    parser.add_argument("--hosts", type=int, default=1000, help="that are only records in etcd (default 1000)")
    parser.add_argument("--endpoints", type=int, default=20, help="of each of them (default 20)")
    parser.add_argument("--changes", type=int, default=100, help="endpoints that come and go (default 100)")
    parser.add_argument(
        "--calm", type=float, default=20.0, help="seconds to wait for an idle machine, in all (default 20)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures and the setting there too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    where = setting.read()
    where["etcd"] = setting.package_version("etcd-server")
    found = measure(given)
    show("")
    print(setting.shown(where))
    print(render(found), end="")
    setting.write(given, where, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
