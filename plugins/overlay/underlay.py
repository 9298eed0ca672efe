"""Where this host's end of the tunnels is: the address that others send to, and the link that has it."""

from __future__ import annotations

from pycni.cni.addresses import parse_address
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.plugins.overlay.site import least_mtu, overhead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycni.cni.addresses import Address
    from pycni.host.rtnl import Link, Netlink
    from pycni.plugins.overlay.conf import OverlayConf

ADVICE = 'name the link with "interface", or the address with "local"'


class Way(Value):
    """local: the tunnel's own end. uplink: the link that has it; mtu: of that link, bytes."""

    local: Address
    uplink: str
    mtu: int

    def tunnel_mtu(self, asked: int, subnets: tuple[str, ...], others: tuple[int, ...] = ()) -> int:
        """The MTU of a network of *subnets* on this host: as *asked*, or the smallest uplink's less the overhead;
        *others*: the MTUs of other hosts' uplinks, of which those count that leave enough. CniError 7 where what is
        asked does not fit, or this host's uplink leaves too little."""
        taken, least = overhead(str(self.local)), least_mtu(subnets)
        room = self.mtu - taken
        if asked > room:
            raise CniError(
                Code.INVALID_CONFIG,
                f"mtu is {asked}: {self.uplink} has {self.mtu}, of which the tunnel takes {taken}",
                f"at most {room}, or leave mtu out",
            )
        if room < least:
            raise CniError(
                Code.INVALID_CONFIG,
                f"{self.uplink} has MTU {self.mtu}, of which the tunnel takes {taken}: the network needs {least}",
                f"raise it to {least + taken}, or use an uplink that has as much",
            )
        return asked or min((room, *(other - taken for other in others if other - taken >= least)))


def find_way(host: Netlink, conf: OverlayConf) -> Way:
    """As `local` or `interface` say, else what this host reaches etcd (in multicast mode: the group) from.

    CniError 7 where there is no such address or link, or none that others could send to.
    """
    way, link = _find(host, conf)
    if link.alias.startswith("pycni "):
        # A gateway's address is the same on every host, and a tunnel inside of itself leads nowhere.
        raise CniError(Code.INVALID_CONFIG, f"{way.local} on {link.name} is of a network of containers", ADVICE)
    return way


def _find(host: Netlink, conf: OverlayConf) -> tuple[Way, Link]:
    if conf.local is not None:
        return _way(host, conf.local)
    if conf.interface:
        link = host.link(conf.interface)
        if link is None:
            raise CniError(Code.INVALID_CONFIG, f"interface {conf.interface} does not exist", ADVICE)
        return _way_of_link(host, link, conf.group.version if conf.group is not None else 0)
    tried = []
    for target in _targets(conf):
        route = host.route_to(target)
        source = route.src if route is not None else None
        link = host.link(route.oif) if route is not None and source is not None else None
        if source is None or link is None:
            tried.append(f"no route to {target}")
        elif not _usable(source):
            tried.append(f"{target} is reached from {source}")
        elif link.name == "lo":  # the target is on this very host
            return _way(host, source)
        else:
            mtu = route.mtu or link.mtu if route is not None else link.mtu
            return Way(local=source, uplink=link.name, mtu=mtu), link
    raise CniError(Code.INVALID_CONFIG, f"no address of this host for the tunnels: {'; '.join(tried)}", ADVICE)


def _targets(conf: OverlayConf) -> Iterator[Address]:
    if conf.group is not None:
        yield conf.group
    for endpoint in conf.etcd.endpoints if conf.etcd is not None else ():
        try:
            yield parse_address(endpoint.host)
        except ValueError:
            yield from _resolved(endpoint.host)


def _resolved(name: str) -> Iterator[Address]:
    import _socket

    try:
        found = _socket.getaddrinfo(name, 0, type=_socket.SOCK_STREAM)
    except OSError as failure:
        raise CniError(Code.TRY_AGAIN, f"etcd's host {name} is not resolved: {failure.strerror}", ADVICE) from failure
    for *_, address in found:
        yield parse_address(str(address[0]).partition("%")[0])


def _way(host: Netlink, local: Address) -> tuple[Way, Link]:
    for each in host.address_facts(0):
        if each.interface.ip == local:
            link = host.link(each.index)
            if link is not None:
                return Way(local=local, uplink=link.name, mtu=link.mtu), link
    raise CniError(Code.INVALID_CONFIG, f"no link of this host has the address {local}", ADVICE)


def _way_of_link(host: Netlink, link: Link, version: int) -> tuple[Way, Link]:
    """The first address of *link*, IPv4 before IPv6."""
    addresses = [one.ip for one in host.addresses(link.index)]
    usable = [one for one in addresses if _usable(one) and version in (0, one.version)]
    if not usable:
        raise CniError(Code.INVALID_CONFIG, f"interface {link.name} has no address for the tunnels", ADVICE)
    return Way(local=min(usable, key=lambda one: one.version), uplink=link.name, mtu=link.mtu), link


def _usable(address: Address) -> bool:
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)
