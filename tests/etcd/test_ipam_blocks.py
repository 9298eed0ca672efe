"""`"blocks"`: each host allocates from blocks of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from netns_fixtures import Etcd
from pycni.cni.errors import CniError, Code
from pycni.etcd.client import Client
from pycni.etcd.nodes import declare_dead, free_behind_barrier
from pycni.etcd.schema import Keys
from tests.etcd.ipam_calls import HostCalls

LIVE = "/proc/self/ns/net"


def block_hosts(etcd: Etcd, path: Path, prefix: str, count: int, subnet: str = "10.1.0.0/26") -> list[HostCalls]:
    hosts = [HostCalls(etcd, path / f"h{at}", prefix, {"subnet": subnet}) for at in range(count)]
    for host in hosts:
        host.keys["blocks"] = {"ipv4": 29}
    return hosts


def blocks_of(host: HostCalls) -> set[str]:
    return {each.split()[2] for each in host.in_etcd() if each.startswith("block ") and "length" not in each}


def test_life_of_a_block(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """The first ADD takes a block, those after it none until it is full; each block has a gateway of its own; GC hands
    back what is empty; a host whose state was lost takes over its own."""
    host, other = block_hosts(shared, tmp_path, prefix, 2)
    ips = [host.add(f"c{at}", netns=LIVE)[0] for at in range(5)]
    (block,) = blocks_of(host)
    assert {ip_interface(ip).network for ip in ips} == {ip_network(block)}
    (sixth,) = host.add("c5", netns=LIVE)
    assert str(ip_interface(sixth).network) in blocks_of(host) - {block}
    assert ip_interface(other.add("c0", netns=LIVE)[0]).network not in (ip_network(block), ip_interface(sixth).network)
    assert len(blocks_of(host)) == 3
    host.check("c1")
    host.status()
    host.delete("c5")
    host.gc([(f"c{at}", "eth0") for at in range(5)])
    assert len(blocks_of(host)) == 2
    assert block in blocks_of(host)
    for path in host.directory.glob("etcd/*/blocks-*"):
        path.unlink()
    host.delete("c0")
    assert ip_interface(host.add("c6", netns=LIVE)[0]).network == ip_network(block)
    assert len(blocks_of(host)) == 2
    host.gc([])
    other.gc([])
    assert blocks_of(host) == set()


def test_eight_hosts_race_for_eight_blocks(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """Each gets one; the ninth is told that all are taken."""
    *hosts, last = block_hosts(shared, tmp_path, prefix, 9)
    with ThreadPoolExecutor(8) as pool:
        ips = [each.result()[0] for each in [pool.submit(host.add, "c1") for host in hosts]]
    assert len({ip_interface(ip).network for ip in ips}) == 8
    with pytest.raises(CniError, match="no block is free") as failure:
        last.add("c1")
    assert failure.value.code == Code.EXHAUSTED
    with pytest.raises(CniError, match="no block is free") as failure:
        last.status()
    assert failure.value.code == Code.NOT_AVAILABLE


def test_etcd_is_down(cluster: Callable[..., Etcd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD, CHECK, DEL and STATUS work from the block that the host has; only a full one needs etcd: code 11, and 50."""
    etcd = cluster()
    (host,) = block_hosts(etcd, tmp_path, "/pycni/test", 1)
    host.add("c0", netns=LIVE)
    etcd.kill()
    monkeypatch.setattr(Client, "patience_s", 0.3)
    for at in range(1, 5):
        host.add(f"c{at}", netns=LIVE)
    host.check("c4")
    with pytest.raises(CniError) as failure:
        host.add("c5")
    assert failure.value.code == Code.TRY_AGAIN
    with pytest.raises(CniError) as failure:
        host.status()
    assert failure.value.code == Code.NOT_AVAILABLE
    host.delete("c4")
    host.status()
    host.add("c5", netns=LIVE)


