"""Hosts take part in networks: one tunnel address is one host's, whatever they do at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from netns_fixtures import Etcd
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.barrier import suspects
from pycni.etcd.members import is_in_place
from pycni.etcd.nodes import declare_dead, read_hosts
from pycni.etcd.records import Member
from pycni.etcd.schema import Keys
from tests.etcd.cluster_hosts import NETWORK, ClusterHost
from tests.etcd.place import conf_of, gateway_client, lossy_client


@pytest.mark.parametrize("vtep", ["192.0.2.1", "2001:db8::1"])
def test_a_host_takes_part(shared: Etcd, prefix: str, vtep: str) -> None:
    """Its record is written once, again when its address or MTU changes, not when only the writer differs, and goes
    with its leaving. The key stays the same one while it takes part."""
    with gateway_client(conf_of(shared)) as client:
        host = ClusterHost(client, prefix, "n1", vtep)
        key = host.keys.member("n1", NETWORK)
        created = host.join(created=5.0)
        first = client.get(key)
        assert first is not None
        assert first.create_revision == first.mod_revision == created
        assert host.join(created=6.0) == created
        assert host.join(agent=False) == created
        assert client.get(key) == first, "the same again writes nothing"
        assert is_in_place(first, 0, host.member())
        assert not is_in_place(first, 0, host.member(mtu=1400))
        assert not is_in_place(first, first.mod_revision + 1, host.member()), "it was declared dead since"
        assert not is_in_place(None, 0, host.member())
        assert host.join(mtu=1400, agent=False, created=7.0) == created
        second = client.get(key)
        assert second is not None
        assert second.mod_revision > created
        assert Member.parse(second.value) == host.member(mtu=1400, created=5.0), (
            "when it joined, and that it has an agent"
        )
        host.leave()
        host.leave()
        assert client.get(key) is None
        assert host.join() > created


def test_a_tunnel_address_is_one_hosts(shared: Etcd, prefix: str) -> None:
    """The second host with it is told who has it, in that network; one that was declared dead is no obstacle, but finds
    its address taken when it returns. A key that is none of ours is nobody's."""
    with gateway_client(conf_of(shared)) as client:
        first, second = (ClusterHost(client, prefix, node, "192.0.2.1") for node in ("n1", "n2"))
        client.txn(requests.txn([], [requests.put(f"{first.keys.all_members}a/b/{NETWORK}", b"{}")]))
        first.join()
        second.join("other")
        with pytest.raises(CniError, match=r"host n1 \(n1\) has 192.0.2.1, .* in network net1") as failure:
            second.join()
        assert failure.value.code == Code.TRY_AGAIN
        assert "pycni etcd forget net1 n1" in failure.value.details
        assert not second.has(second.keys.member("n2", NETWORK))
        third = ClusterHost(client, prefix, "n3", "192.0.2.3")
        third.join()
        third.vtep = "192.0.2.1"
        with pytest.raises(CniError, match="host n1"):
            third.join()
        third.vtep = "192.0.2.3"
        assert third.join() > 0, "it keeps what it had"
        first.fence = declare_dead(client, first.keys, "n1", by="test", now=1.0)
        second.join()
        with pytest.raises(CniError, match="host n2"):
            first.join()


def test_a_host_that_lost_its_agent(shared: Etcd, prefix: str) -> None:
    """Declared dead because nothing was heard of it, it comes back without one, and is missed no more."""
    with gateway_client(conf_of(shared)) as client:
        host = ClusterHost(client, prefix, "n1", "192.0.2.1")
        host.join(created=5.0)
        assert suspects(read_hosts(client, host.keys)) == ("n1",)
        host.fence = declare_dead(client, host.keys, "n1", by="test", now=1.0)
        host.join(agent=False)
        found = client.get(host.keys.member("n1", NETWORK))
        assert found is not None
        assert Member.parse(found.value) == host.member(created=5.0, agent=False)
        assert suspects(read_hosts(client, host.keys)) == ()


def test_many_claim_one_address(shared: Etcd, prefix: str) -> None:
    """Eight hosts with one address join at the same moment, some of their answers being lost: one takes part."""

    def ask(at: int) -> bool:
        with lossy_client(conf_of(shared), lost=(2,) if at % 2 else ()) as client:
            try:
                return ClusterHost(client, prefix, f"n{at}", "192.0.2.1").join() > 0
            except CniError as failure:
                assert "192.0.2.1, the address of this host's tunnels" in failure.msg
                return False

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(8)))
    with gateway_client(conf_of(shared)) as client:
        left = [kv.key for kv in client.read(Keys(prefix).all_members).found]
    assert told.count(True) == 1
    assert left == [Keys(prefix).member(f"n{told.index(True)}", NETWORK)]


def test_an_attempt_that_ended_before_it_looked(shared: Etcd, prefix: str) -> None:
    """A host that wrote its record and was killed before it saw the other's withdraws it the next time; the other one
    goes on as before."""
    with gateway_client(conf_of(shared)) as client:
        first, second = (ClusterHost(client, prefix, node, "192.0.2.1") for node in ("n1", "n2"))
        first.join()
        left = second.keys.member("n2", NETWORK)
        client.txn(requests.txn([], [requests.put(left, second.member().render())]))
        first.join(mtu=1400)
        with pytest.raises(CniError, match="host n1"):
            second.join()
        assert not second.has(left)
        assert first.has(first.keys.member("n1", NETWORK))


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 2, 3)])
def test_answers_that_are_lost(shared: Etcd, prefix: str, lost: tuple[int, ...]) -> None:
    """Whatever request of a joining goes without an answer, the host takes part once, as of its first writing."""
    with lossy_client(conf_of(shared), lost) as client:
        host = ClusterHost(client, prefix, "n1", "192.0.2.1")
        created = host.join()
        found = client.get(host.keys.member("n1", NETWORK))
        assert found is not None
        assert found.create_revision == found.mod_revision == created
