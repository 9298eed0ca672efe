"""What must hold at the end of every fault drill, seen with nothing of ours: `bridge`, `ip`, `nft`, pings, and the
records of etcd read as plain JSON."""

from __future__ import annotations

import json
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from netns_fixtures import CniRun, Container, Host, Namespace, Snapshot, can_ping, diff, wait_until
from pycni.etcd.requests import KeyValue
from tests.kernel.agent_lab import AgentHost
from tests.overlay.drill_facts import DEADLINE_S, address_of_key, value_of, wait_in_order
from tests.overlay.following import CONFIG
from tests.overlay.overlay_lab import Conf, OverlayLab

REACH_S = 10.0  # after a partition hosts ask anew for each other's address on the segment, once a second
TRY_AGAIN = 11


@dataclass
class Drill:
    """A lab under test: agents run, every network was used and left once, and what is there then is `before`.

    `boxes` are the living containers by name, with the network of each.
    """

    lab: OverlayLab
    config: str = CONFIG
    networks: Sequence[Conf] = ()
    boxes: dict[str, tuple[Container, Conf]] = field(default_factory=dict)
    results: dict[str, Conf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.networks = self.networks or (self.lab.conf(),)
        start_all(self.lab, self.config)
        for conf in self.networks:
            self.lab.settle(conf)
        self.before = lasting(self.lab)

    def add(self, host: Host, name: str, conf: Conf | None = None) -> tuple[Container, Conf]:
        conf = conf or self.networks[0]
        box, result = self.lab.add(host, name, conf)
        self.boxes[name] = box, conf
        self.results[name] = result
        return box, result

    def add_in_the_end(self, host: Host, name: str, conf: Conf | None = None) -> float:
        """`add`, as a runtime does it that tries again after code 11; the seconds that it took."""
        conf = conf or self.networks[0]
        began = time.monotonic()
        while not (answer := attempt(self.lab, host, name, conf)).ok:
            assert answer.error_code == TRY_AGAIN, answer
            assert time.monotonic() - began < DEADLINE_S, answer
        self.boxes[name] = host.containers[name], conf
        self.results[name] = answer.result()
        return time.monotonic() - began

    def refused(self, host: Host, name: str, conf: Conf | None = None) -> float:
        """An ADD for which the time is wrong, and the DEL after it; the seconds that the ADD took."""
        conf = conf or self.networks[0]
        self.boxes[name] = host.container(name), conf
        began = time.monotonic()
        answer = attempt(self.lab, host, name, conf)
        took_s = time.monotonic() - began
        assert answer.error_code == TRY_AGAIN, answer
        self.delete(name)
        return took_s

    def delete(self, name: str) -> None:
        """DEL, and the end of the namespace."""
        box, conf = self.boxes.pop(name)
        self.lab.delete(box.host, box, conf)
        del box.host.containers[name]
        box.delete()

    def check(self, *lost: str, deadline_s: float = DEADLINE_S) -> None:
        """The invariants. *lost* are containers whose address was freed while their host was away: they are cut off,
        and CHECK says so, upon which a runtime attaches them anew."""
        for conf in self.networks:
            wait_in_order(self.lab, conf, deadline_s)
        living = {name: each for name, each in self.boxes.items() if name not in lost}
        for conf in self.networks:
            those = {name: box for name, (box, its) in living.items() if its["name"] == conf["name"]}
            wait_until_right(lambda: check_addresses(self.lab, conf, those), deadline_s)  # noqa: B023
            check_reach(those)
        for name in lost:
            box, conf = self.boxes[name]
            answer = self.lab.check(box.host, box, conf, self.results[name])
            assert answer.error_code is not None, f"CHECK of {name} is content"
            wait_until(lambda: not has_carrier(box), deadline_s, f"{name} is cut off")  # noqa: B023

    def end(self, *lost: str) -> None:
        """`check`, then DEL of everything: nothing is left on the hosts and in etcd."""
        self.check(*lost)
        for name in list(self.boxes):
            box, conf = self.boxes[name]
            self.lab.delete(box.host, box, conf)
            self.delete(name)
        try:
            wait_until(lambda: lasting(self.lab) == self.before, DEADLINE_S, "nothing is left")
        except AssertionError as failure:
            raise AssertionError("\n".join([str(failure), *diff(self.before, lasting(self.lab))])) from None


def start_all(lab: OverlayLab, config: str) -> None:
    """An agent on each host, all at the same time."""
    with ThreadPoolExecutor(len(lab.agents)) as pool:
        list(pool.map(lambda agent: agent.start(config=config), lab.agents))


def lasting(lab: OverlayLab) -> Snapshot:
    """`OverlayLab.traces`, but what is meant to stay: that a host was once declared dead, for ever, and for a minute
    that an ADD had no answer, which might yet be carried out."""
    stays = ("etcd/fence/", "/pending/")
    return Snapshot({key: value for key, value in lab.traces().items() if not any(each in key for each in stays)})


# -- containers --------------------------------------------------------------------------------------------------------


def wait_until_right(check: Callable[[], None], deadline_s: float) -> None:
    """Until *check* asserts nothing any more: what a host was to give back may come late."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise


def check_addresses(lab: OverlayLab, conf: Conf, boxes: dict[str, Container]) -> None:
    """No address is in two containers; each container's are its own in etcd, and etcd has no others."""
    network, said = conf["name"], lab.keys()
    holders: dict[str, str] = {}
    for name, box in boxes.items():
        for text in box.addresses("eth0"):
            address = str(ip_interface(text).ip)
            assert address not in holders, f"{address} is in {name} and in {holders[address]}"
            holders[address] = name
    assert len(holders) == sum(len(conf["ipam"]["ranges"]) for _ in boxes), holders
    if conf["mode"] == "l2":
        _check_endpoints(lab, network, said, boxes, holders)
        return
    blocks = {}
    for key, kv in said.items():
        if key.startswith(f"block/{network}/") and not key.endswith("/length"):
            first, _, length = key.split("/")[3].partition("-")
            blocks[ip_network(f"{address_of_key(first)}/{length}")] = value_of(kv)["node"]
    assert not [(one, two) for one in blocks for two in blocks if one != two and one.overlaps(two)]
    for address, name in holders.items():
        owners = [node for block, node in blocks.items() if ip_address(address) in block]
        assert owners == [lab.node(boxes[name].host)], (address, name, owners)


def _check_endpoints(
    lab: OverlayLab, network: str, said: dict[str, KeyValue], boxes: dict[str, Container], holders: dict[str, str]
) -> None:
    nodes = {lab.node(host): host for host in lab.hosts}
    of_network = {key: value_of(kv) for key, kv in said.items() if key.startswith(f"ep/{network}/")}
    endpoints = {address_of_key(key.split("/")[3]): each for key, each in of_network.items()}
    taken = {address: each["container"] for address, each in endpoints.items()}
    assert taken == holders, f"etcd and containers differ: {set(taken.items()) ^ set(holders.items())}"
    owned: dict[str, str] = {}
    for key, kv in said.items():
        kind, node, part, its, *rest = [*key.split("/"), "", "", ""]
        if (kind, part, its) == ("own", "ep", network):
            for address in value_of(kv)["ips"]:
                assert address not in owned, f"{address} twice: {key}"
                owned[address] = node
                assert endpoints[address]["container"] == rest[0], key
    for address, each in endpoints.items():
        box = boxes[each["container"]]
        assert nodes[each["node"]] is box.host, each
        assert owned.get(address) == each["node"], f"{address} is no host's own"
        assert box.ip_json("link", "show", "eth0")[0]["address"] == each["mac"]


def check_reach(boxes: dict[str, Container]) -> None:
    """One container of each host gets an answer of every other container, over IPv4 and IPv6."""
    sources = {box.host.name: box for box in boxes.values()}
    targets = [(name, str(ip_interface(text).ip)) for name, box in boxes.items() for text in box.addresses("eth0")]

    def silent(source: Container) -> list[str]:
        tried = [(name, address) for name, address in targets if boxes[name] is not source]
        lost = [each for each in tried if not can_ping(source, each[1], deadline_s=REACH_S)]
        return [f"{source.name} of {source.host.name} does not reach {name} at {address}" for name, address in lost]

    with ThreadPoolExecutor(len(sources) or 1) as pool:
        found = [line for lines in pool.map(silent, sources.values()) for line in lines]
    assert not found, found


def has_carrier(box: Namespace) -> bool:
    """Whether the host's end of the container's interface is up."""
    return bool(box.ip_json("link", "show", "eth0")[0]["operstate"] == "UP")


def address_in(box: Namespace, family: int = 4) -> str:
    """The address of *box* of that family, as its kernel says."""
    found = [ip_interface(each).ip for each in box.addresses("eth0")]
    return str(next(each for each in found if each.version == family))


@dataclass
class Pings:
    """Echo requests of a running ping. lost: before the last one that was answered; longest_ms: of one answer."""

    sent: int = 0
    answered: int = 0
    lost: tuple[int, ...] = ()
    longest_ms: float = 0.0


@contextmanager
def traffic(source: Namespace, target: str) -> Iterator[Pings]:
    """50 packets a second meanwhile, none of which may be lost."""
    pings = Pings()
    with tempfile.TemporaryFile("w+") as output:
        process = source.popen(["ping", "-n", "-i", "0.02", target], stdout=output)
        yield pings
        process.send_signal(signal.SIGINT)
        process.wait(10)
        output.seek(0)
        text = output.read()
    found = re.findall(r"bytes from .*icmp_seq=(\d+) .*time=([0-9.]+) ms", text)
    numbers = {int(number) for number, _ in found}
    pings.sent = int(re.findall(r"(\d+) packets transmitted", text)[0])
    pings.answered = len(numbers)
    pings.lost = tuple(sorted(set(range(1, max(numbers, default=1))) - numbers))
    pings.longest_ms = max((float(time) for _, time in found), default=0.0)
    assert not pings.lost, f"{source.name}: {len(pings.lost)} of {pings.sent} lost: {pings.lost[:10]}"
    assert pings.sent - max(numbers, default=0) <= 3, text[-500:]  # on their way at the end
    assert pings.answered > 5, text


def fixed(conf: Conf, *addresses: str) -> Conf:
    return {**conf, "args": {"cni": {"ips": list(addresses)}}}


def takes_part(lab: OverlayLab, host: Host) -> bool:
    """Whether *host* is a member of the network again, after it was declared dead."""
    said, node = lab.keys(), lab.node(host)
    member, fence = said.get(f"member/{node}/net"), said[f"fence/{node}"]
    return member is not None and member.mod_revision > fence.mod_revision


def logged(agent: AgentHost, event: str) -> list[dict[str, Any]]:
    """As `AgentHost.logged`, also beside words that are no JSON."""
    lines = [json.loads(line) for line in agent.logs.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def attempt(lab: OverlayLab, host: Host, name: str, conf: Conf) -> CniRun:
    """An ADD that may fail, for a container that is there or made."""
    box = host.containers.get(name) or host.container(name)
    return lab.call("ADD", host, box, conf)
