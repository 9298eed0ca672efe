"""Every key below a cluster's prefix: how it is named, and how it is read back. Pure. (`records` has the values.)

docs/etcd-schema.md is both in words. All keys are below `<prefix>/v1/`. Addresses are in keys as hexadecimal of full
length behind their family, so that the order of keys is that of numbers.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from pycni.cni.errors import CniError, Code, shown
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycni.cni.addresses import Address, Network
    from pycni.etcd.requests import KeyValue

VERSION = 1
_BITS = {4: 32, 6: 128}


class SchemaError(CniError):
    """A key or value that is not of this schema; the sentence names the key where it is known."""

    def __init__(self, msg: str) -> None:
        super().__init__(Code.IO, msg, "`pycni etcd check` lists everything that is damaged")


class Keys(Value):
    """The keys of one cluster. prefix: as in the configuration, without a slash at its end."""

    prefix: str

    @property
    def base(self) -> str:
        return f"{self.prefix}/v{VERSION}/"

    # -- the cluster: written by whoever manages networks --------------------------------------------------------------

    @property
    def networks(self) -> str:
        return f"{self.base}net/"

    def network(self, name: str) -> str:
        return f"{self.networks}{name}"

    @property
    def fences(self) -> str:
        return f"{self.base}fence/"

    @property
    def vnis(self) -> str:
        return f"{self.base}vni/"

    def vni(self, number: int) -> str:
        return f"{self.vnis}{number:08}"

    def fence(self, node: str) -> str:
        return f"{self.fences}{node}"

    # -- what hosts compete for: written by all of them, never over what is there --------------------------------------

    @property
    def all_endpoints(self) -> str:
        return f"{self.base}ep/"

    def endpoints(self, network: str, version: int = 0) -> str:
        """The prefix of a network's endpoints, or of those of one family."""
        return f"{self.all_endpoints}{network}/{f'{version}/' if version else ''}"

    def endpoint(self, network: str, address: Address) -> str:
        return f"{self.endpoints(network, address.version)}{hexadecimal(address)}"

    def endpoint_range(self, network: str, version: int, first: int, last: int) -> tuple[str, str]:
        """First key and the key behind the last of addresses first..last, as ranges are asked for."""
        digits = _BITS[version] // 4
        prefix = self.endpoints(network, version)
        return f"{prefix}{first:0{digits}x}", f"{prefix}{last:0{digits}x}\0"

    def blocks(self, network: str) -> str:
        return f"{self.base}block/{network}/"

    def block(self, network: str, block: Network) -> str:
        address = block.network_address
        return f"{self.blocks(network)}{address.version}/{hexadecimal(address)}-{block.prefixlen}"

    def block_length(self, network: str, version: int) -> str:
        """The key that says how long the blocks of a network and family are."""
        return f"{self.blocks(network)}{version}/length"

    def block_range(self, network: str, version: int, first: int, last: int) -> tuple[str, str]:
        """As `endpoint_range`, for blocks that begin at addresses first..last."""
        digits = _BITS[version] // 4
        prefix = f"{self.blocks(network)}{version}/"
        return f"{prefix}{first:0{digits}x}", f"{prefix}{last:0{digits}x}."  # "." is behind "-"

    def vtep(self, address: Address) -> str:
        return f"{self.base}vtep/{address.version}/{hexadecimal(address)}"

    # -- what every host follows ---------------------------------------------------------------------------------------

    @property
    def shared(self) -> tuple[str, str]:
        """What an agent keeps a copy of, as one range: its first key, and the first one behind it. Those are the kinds
        block, ep, fence, member, net and node; own, sync, vni and vtep sort behind them."""
        return f"{self.base}block/", f"{self.base}own/"

    # -- a host's own: written by nobody else --------------------------------------------------------------------------

    @property
    def all_members(self) -> str:
        return f"{self.base}member/"

    def members(self, node: str) -> str:
        """The prefix of what says in which networks *node* takes part."""
        return f"{self.all_members}{node}/"

    def member(self, node: str, network: str) -> str:
        return f"{self.members(node)}{network}"

    @property
    def syncs(self) -> str:
        return f"{self.base}sync/"

    def sync(self, node: str) -> str:
        return f"{self.syncs}{node}"

    @property
    def nodes(self) -> str:
        return f"{self.base}node/"

    def node(self, node: str) -> str:
        return f"{self.nodes}{node}"

    def own(self, node: str) -> str:
        """The prefix of all that says what *node* has taken."""
        return f"{self.base}own/{node}/"

    def own_endpoints(self, node: str, network: str = "") -> str:
        return f"{self.own(node)}ep/{f'{network}/' if network else ''}"

    def own_endpoint(self, node: str, network: str, container_id: str, ifname: str) -> str:
        return f"{self.own_endpoints(node, network)}{container_id}/{ifname}"

    def own_blocks(self, node: str, network: str) -> str:
        return f"{self.own(node)}block/{network}"

    # -- back ----------------------------------------------------------------------------------------------------------

    def parse(self, key: str) -> tuple[str, ...]:
        """The kind of *key* and its parts: ("net", name), ("vni", number), ("fence", node), ("ep", network, address),
        ("block", network, block), ("block", network, family, "length"), ("vtep", address), ("node", node),
        ("member", node, network), ("sync", node), ("own-ep", node, network, container id, ifname),
        ("own-block", node, network). SchemaError for a key that is none of these.
        """
        if not key.startswith(self.base):
            raise SchemaError(f"{key} is not below {self.base}")
        kind, *parts = key[len(self.base) :].split("/")
        if kind == "own" and len(parts) > 2:
            kind, parts = f"own-{parts[1]}", [parts[0], *parts[2:]]
        if len(parts) != _PARTS.get(kind) or not all(parts):
            raise SchemaError(f"{key} is no key of this schema")
        try:
            if kind == "ep":
                return kind, parts[0], str(_address(parts[1], parts[2]))
            if kind == "vtep":
                return kind, str(_address(*parts))
            if kind == "block" and parts[1] in ("4", "6") and parts[2] == "length":
                return kind, *parts
            if kind == "block":
                digits, _, length = parts[2].partition("-")
                block = ip_network(f"{_address(parts[1], digits)}/{length}")
                if length != str(block.prefixlen):
                    raise ValueError(f"{shown(length)} is no prefix length")
                return kind, parts[0], str(block)
        except ValueError as exc:
            raise SchemaError(f"{key} is no key of this schema: {exc}") from None
        return kind, *parts

    def understood(self, found: Iterable[KeyValue]) -> Iterator[tuple[tuple[str, ...], KeyValue]]:
        """*found* with what `parse` says of each; without those that are none of these keys."""
        for kv in found:
            try:
                yield self.parse(kv.key), kv
            except SchemaError:
                continue  # `pycni etcd check` names it


#: Of each kind the number of parts between slashes behind it.
_PARTS = {"net": 1, "vni": 1, "fence": 1, "ep": 3, "block": 3, "vtep": 2, "node": 1, "member": 2, "sync": 1} | {
    "own-ep": 4,
    "own-block": 2,
}


def hexadecimal(address: Address) -> str:
    return f"{int(address):0{_BITS[address.version] // 4}x}"


def number_of(key: str) -> int:
    """The address in the key of an endpoint, or the first one of the block in the key of one; -1 in no such key."""
    try:
        return int(key.rpartition("/")[2].partition("-")[0], 16)
    except ValueError:
        return -1


def _address(version: str, digits: str) -> Address:
    if version in ("4", "6") and len(digits) == _BITS[int(version)] // 4:
        number = int(digits, 16)
        address = IPv4Address(number) if version == "4" else IPv6Address(number)
        if hexadecimal(address) == digits:  # int() takes more: signs, blanks, underscores
            return address
    raise ValueError(f"{shown(digits)} is no address of family {shown(version)}")
