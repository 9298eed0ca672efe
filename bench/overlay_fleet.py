"""Many hosts that are only records in etcd: members and endpoints, as agents and plugins of real ones write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

from pycni.cni.macs import endpoint_mac, tunnel_mac
from pycni.etcd import requests
from pycni.etcd.client import Client
from pycni.etcd.records import Endpoint, Member
from pycni.etcd.requests import Request
from pycni.etcd.schema import Keys

BATCH = 100  # operations of one transaction; etcd takes 128 (--max-txn-ops)
FIRST_VTEP = int(IPv4Address("100.64.0.1"))  # RFC 6598: of no network of a test


class Place(NamedTuple):
    """An endpoint of the fleet."""

    address: str
    mac: str
    vtep: str


class Fleet:
    """Hosts 0, 1, … of *network*, each with endpoints from *first* on in order of hosts."""

    def __init__(self, client: Client, keys: Keys, network: str, vni: int, *, first: str) -> None:
        self._client = client
        self._keys = keys
        self._network = network
        self._vni = vni
        self._first = int(ip_address(first))

    def place(self, host: int, number: int, of: int) -> Place:
        """Endpoint *number* of *host*, where each has *of* of them."""
        address = ip_address(self._first + host * of + number)
        return Place(str(address), endpoint_mac([address]).hex(":"), _vtep(host))

    def join(self, hosts: Sequence[int], endpoints: int) -> int:
        """Write all of them; the revision of the last."""
        return self._write(operation for host in hosts for operation in self._of_host(host, endpoints))

    def add(self, place: Place, host: int) -> int:
        return self._write([self._endpoint(place, host)])

    def remove(self, place: Place) -> int:
        return self._write([requests.delete(self._keys.endpoint(self._network, ip_address(place.address)))])

    def leave(self, hosts: Sequence[int], endpoints: int) -> int:
        """Take all of them away again."""
        gone = (
            requests.delete(key)
            for host in hosts
            for key in (
                self._keys.member(_node(host), self._network),
                *(
                    self._keys.endpoint(self._network, ip_address(self.place(host, each, endpoints).address))
                    for each in range(endpoints)
                ),
            )
        )
        return self._write(gone)

    def _of_host(self, host: int, endpoints: int) -> Iterator[Request]:
        node = _node(host)
        mac = tunnel_mac(node, self._vni).hex(":")
        member = Member(f"fleet{host}", _vtep(host), mac, 1500, 4789, agent=True, created=1.0)
        yield requests.put(self._keys.member(node, self._network), member.render())
        for number in range(endpoints):
            yield self._endpoint(self.place(host, number, endpoints), host)

    def _endpoint(self, place: Place, host: int) -> Request:
        record = Endpoint(_node(host), f"c{place.address}", "eth0", (place.address,), place.mac, 1.0)
        return requests.put(self._keys.endpoint(self._network, ip_address(place.address)), record.render())

    def _write(self, operations: Iterator[Request] | Sequence[Request]) -> int:
        batch: list[Request] = []
        revision = 0
        for operation in operations:
            batch.append(operation)
            if len(batch) == BATCH:
                revision = self._client.txn(requests.txn([], batch)).revision
                batch = []
        return self._client.txn(requests.txn([], batch)).revision if batch else revision


def _node(host: int) -> str:
    return f"{host:032x}"


def _vtep(host: int) -> str:
    return str(IPv4Address(FIRST_VTEP + host))
