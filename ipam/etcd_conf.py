"""The `etcd` object inside `ipam` as a value: docs/etcd.md has every key. Pure; refusals are CniError 7."""

from __future__ import annotations

from pycni.cni.addresses import parse_mac
from pycni.cni.macs import endpoint_mac
from pycni.cni.value import Value
from pycni.etcd.conf import EtcdConf
from pycni.etcd.space import Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.addresses import Address
    from pycni.cni.conf import Keys, NetConf
    from pycni.ipam.ranges import RangeSet

KEY = "etcd"
DERIVED = "derived"
DEFAULT_BLOCK = {4: 26, 6: 122}  # 64 addresses
LONGEST_BLOCK = {4: 30, 6: 126}  # four addresses: network, gateway, a container, broadcast


class EtcdIpam(Value):
    """connection: how to reach etcd. blocks: of each family the prefix length of a host's blocks; empty where every
    address is taken by itself. mac: what is recorded with an address: nothing, DERIVED (from it), or this MAC."""

    connection: EtcdConf
    blocks: tuple[tuple[int, int], ...] = ()
    mac: str = ""

    def mac_of(self, ips: Sequence[Address]) -> str:
        """The MAC to record with *ips*, in the form of `aa:bb:…`; "" for none."""
        return endpoint_mac(ips).hex(":") if self.mac == DERIVED else self.mac

    @property
    def pool(self) -> str:
        """What names the pool in this host's own store, together with the network: a data directory that no file is."""
        return pool_of(self.connection.prefix)


def pool_of(prefix: str) -> str:
    return f"etcd:{prefix}"


def uses_etcd(conf: NetConf) -> bool:
    return conf.ipam.has(KEY)


def parse_etcd(conf: NetConf) -> EtcdIpam:
    """The checked object; CniError 7."""
    keys = conf.ipam.object(KEY)
    return EtcdIpam(EtcdConf.parse(keys), _blocks(keys), _mac(keys))


def _mac(keys: Keys) -> str:
    text = keys.text("mac")
    try:
        return parse_mac(text).hex(":") if text and text != DERIVED else text
    except ValueError as exc:
        raise keys.wrong("mac", f'is neither "{DERIVED}" nor a MAC: {exc}') from None


def _blocks(keys: Keys) -> tuple[tuple[int, int], ...]:
    if not keys.has("blocks"):
        return ()
    inner = keys.object("blocks")
    found = []
    for version, name in ((4, "ipv4"), (6, "ipv6")):
        length = inner.integer(name, 8, LONGEST_BLOCK[version])
        found.append((version, length or DEFAULT_BLOCK[version]))
    return tuple(found)


def space_of(ranges: RangeSet) -> Space:
    return Space(ranges.version, tuple(sorted((first, last) for _, first, last in ranges.pieces)))
