"""What the tests of the agent's following ask: does each kernel hold what etcd says, and did it ever lack any of it?"""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from netns_fixtures import Host, Namespace, wait_until
from pycni.etcd.schema import Keys
from pycni.host.forwarding import read_entries
from pycni.host.link_events import Change, LinkEvents
from pycni.host.rtnl import Netlink
from pycni.host.tunnel_guard import read_peers
from pycni.plugins.overlay.peers import PeerTable
from tests.kernel.agent_lab import AgentHost
from tests.overlay.overlay_lab import PREFIX, OverlayLab

#: Leases that end quickly, and no comparison but those that something asks for.
CONFIG = "node_ttl_s = 2\nreconcile_s = 0\n"


def start(lab: OverlayLab, config: str = CONFIG) -> None:
    for agent in lab.agents:
        agent.start(config=config)


def is_in_step(lab: OverlayLab, host: Host, network: str = "net", mode: str = "l2", asker: Host | None = None) -> bool:
    """Whether the kernel of *host* has all that etcd says and nothing else: entries, and whom packets are taken of.

    asker: who asks etcd, the first host unless given.
    """
    keys = Keys(PREFIX)
    table = PeerTable(lab.node(host), network, mode, lab.tunnel_address(host))
    table.change(keys.understood(lab.keys(asker).values()))
    devices = lab.devices(host)
    if len(devices) != 1:
        return False

    def look() -> bool:
        with Netlink() as netlink:
            entries = read_entries(netlink, devices[0])
        return entries == table.wanted() and read_peers(4789, int(devices[0].removeprefix("vxlan"))) == table.vteps()

    return host.in_namespace(look)


def wait_in_step(lab: OverlayLab, *hosts: Host, deadline_s: float = 5.0, mode: str = "l2") -> None:
    for host in hosts or lab.hosts:
        wait_until(lambda: is_in_step(lab, host, mode=mode), deadline_s, f"{host.name} holds what etcd says")  # noqa: B023


@contextmanager
def watched(host: Host) -> Iterator[list[Change]]:
    """What the kernel of *host* told of links, addresses and entries meanwhile; filled in at the end."""
    events = host.in_namespace(LinkEvents)
    seen: list[Change] = []
    try:
        yield seen
        while batch := events.read():
            seen += batch
    finally:
        events.close()


def events_of(agent: AgentHost, event: str) -> list[str]:
    """The messages of an agent's events of that name, or what else they say."""
    return [str(line.get("msg", line)) for line in agent.logged(event)]


@contextmanager
def without_etcd(lab: OverlayLab, host: Host) -> Iterator[None]:
    """*host* hears nothing of etcd meanwhile, and of everybody else as before."""
    store = lab.segment.address(lab.segment.hosts[-1])
    cut = f"table inet cut {{ chain in {{ type filter hook input priority -9; ip saddr {store} drop; }}; }}"
    host.run(["nft", "-f", "-"], input=cut)
    yield
    host.run(["nft", "delete", "table", "inet", "cut"])


@contextmanager
def pinging(source: Namespace, target: str) -> Iterator[None]:
    """50 packets a second meanwhile; all but those on their way at the end are answered."""
    with tempfile.TemporaryFile("w+") as output:
        process = source.popen(["ping", "-n", "-i", "0.02", target], stdout=output)
        yield
        process.send_signal(signal.SIGINT)
        process.wait(10)
        output.seek(0)
        text = output.read()
    sent, received = map(int, re.findall(r"(\d+) (?:packets transmitted|received)", text))
    assert received > 5, text
    assert sent - received <= 2, text[-500:]
