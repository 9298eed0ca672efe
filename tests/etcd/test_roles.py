"""The roles of docs/etcd-schema.md, applied to an etcd as the page says: enough for a host, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from netns_fixtures import Etcd, Namespace, needs
from netns_fixtures.etcd_admin import switch_authentication_on
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError, Code
from pycni.etcd import hints, requests
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.gateway import Gateway
from pycni.etcd.grpc_endpoint import GrpcEndpoint
from pycni.etcd.members import join, leave
from pycni.etcd.networks import make_network
from pycni.etcd.nodes import declare_dead, mark_anew
from pycni.etcd.presence import announce, report
from pycni.etcd.records import Member, NetworkRecord, Node, Sync
from pycni.etcd.schema import Keys
from tests.etcd.ipam_calls import HostCalls
from tests.etcd.place import gateway_client, keys_of

PAGE = Path(__file__).parents[2] / "docs" / "etcd-schema.md"
PREFIX = "/pycni/test"
KEYS = Keys(PREFIX)


def recipe(name: str) -> str:
    """The shell lines of the page behind the mark *name*."""
    found = re.search(rf"<!-- test: {name} -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def apply(place: Namespace, etcd: Etcd, name: str, **variables: str) -> None:
    env = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(etcd.endpoints), "PREFIX": PREFIX, **variables}
    if etcd.authority is not None:
        cert, key = etcd.authority.client("root")
        env |= {"ETCDCTL_CACERT": str(etcd.authority.ca), "ETCDCTL_CERT": str(cert), "ETCDCTL_KEY": str(key)}
    place.run(["sh", "-ec", recipe(name)], env=env)


def hosts_with_roles(place: Namespace, etcd: Etcd, path: Path, **credentials: str) -> list[HostCalls]:
    """Two hosts, each with its user; authentication is on."""
    needs("tool:etcdctl")
    apply(place, etcd, "roles")
    hosts = []
    for name, node in (("h1", "1" * 32), ("h2", "2" * 32)):
        directory = path / name
        directory.mkdir()
        (directory / "node").write_text(f"{node}\n")
        host = HostCalls(etcd, directory, PREFIX)
        host.keys = keys_of(etcd, certificate=node, prefix=PREFIX)
        if credentials:
            host.keys |= {"user": node, **credentials}
        apply(place, etcd, "host", NODE=node, PASSWORD=credentials.get("password", "unused"))
        hosts.append(host)
    switch_authentication_on(etcd.members[0], {}, {})
    return hosts


def conf_of_host(host: HostCalls) -> EtcdConf:
    return EtcdConf.parse(ConfKeys(host.keys, "etcd"))


def test_host_writes_only_its_own(cluster: Callable[..., Etcd], place: Namespace, tmp_path: Path) -> None:
    """All of a host's work is allowed to it; another host's records, networks and fences are not."""
    host, other = hosts_with_roles(place, cluster(), tmp_path, password="secret")
    host.add("c1", netns="/proc/self/ns/net")
    other.add("c1", netns="/proc/self/ns/net")
    host.check("c1")
    host.status()
    host.gc()
    host.delete("c1")
    host.ipam = {"subnet": "10.9.0.0/24"}
    host.keys["blocks"] = {"ipv4": 28}
    host.add("c2")
    host.gc([])
    del host.keys["blocks"]
    with gateway_client(conf_of_host(host)) as client:
        record = Node(name="h1", boot="b", pid=1, started=1, vtep4="192.0.2.1")
        lease = client.grant(30)
        announce(client, KEYS, host.node, record, lease, is_former=lambda _: False, sync=Sync(revision=1))
        report(client, KEYS, host.node, Sync(revision=2), lease)
        member = Member(name="h1", vtep="192.0.2.1", mtu=1500, port=4789, agent=True)
        assert isinstance(join(client, KEYS, host.node, 0, "net1", member), int)
        assert len(client.read(KEYS.base).found) > 5
        leave(client, KEYS, host.node, "net1")
        join(client, KEYS, host.node, 0, "net1", member)
        for key in (
            KEYS.node(other.node),
            KEYS.sync(other.node),
            KEYS.member(other.node, "net1"),
            KEYS.own_endpoint(other.node, "net1", "c1", "eth0"),
            KEYS.fence(host.node),
            KEYS.fence(other.node),
            KEYS.network("net1"),
            KEYS.vni(5000),
            "/pycni/other/v1/ep/net1/4/0a010002",
        ):
            for operation in (requests.put(key, b"{}"), requests.delete(key)):
                with pytest.raises(CniError, match="permission denied") as failure:
                    client.txn(requests.txn([], [operation]))
                assert failure.value.code == Code.INVALID_CONFIG
                assert "docs/etcd-schema.md" in failure.value.details
    other.check("c1")
    assert_only_an_operator(host, other)


def assert_only_an_operator(host: HostCalls, other: HostCalls) -> None:
    """Networks are made, and hosts declared dead, by an operator; a host is told that it may not, and goes on."""
    with gateway_client(conf_of_host(host)) as client:
        with pytest.raises(CniError, match="permission denied"):
            make_network(client, KEYS, "net1", NetworkRecord(vni=0))
        with pytest.raises(CniError, match="permission denied"):
            declare_dead(client, KEYS, other.node, by="h1", now=1.0)
    host.keys |= {"user": "root", "password": "root"}
    with gateway_client(conf_of_host(host)) as operator:
        made = make_network(operator, KEYS, "net1", NetworkRecord(vni=0))
        fence = declare_dead(operator, KEYS, other.node, by="h1", now=1.0)
    with gateway_client(conf_of_host(other)) as client:
        assert make_network(client, KEYS, "net1", NetworkRecord(vni=0)) == made
        assert len(mark_anew(client, KEYS, other.node, fence)) == 1
        member = Member(name="h2", vtep="192.0.2.2")
        assert isinstance(join(client, KEYS, other.node, fence, "net1", member, followed=fence), int)


def test_certificate_alone(cluster: Callable[..., Etcd], place: Namespace, tmp_path: Path) -> None:
    """A host whose user is the name in its certificate: the gateway does not pass it on, so the call goes on over
    gRPC by itself."""
    (host, _) = hosts_with_roles(place, cluster(tls=True), tmp_path)
    host.add("c1", netns="/proc/self/ns/net")
    host.check("c1")
    with open_client(conf_of_host(host)) as client:
        assert client.get(KEYS.own_endpoint(host.node, "net1", "c1", "eth0")) is not None
        assert all(isinstance(caller, GrpcEndpoint) for caller in client.callers)
        with pytest.raises(CniError, match="permission denied"):
            client.get("/other")
    host.delete("c1")


def test_token_is_left_for_the_next_call(cluster: Callable[..., Etcd], place: Namespace, tmp_path: Path) -> None:
    """The second call asks for no token, since etcd takes some 60 ms to make one; a void one is replaced."""
    host, _ = hosts_with_roles(place, cluster(), tmp_path, password="secret")
    asked: list[Gateway] = []
    host.status()
    authenticate = Gateway.authenticate

    def counted(self: Gateway, timeout_s: float) -> None:
        asked.append(self)
        authenticate(self, timeout_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gateway, "authenticate", counted)
        host.status()
        assert asked == []
        hints.write_hint(conf_of_host(host), host.etcd.endpoints[0], "void.1")
        host.status()
        assert len(asked) == 1
        host.status()
        assert len(asked) == 1
