"""Many calls at once, and addresses that move between hosts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns_fixtures import Host
from tests.kernel.bridge_lab import address_of
from tests.overlay.overlay_lab import Conf, OverlayLab
from tests.overlay.test_overlay_gateway import GATEWAY


@pytest.mark.parametrize("agents", [False, True])
def test_first_and_last_of_a_network_at_once(overlay: Callable[..., OverlayLab], agents: bool) -> None:
    """Two hosts that have nothing of the network yet attach four containers each at the same moment, and detach them:
    one VNI for all, no address twice, everybody reaches everybody once each host has attached one more, nothing is
    left. By agents, which do it twice, and without."""
    lab = overlay()
    for agent in lab.agents if agents else ():
        agent.start(config="node_ttl_s = 5\n")
    conf = lab.conf(gatewayBridge=GATEWAY)
    before = lab.settle(conf)
    names = [f"c{number}" for number in range(4)]
    boxes = {(host.name, name): host.container(name) for host in lab.hosts for name in names}

    def each(work: Callable[[Host, str], Conf | None]) -> list[Conf | None]:
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(work, host, name) for name in names for host in lab.hosts]
            return [call.result() for call in calls]

    for _ in range(2 if agents else 1):
        results = [result for result in each(lambda host, name: lab.add(host, name, conf)[1]) if result is not None]
        assert len({address_of(result, family) for result in results for family in (4, 6)}) == 16
        assert len({result["interfaces"][3]["name"] for result in results}) == 1
        for host in lab.hosts:
            lab.add(host, "late", conf)
        for result in results[:2]:
            for host in lab.hosts:
                lab.ping(boxes[host.name, "c3"], result)
        for host in lab.hosts:
            lab.delete(host, "late", conf)
        each(lambda host, name: lab.delete(host, name, conf))
    for host in lab.hosts:
        for name in list(host.containers):
            host.containers.pop(name).delete()
    assert lab.traces() == before


def test_an_address_that_moves(overlay: Callable[..., OverlayLab]) -> None:
    """A fixed address goes from h2 to h1; whoever reached it there reaches it here, on both hosts."""
    lab = overlay()
    one, two = lab.hosts
    fixed = lab.conf(runtimeConfig={"ips": ["10.1.7.7/16", "fd00:1::77"]})
    mate, _ = lab.add(one, "mate")
    far, _ = lab.add(two, "far")
    moving, result = lab.add(two, "moving", fixed)
    lab.add(one, "third")
    lab.ping(mate, result)
    lab.ping(far, result)
    lab.delete(two, moving, fixed)
    _, again = lab.add(one, "moved", fixed)
    assert again["ips"] == result["ips"]
    assert again["interfaces"][2]["mac"] == result["interfaces"][2]["mac"]
    lab.ping(mate, again)
    lab.add(two, "fourth")
    lab.ping(far, again)
    assert "10.1.7.7" not in one.run(["ip", "neigh", "show", "dev", again["interfaces"][3]["name"]]).stdout
