"""The links that containers share: whoever deletes or changes them, the agent brings them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import Container, Host, Outside, can_ping, wait_until
from pycni.host import bridge_events
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.agent_load import Load
from tests.kernel.bridge_lab import Conf, Lab, address_of, network
from tests.kernel.test_agent_reconcile import ON_NOTICE, RESTORED_WITHIN_S, delete_in_progress

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")


@pytest.fixture
def lab(host: Host, asking: Path) -> Lab:
    """A host whose plugins ask the agent."""
    return Lab(host, asking)


def attach(lab: Lab, conf: Conf, *containers: Container) -> list[Conf]:
    return [lab.add(conf, each) for each in containers]


def works(lab: Lab, conf: Conf, containers: list[Container], results: list[Conf]) -> bool:
    """Whether CHECK is content, and the containers reach each other and their gateway."""
    if not all(lab.check(conf, one, result).ok for one, result in zip(containers, results, strict=True)):
        return False
    targets = [*(address_of(results[1], family) for family in (4, 6)), *(ip["gateway"] for ip in results[0]["ips"])]
    return all(can_ping(containers[0], each) for each in targets)


def test_bridge_is_brought_back(
    lab: Lab, agents: AgentHost, outside: Outside, boxes: Callable[[int], list[Container]]
) -> None:
    """Deleted, its addresses flushed, another MAC, together with the packet filter: within a second the host is as it
    was, and IPv4 and IPv6 flow; the log says what it was."""
    agents.start(config=ON_NOTICE)
    containers = boxes(2)
    results = attach(lab, network(), *containers)
    assert works(lab, network(), containers, results)
    before = lab.host.ip_json("-d", "addr", "show", "dev", "cni1")[0]["addr_info"]
    mac = lab.host.ip_json("link", "show", "cni1")[0]["address"]
    for harm in (
        "ip link del cni1",
        "ip addr flush dev cni1",
        "ip addr del 10.1.0.1/24 dev cni1",
        "ip -6 addr del fd00:1::1/64 dev cni1",
        "ip link set cni1 address 02:00:00:00:00:99",
        "nft flush ruleset; ip link del cni1",
    ):
        lab.host.run(["sh", "-c", harm])
        wait_until(lambda: addresses(lab) == {each["local"] for each in before}, RESTORED_WITHIN_S, harm)
        wait_until(lambda: works(lab, network(), containers, results), RESTORED_WITHIN_S, harm)
        assert lab.host.ip_json("link", "show", "cni1")[0]["address"] == mac, harm
        for family in (4, 6):
            assert outside.seen_from(containers[0], family).address == outside.host_address(family), harm
    told = [what for line in agents.logged("reconciled") for what in line["restored"]]
    for what in ("network net: bridge cni1", f"network net: MAC {mac} of cni1", "net/c1/eth0: veth"):
        assert any(each.startswith(what) for each in told), what
    assert agents.ask("reconcile")["restored"] == []


def addresses(lab: Lab) -> set[str]:
    if "cni1" not in lab.host.links():
        return set()
    return {each["local"] for each in lab.host.ip_json("addr", "show", "dev", "cni1")[0]["addr_info"]}


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"vlan": 7, "hairpinMode": True}, marks=pytest.mark.needs("kernel:vlan_filtering")),
        {"portIsolation": True, "mtu": 1300},
        {"promiscMode": True},
    ],
)
def test_settings_of_the_ports(
    lab: Lab, agents: AgentHost, boxes: Callable[[int], list[Container]], keys: Conf
) -> None:
    """Of a bridge with VLANs the filtering, the gateway's pair and the ports' VLANs come back, too; of any bridge the
    ports' flags and the MTU."""
    agents.start(config=ON_NOTICE)
    containers = boxes(2)
    conf = network(**keys)
    results = attach(lab, conf, *containers)
    vlans = lab.host.run(["bridge", "vlan"]).stdout
    before = settings(lab)
    lab.host.ip("link", "del", "cni1")
    wait_until(lambda: "cni1" in lab.host.links(), RESTORED_WITHIN_S)
    wait_until(lambda: lab.host.run(["bridge", "vlan"]).stdout == vlans, RESTORED_WITHIN_S)
    assert settings(lab) == before
    for container, result in zip(containers, results, strict=True):
        assert lab.check(conf, container, result).ok
        wait_until(lambda: can_ping(container, "10.1.0.1") and can_ping(container, "fd00:1::1"), 3.0)  # noqa: B023


