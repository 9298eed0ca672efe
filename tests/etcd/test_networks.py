"""Networks of a cluster: each has a number of its own, and is the same for all hosts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns_fixtures import Etcd
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.networks import make_network, remove_network
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys, SchemaError
from tests.etcd.cluster_hosts import ClusterHost
from tests.etcd.place import conf_of, gateway_client, grpc_client, lossy_client


def test_networks_have_numbers_of_their_own(shared: Etcd, prefix: str) -> None:
    """The first to name a network makes it, everybody else gets the same; no VNI is two networks'."""
    keys = Keys(prefix)
    clients = [grpc_client(conf_of(shared)) for _ in range(4)]
    made: dict[int, list[NetworkRecord]] = {}

    def make(at: int) -> None:
        made[at] = [make_network(clients[at], keys, f"n{one}", NetworkRecord(vni=0, mode="l2")) for one in range(3)]

    threads = [threading.Thread(target=make, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = clients[0]
    assert len(made) == 4
    assert made[0] == made[1] == made[2] == made[3]
    numbers = [record.vni for record in made[0]]
    assert len(set(numbers)) == 3
    assert all(4096 <= number < 1 << 24 for number in numbers)
    with pytest.raises(CniError, match="is taken by network n0"):
        make_network(client, keys, "other", NetworkRecord(vni=numbers[0]))
    assert make_network(client, keys, "other", NetworkRecord(vni=77, subnets=("10.4.0.0/16",))).vni == 77
    with pytest.raises(CniError, match=r"10.4.9.0/24 overlaps with 10.4.0.0/16 of network other"):
        make_network(client, keys, "inner", NetworkRecord(vni=0, subnets=("10.4.9.0/24",)))
    client.txn(requests.txn([], [requests.put(f"{keys.endpoints('n0', 4)}0a010002", b"x")]))
    with pytest.raises(CniError, match="n0 is in use"):
        remove_network(client, keys, "n0")
    remove_network(client, keys, "n1")
    remove_network(client, keys, "n1")
    assert make_network(client, keys, "n1", NetworkRecord(vni=0)).vni == numbers[1], "drawn from its name"
    for each in clients:
        each.close()


def test_networks_are_compared(shared: Etcd, prefix: str) -> None:
    """A host whose config differs from the network that is there is told in what; what its config leaves open is taken
    as it is. A network goes when nobody takes part any more."""
    keys = Keys(prefix)
    there = NetworkRecord(vni=5000, mode="l2", subnets=("10.1.0.0/16", "fd00:1::/64"), port=4789)
    with gateway_client(conf_of(shared)) as client:
        assert make_network(client, keys, "blue", there) == there
        assert make_network(client, keys, "blue", NetworkRecord(vni=0)) == there
        assert make_network(client, keys, "blue", there.replace(subnets=there.subnets[::-1])) == there
        assert make_network(client, keys, "blue", NetworkRecord(vni=0), avoid=[5000]) == there
        for wanted, told in (
            (there.replace(vni=5001), "VNI 5001 here, 5000 there"),
            (there.replace(mode="routed", port=8472), "mode routed here, l2 there; port 8472 here, 4789 there"),
            (there.replace(subnets=("10.1.0.0/16",)), "subnets 10.1.0.0/16 here, 10.1.0.0/16, fd00:1::/64 there"),
            (there.replace(mtu=1400), "MTU 1400 here, none there"),
            (there.replace(encrypted=True), "encrypted True here, False there"),
        ):
            with pytest.raises(CniError) as failure:
                make_network(client, keys, "blue", wanted)
            assert failure.value.code == Code.INVALID_CONFIG
            assert told in failure.value.msg
        with pytest.raises(CniError, match="VNI 6000 of network red is another tunnel's on this host"):
            make_network(client, keys, "red", NetworkRecord(vni=6000), avoid=[6000])
        drawn = make_network(client, keys, "red", NetworkRecord(vni=0)).vni
        remove_network(client, keys, "red")
        assert make_network(client, keys, "red", NetworkRecord(vni=0), avoid=[drawn]).vni != drawn
        host = ClusterHost(client, prefix, "n1", "192.0.2.1")
        host.join("red")
        with pytest.raises(CniError, match=r"network red is in use: n1 \(host ids\)"):
            remove_network(client, keys, "red")
        host.leave("red")
        remove_network(client, keys, "red")


DAMAGED = [b"{", b'{"v": 2, "vni": 99}', b'{"v": 1, "vni": 99, "subnets": ["10.4"]}', b'{"v": 1, "vni": 99e400}']


@pytest.mark.parametrize("value", DAMAGED)
@pytest.mark.parametrize("subnet", ["10.1.0.0/16", "fd00:1::/64"])
def test_records_that_cannot_be_read(shared: Etcd, prefix: str, value: bytes, subnet: str) -> None:
    """A network whose own record is sound does not suffer from another's; one that is to be made is refused, since the
    other may have its subnet. Its own damaged record is no network to take part in. A foreign key is nobody's."""
    keys = Keys(prefix)
    wanted = NetworkRecord(vni=0, mode="l2", subnets=(subnet,))
    with gateway_client(conf_of(shared)) as client:
        client.txn(requests.txn([], [requests.put(f"{keys.networks}a/b", b"{}")]))
        made = make_network(client, keys, "mine", wanted)
        client.txn(requests.txn([], [requests.put(keys.network("other"), value)]))
        assert make_network(client, keys, "mine", wanted) == made
        with pytest.raises(SchemaError, match="network new is not made: what network other has cannot be read"):
            make_network(client, keys, "new", wanted)
        with pytest.raises(SchemaError, match=f"^{keys.network('other')}: "):
            make_network(client, keys, "other", wanted)
        assert client.get(keys.network("new")) is None
        remove_network(client, keys, "mine")


@pytest.mark.parametrize("value", DAMAGED)
def test_a_damaged_network_can_be_removed(shared: Etcd, prefix: str, value: bytes) -> None:
    """With its VNI, which names it, and not while somebody has anything of it."""
    keys = Keys(prefix)
    with gateway_client(conf_of(shared)) as client:
        kept = make_network(client, keys, "kept", NetworkRecord(vni=0))
        vni = make_network(client, keys, "other", NetworkRecord(vni=0)).vni
        endpoint = f"{keys.endpoints('other', 4)}0a010002"
        puts = [requests.put(keys.network("other"), value), requests.put(endpoint, b"x")]
        client.txn(requests.txn([], [*puts, requests.put(keys.vni(7), b"{")]))
        with pytest.raises(CniError, match="other is in use"):
            remove_network(client, keys, "other")
        client.txn(requests.txn([], [requests.delete(endpoint)]))
        remove_network(client, keys, "other")
        assert client.get(keys.network("other")) is None
        left = [kv.key for kv in client.read(keys.vnis).found]
        assert left == [keys.vni(7), keys.vni(kept.vni)]
        assert keys.vni(vni) not in left
        client.txn(requests.txn([], [requests.put(keys.vni(kept.vni), b"{")]))
        remove_network(client, keys, "kept")
        assert [kv.key for kv in client.read(keys.vnis).found] == [keys.vni(7)]


def test_many_hosts_race_for_numbers(shared: Etcd, prefix: str) -> None:
    """Sixteen hosts make networks at once, half of them the same ones, and lose answers: every network has one VNI that
    no other has, and all agree on it."""

    def make(at: int) -> dict[str, int]:
        def one(client: Client, name: str) -> int:
            return make_network(client, Keys(prefix), name, NetworkRecord(vni=0, mode="l2")).vni

        with lossy_client(conf_of(shared), lost=(3, 6) if at % 2 else ()) as client:
            return {name: one(client, name) for name in ("common", f"own{at}", f"pair{at // 2}")}

    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(make, range(16)))
    agreed: dict[str, set[int]] = {}
    for each in told:
        for name, number in each.items():
            agreed.setdefault(name, set()).add(number)
    assert all(len(numbers) == 1 for numbers in agreed.values()), agreed
    assert len(set.union(*agreed.values())) == len(agreed) == 1 + 16 + 8
