"""What etcd says about an overlay network of this host, asked for as a trace needs it: by key, not as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TypeVar

from pycni.cli.trace.facts import ELSEWHERE, End, FarFacts
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.overview import HostView, overview
from pycni.etcd.records import Block, Endpoint
from pycni.etcd.requests import KeyValue
from pycni.etcd.schema import Keys, SchemaError
from pycni.plugins.overlay.conf import ROUTED
from pycni.plugins.overlay.site import Joined

T = TypeVar("T")
Address = IPv4Address | IPv6Address


class Cluster:
    """The etcd of the network *joined*. silent: why it gives no answer, "" while it does; then it is asked no more."""

    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self.keys = Keys(joined.prefix)
        self.silent = ""

    def endpoint(self, address: Address) -> Endpoint | None:
        """Who has *address*."""
        found = self._read(lambda client: client.get(self.keys.endpoint(self.joined.network, address)))
        return _endpoint(found) if found is not None else None

    def endpoints(self) -> Iterator[End]:
        """All containers of the network, one for each interface: reads every record."""
        found = self._read(lambda client: client.read(self.keys.endpoints(self.joined.network)).found)
        told: set[tuple[str, str]] = set()
        for record in filter(None, map(_endpoint, found or ())):
            if (record.container, record.ifname) not in told:
                told.add((record.container, record.ifname))
                yield End(ELSEWHERE, self.joined.network, record.container, record.ifname, record.ips, record.node)

    def blocks(self) -> Iterator[tuple[str, str]]:
        """Block and host of every block of the network."""
        found = self._read(lambda client: client.read(self.keys.blocks(self.joined.network)).found)
        for kv in found or ():
            try:
                parts = self.keys.parse(kv.key)
                if len(parts) == 3:
                    yield parts[2], Block.parse(kv.value, kv.key).node
            except SchemaError:
                continue  # `pycni etcd check` names it

    def host(self, node: str, *addresses: Address) -> HostView | None:
        """*node* as a host of the network, as far as *addresses* matter: whether it knows of them, for example."""
        keys, network = self.keys, self.joined.network
        names = [keys.network(network), keys.member(node, network), keys.node(node), keys.sync(node), keys.fence(node)]
        names += [keys.endpoint(network, address) for address in addresses]
        answer = self._read(lambda client: client.txn(requests.txn([], [requests.get(name) for name in names])))
        if answer is None:
            return None
        found = [kv for part in answer.parts for kv in part.found]
        views = [host for view in overview(keys, found) for host in view.hosts if host.node == node]
        return views[0] if views else None

    def far(self, end: End, address: Address, other: Address) -> FarFacts:
        """The host of *end*, which has *address* and exchanges packets with *other*."""
        view = self.host(end.node, other)
        endpoint = self.endpoint(address)
        if view is None or self.silent:
            return FarFacts(end.node, silent=self.silent)
        routed = self.joined.mode == ROUTED
        block = next((block for block, _ in self.blocks() if address in ip_network(block)), "") if routed else ""
        return FarFacts(
            node=end.node,
            name=view.name,
            vtep=view.vtep,
            mac=view.mac if routed else endpoint.mac if endpoint is not None else "",
            mtu=view.mtu,
            state=view.state,
            missing=view.missing,
            block=block,
            problems=view.problems,
        )

    def _read(self, question: Callable[[Client], T]) -> T | None:
        if self.silent:
            return None
        try:
            conf = EtcdConf.parse(ConfKeys(json.loads(self.joined.connection), "etcd"))
            with open_client(conf) as client:
                return question(client)
        except CniError as failure:
            self.silent = failure.msg
            return None


def _endpoint(kv: KeyValue) -> Endpoint | None:
    try:
        return Endpoint.parse(kv.value, kv.key)
    except SchemaError:
        return None