def settings(lab: Lab) -> dict[str, object]:
    """Of each link what the configuration decides."""
    found: dict[str, object] = {}
    for link in lab.host.ip_json("-d", "link", "show"):
        port = link.get("linkinfo", {}).get("info_slave_data", {})
        flags = {key: port.get(key) for key in ("hairpin", "isolated", "vlan_default_pvid")}
        filtering = link.get("linkinfo", {}).get("info_data", {}).get("vlan_filtering")
        up = sorted(each for each in link["flags"] if each in ("UP", "PROMISC"))
        found[link["ifname"]] = (link["mtu"], link.get("master"), link.get("ifalias"), flags, filtering, up)
    return found


def test_next_add_was_faster(lab: Lab, agents: AgentHost, boxes: Callable[[int], list[Container]]) -> None:
    """The bridge that an ADD made anew while no agent ran: its former ports are put back; one that somebody took off
    afterwards is not."""
    first, second, third = boxes(3)
    conf = network()
    results = attach(lab, conf, first)
    lab.host.ip("link", "del", "cni1")
    results += attach(lab, conf, second)
    agents.start(config=ON_NOTICE)
    wait_until(lambda: works(lab, conf, [first, second], results), DEADLINE_S)
    (last,) = attach(lab, conf, third)
    port = last["interfaces"][1]["name"]
    lab.host.ip("link", "set", port, "nomaster")
    done = agents.ask("reconcile")
    assert (done["restored"], done["foreign"]) == ([], [f"net/c3/eth0: host link {port} is not on bridge cni1"])


def test_delete_in_progress(
    lab: Lab, agents: AgentHost, plugins: Path, boxes: Callable[[int], list[Container]]
) -> None:
    """While the only container of a bridge is being deleted, and when it has been, a bridge that somebody deletes stays
    away; the DEL ends well."""
    (first,) = boxes(1)
    with delete_in_progress(lab, agents, plugins, first, ON_NOTICE):
        lab.host.ip("link", "del", "cni1")
        assert agents.ask("reconcile")["restored"] == []
    assert agents.ask("reconcile")["restored"] == []
    assert "cni1" not in lab.host.links()


def test_bridge_is_deleted_again_and_again_under_load(host: Host, asking: Path, agents: AgentHost) -> None:
    """While runtimes come and go: whatever an ADD answered, in the end those that are attached are on the bridge, and
    the others have left nothing."""
    agents.start(config=ON_NOTICE + 'log_level = "error"\n')
    load = Load(Lab(host, asking), agents, 12, network())
    with load.runtimes([asking], seed=3, check=False):
        for _ in range(8):
            host.run(["sh", "-c", "ip link del cni1 2>/dev/null || true"])
            agents.ask("reconcile")
    told = load.told[-1]
    agents.ask("reconcile")
    load.assert_exactly(told.attached)
    load.delete_all()


def test_ordinary_calls_are_no_notices(lab: Lab, plugins: Path, boxes: Callable[[int], list[Container]]) -> None:
    """Containers that come and go on a bridge that is there wake nobody: the kernel's filter lets none of it pass. Its
    end does, and the address that somebody takes."""
    first, second = boxes(2)
    standalone = Lab(lab.host, plugins)
    standalone.add(network(), first)
    events = lab.host.in_namespace(bridge_events.listen)
    try:
        standalone.add(network(), second)
        standalone.delete(network(), second)
        assert events.read() == []
        lab.host.ip("addr", "del", "10.1.0.1/24", "dev", "cni1")
        heard = events.read()
        assert heard is not None
        assert [(each.gone, each.address) for each in heard] == [(True, "10.1.0.1")]
        lab.host.ip("link", "del", "cni1")
        heard = events.read()
        assert heard is not None
        assert [each.link.alias for each in heard if each.gone and each.link is not None] == ["pycni net"]
    finally:
        events.close()
