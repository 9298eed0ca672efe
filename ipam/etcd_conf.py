"""The `etcd` object inside `ipam` as a value: docs/etcd.md has every key. Pure; refusals are CniError 7."""

from __future__ import annotations

from pycni.cni.value import Value
from pycni.etcd.conf import EtcdConf
from pycni.etcd.space import Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import Keys, NetConf
    from pycni.ipam.ranges import RangeSet

KEY = "etcd"
DEFAULT_BLOCK = {4: 26, 6: 122}  # 64 addresses
LONGEST_BLOCK = {4: 30, 6: 126}  # four addresses: network, gateway, a container, broadcast


class EtcdIpam(Value):
    """connection: how to reach etcd. blocks: of each family the prefix length of a host's blocks; empty where every
    address is taken by itself."""

    connection: EtcdConf
    blocks: tuple[tuple[int, int], ...] = ()

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
    return EtcdIpam(EtcdConf.parse(keys), _blocks(keys))


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