def test_one_length_for_all_hosts(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """Blocks of two lengths could overlap: the second one is refused, and so is one that does not fit the subnet."""
    host, other = block_hosts(shared, tmp_path, prefix, 2)
    host.add("c0")
    other.keys["blocks"] = {"ipv4": 28}
    with pytest.raises(CniError, match="prefix length 29, not 28") as failure:
        other.add("c0")
    assert failure.value.code == Code.INVALID_CONFIG
    other.keys["blocks"] = {"ipv4": 25}
    with pytest.raises(CniError, match="no room for a block"):
        other.add("c0")


def test_host_that_was_declared_dead_returns(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """Its blocks go to others; when it needs etcd again it learns so, forgets what it had, and takes a new one."""
    host, other = block_hosts(shared, tmp_path, prefix, 2, subnet="10.1.0.0/28")
    ips = [host.add(f"c{at}", netns=LIVE)[0] for at in range(5)]
    with host.client() as client:
        declare_dead(client, Keys(prefix), host.node, by="test", now=1.0)
        assert free_behind_barrier(client, Keys(prefix), host.node, now=9.0, quarantine_s=5.0).count == 1
    taken = [other.add(f"d{at}", netns=LIVE)[0] for at in range(6)]
    assert set(ips) & set(taken)
    with pytest.raises(CniError, match="no block is free"):
        host.add("c5")
    assert host.leased() == {}
    with pytest.raises(CniError) as failure:
        host.check("c0")
    assert failure.value.code == Code.BROKEN


def test_both_families(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """A host has a block of each family, and a container an address of each."""
    (host,) = block_hosts(shared, tmp_path, prefix, 1)
    host.ipam = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
    host.keys["blocks"] = {"ipv4": 29, "ipv6": 125}
    ips = host.add("c0", netns=LIVE)
    assert [ip_interface(ip).network.prefixlen for ip in ips] == [29, 125]
    assert {str(ip_interface(ip).network) for ip in ips} == blocks_of(host)


@pytest.mark.parametrize("subnets", [("10.1.0.0/29", "10.2.0.0/29"), ("fd00:1::/125", "fd00:2::/125")])
def test_status_counts_each_range_set(shared: Etcd, prefix: str, tmp_path: Path, subnets: tuple[str, str]) -> None:
    """Of two range sets of one family each has blocks of its own: STATUS is 50 when those of one are all taken, and not
    when as many are taken in both together."""
    ipam = {"ranges": [[{"subnet": subnet}] for subnet in subnets]}
    hosts = [HostCalls(shared, tmp_path / f"h{at}", prefix, ipam) for at in range(3)]
    for host in hosts:
        host.keys["blocks"] = {"ipv4": 30, "ipv6": 126}
    for at, host in enumerate(hosts[:2]):
        host.status()
        host.add(f"c{at}", netns=LIVE)
    with pytest.raises(CniError, match="no block is free in network net1: 2 are taken") as failure:
        hosts[2].status()
    assert failure.value.code == Code.NOT_AVAILABLE
    hosts[0].delete("c0")
    hosts[0].gc([])
    hosts[2].status()
    hosts[2].add("c2", netns=LIVE)


def test_status_asks_for_what_is_lacking(shared: Etcd, prefix: str, tmp_path: Path) -> None:
    """A range set in which the host has addresses left needs no further block: that none is free there says nothing."""
    excluded = ["10.2.0.2/31", "10.2.0.4/31", "10.2.0.10/31", "10.2.0.12/31"]  # one address is left in each block
    ipam = {"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "10.2.0.0/28"}]], "exclude": excluded}
    host = HostCalls(shared, tmp_path, prefix, ipam)
    host.keys["blocks"] = {"ipv4": 29}
    for at in range(2):
        host.status()
        host.add(f"c{at}", netns=LIVE)
    with pytest.raises(CniError, match="no block is free"):
        host.status()
