"""Operations: each is one thing asked of the kernel, as a value.

Ensure… is shared by all attachments: it is a no-op where the thing is already so, and only a failed ADD that made it,
with nobody else on it, takes it back. Create… is owned by one attachment and goes with it. What an operation finds
when it runs decides its inverse, so the executor (pycni.host.apply) returns the inverse of each it did.
`where` says whose namespace: HOST or CONTAINER.
"""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Address
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.result import Route
    from pycni.firewall.rules import AttachmentRules, NetworkRules

HOST = "host"
CONTAINER = "container"


class Op(Value):
    """Base of all operations."""


class EnsureBridge(Op):
    """A bridge of that name, up. `mac` (6 bytes) and `mtu` (bytes, 0: kernel's default) count at creation only."""

    name: str
    mac: bytes
    mtu: int
    alias: str
    vlan_filtering: bool = False
    promiscuous: bool = False


class DeleteBridge(Op):
    """Takes back an EnsureBridge that created it: only while no port is on it."""

    name: str


class SetPromiscuous(Op):
    name: str
    on: bool


class EnsureVlanGateway(Op):
    """The veth pair whose host end `name` carries the gateway addresses of one VLAN of the bridge."""

    bridge: str
    name: str
    vlan: int
    mtu: int
    alias: str

    @property
    def port(self) -> str:
        """The other end of the pair, on the bridge."""
        return f"v{self.name}"[:15]

    @property
    def port_vlans(self) -> SetPortVlans:
        """What makes that end an untagged port of the VLAN."""
        return SetPortVlans(self.port, self.vlan, (), keep_default=False)


class EnsureAddress(Op):
    """An address of the host on a shared interface; IPv6 without duplicate address detection."""

    link: str
    address: AddressWithPrefix


class RemoveAddress(Op):
    link: str
    address: AddressWithPrefix


class EnsureSysctl(Op):
    """A sysctl of the host; `optional`: a kernel without that key (IPv6 off, say) is fine, or a read-only /proc/sys."""

    key: str
    value: str
    optional: bool = False


class CreateVeth(Op):
    """The attachment's veth pair, its peer born inside the container's namespace, the host end enslaved; both down."""

    host: str
    ifname: str
    bridge: str  # "": not a bridge port
    mtu: int  # bytes; 0: kernel's default
    mac: bytes  # of the container's end; b"": the kernel's choice
    alias: str


class DeleteLink(Op):
    """Owned link of the host; already gone is fine."""

    name: str


class SetPort(Op):
    """Flags of a bridge port; None leaves one as it is."""

    link: str
    hairpin: bool | None
    isolated: bool | None


class SetPortVlans(Op):
    """The VLANs of a bridge port: `native` is untagged and PVID (0: none), `trunk` are tagged ranges (low, high)."""

    link: str
    native: int
    trunk: tuple[tuple[int, int], ...]
    keep_default: bool  # leave VLAN 1, which the kernel gives every port


class SetSysctl(Op):
    where: str
    key: str
    value: str
    optional: bool = False


class AddAddress(Op):
    """An address of the container, or of a link of the host that the attachment owns.

    `dad`: run duplicate address detection (IPv6); `on_link`: its subnet is reached through the link directly.
    """

    link: str
    address: AddressWithPrefix
    dad: bool = False
    where: str = CONTAINER
    on_link: bool = True


class SetUp(Op):
    """`arp_notify`: from now on the kernel announces the link's IPv4 addresses when they or its MAC change."""

    where: str
    link: str
    arp_notify: bool = False


class AddRoute(Op):
    """A route through `link`; route.gw None: on-link. `src`: the address to send from, None: the kernel's choice."""

    link: str
    route: Route
    where: str = CONTAINER
    src: Address | None = None


class AwaitDad(Op):
    """Wait until no IPv6 address of the container's link is tentative; CniError where one is a duplicate."""

    link: str


class AwaitUp(Op):
    """Wait until a link of the host passes packets on: until then it has no queue to put them in."""

    link: str


class AwaitPort(Op):
    """Wait until the bridge forwards for this port: what is sent before is lost."""

    link: str


class ForgetNeighbours(Op):
    """Drop the host's ARP/ND entries of addresses that had another MAC a moment ago."""

    link: str
    addresses: tuple[Address, ...]


class Announce(Op):
    """Gratuitous ARP and unsolicited neighbour advertisements from the container."""

    link: str
    addresses: tuple[Address, ...]


class ApplyFirewall(Op):
    """The attachment's elements, and its network's where they are missing. Its owner takes them back (see attach.py):
    only it knows, under the store's lock, whether others of the network stay."""

    network: NetworkRules
    attachment: AttachmentRules


def no_ipv6(port: str) -> Op:
    """Before a bridge's *port* comes up. It never receives by itself, so an IPv6 address of its own is of no use; but
    each port's are four routes, and the kernel walks all of the host's whenever a link comes or goes: 2 ms next to 1000
    ports. And without its bridge it would listen to router advertisements of a container with NET_RAW (CVE-2020-13401).
    """
    return EnsureSysctl(f"net/ipv6/conf/{port}/disable_ipv6", "1", optional=True)


def announce_changes(link: str) -> Op:
    """From now on the kernel announces the link's IPv6 addresses when its MAC changes (those of IPv4: SetUp). When the
    link has come up, which it would announce as well, to every port of the bridge."""
    return SetSysctl(CONTAINER, f"net/ipv6/conf/{link}/ndisc_notify", "1", optional=True)
