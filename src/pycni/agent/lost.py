"""What somebody took away of the links that containers share: bridges, their addresses, the ports on them. Pure.

It is what the attachments' ADDs did, less what is there. Only what is missing comes back: a link that is down, a
bridge that is another kind of link by now, a port that is on another bridge or was taken off ours have been changed
by somebody who may want them so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Interface
from typing import TYPE_CHECKING, TypeVar

from pycni.change.ops import (
    CreateVeth,
    EnsureAddress,
    EnsureBridge,
    EnsureSysctl,
    EnsureVlanGateway,
    Op,
    SetPort,
    SetPortVlans,
)
from pycni.change.rejoining import JoinBridge, SetMac
from pycni.change.tunnels import EnsureOffload, EnsureVxlan
from pycni.cni.value import Value
from pycni.plugins.bridge.plan import conflicts

if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.host.link_facts import Link

#: Of an ADD's operations those that this looks at.
SHARED = (EnsureBridge, EnsureAddress, EnsureVlanGateway, EnsureVxlan, EnsureOffload, CreateVeth, SetPort, SetPortVlans)
CARRIERS = "bridge", "veth"  # the kinds of links that carry gateways: the latter those of VLANs
IF_OPER_UP = 6  # linux/if.h
T = TypeVar("T", bound=Op)


class Added(Value):
    """An attachment's ADD, planned again: those of SHARED. *sole*: its bridge has one IPv4 address only, but for those
    *beside* it: gateways of the network's other ranges."""

    owner: str
    network: str
    ops: tuple[Op, ...]
    sole: bool = False
    beside: tuple[AddressWithPrefix, ...] = ()


class There(Value):
    """The links of the host by name, and the addresses of those that carry gateways."""

    links: dict[str, Link]
    addresses: dict[str, tuple[AddressWithPrefix, ...]]


class Loss(Value):
    """What is missing, in words, and the operations that bring it back."""

    what: str
    ops: tuple[Op, ...]


def lost(added: Sequence[Added], there: There) -> tuple[Loss, ...]:
    """What is missing of *added*, the oldest first, in the order in which it can come back."""
    # Who has no host link any more is on its way out, or somebody deleted it on purpose: it needs no bridge.
    alive = [each for each in added if any(pair.host in there.links for pair in _of(CreateVeth, each.ops))]
    bridges = dict(_bridges(alive, there))
    devices = list(_devices(alive, there, bridges))
    gateways = dict(_vlan_gateways(alive, there, bridges))
    fresh = {*bridges, *gateways}
    found = [*bridges.values(), *_macs(alive, there), *devices, *gateways.values()]
    return (*found, *_addresses(alive, there, fresh), *_link_locals(alive, there), *_ports(alive, there, bridges))


def _bridges(added: Iterable[Added], there: There) -> Iterator[tuple[str, Loss]]:
    """Those that are gone, by name."""
    done = set()
    for each in added:
        for op in _of(EnsureBridge, each.ops):
            if op.name in there.links or op.name in done:
                continue
            done.add(op.name)
            mtu = _mtu(added, there, op.name) or op.mtu
            quiet = EnsureSysctl(f"net/ipv6/conf/{op.name}/accept_ra", "0", optional=True)
            yield op.name, Loss(f"network {each.network}: bridge {op.name}", (op.replace(mtu=mtu), quiet))


def _macs(added: Sequence[Added], there: There) -> Iterator[Loss]:
    """The MAC of bridges of ours, where it is none that an ADD gave or found."""
    wanted: dict[str, list[tuple[str, EnsureBridge]]] = {}
    for each in added:
        for op in _of(EnsureBridge, each.ops):
            wanted.setdefault(op.name, []).append((each.network, op))
    for name, ops in wanted.items():
        link = there.links.get(name)
        network, op = ops[0]
        if link is None or link.kind != "bridge" or link.alias != op.alias or not link.up or not op.mac:
            continue
        if link.mac not in {each.mac for _, each in ops}:
            addresses = tuple(each.ip for each in there.addresses.get(name, ()))
            yield Loss(f"network {network}: MAC {op.mac.hex(':')} of {name}", (SetMac(name, op.mac, addresses),))


def _devices(added: Iterable[Added], there: There, bridges: dict[str, Loss]) -> Iterator[Loss]:
    """VXLAN devices that nobody follows: gone, or left without their bridge."""
    done = set()
    for each in added:
        offload = tuple(_of(EnsureOffload, each.ops))
        for op in _of(EnsureVxlan, each.ops):
            link = there.links.get(op.name)
            if op.name not in done and (link is None or (op.bridge and _is_left(link, op.bridge, there, bridges))):
                yield Loss(f"network {each.network}: VXLAN device {op.name}", (op, *offload))
            done.add(op.name)


def _vlan_gateways(added: Iterable[Added], there: There, bridges: dict[str, Loss]) -> Iterator[tuple[str, Loss]]:
    done = set()
    for each in added:
        for op in _of(EnsureVlanGateway, each.ops):
            if op.name in done or op.bridge not in {*there.links, *bridges}:
                continue
            done.add(op.name)
            if op.name not in there.links:
                mtu = _mtu(added, there, op.bridge) or op.mtu
                yield (
                    op.name,
                    Loss(f"network {each.network}: gateway {op.name} of VLAN {op.vlan}", (op.replace(mtu=mtu),)),
                )


def _mtu(added: Iterable[Added], there: There, bridge: str) -> int:
    """That of the containers on *bridge*, bytes: what the uplink has by now was not theirs. 0: there is none."""
    ports = (pair.host for each in added for pair in _of(CreateVeth, each.ops) if pair.bridge == bridge)
    return max((there.links[port].mtu for port in ports if port in there.links), default=0)


def _addresses(added: Iterable[Added], there: There, fresh: set[str]) -> Iterator[Loss]:
    """Gateway addresses that are gone, the newest network's first: where there can be one only it is that. Of a link
    that is down the kernel has taken those of IPv6, and they wait until it is up again."""
    present: dict[str, list[AddressWithPrefix]] = {name: list(each) for name, each in there.addresses.items()}
    for each in reversed(list(added)):
        own = {*each.beside, *(op.address for op in _of(EnsureAddress, each.ops))}
        for op in _of(EnsureAddress, each.ops):
            link = there.links.get(op.link)
            if op.link not in fresh and (link is None or not link.up or link.kind not in CARRIERS):
                continue
            on_it = present.setdefault(op.link, [])
            others = [old for old in on_it if old not in own]
            if op.address in on_it or (each.sole and any(conflicts(old, op.address) for old in others)):
                continue
            on_it.append(op.address)
            yield Loss(f"network {each.network}: address {op.address} of {op.link}", (op,))


def _link_locals(added: Iterable[Added], there: There) -> Iterator[Loss]:
    """Without one the host asks for no MAC of what it forwards (ndisc_solicit, ndisc.c). A link that comes up gets its
    own from the kernel, so only of those that are."""
    ops = ((each.network, op) for each in added for op in _of(EnsureAddress, each.ops))
    for name, network in {op.link: network for network, op in ops if op.address.version == 6}.items():
        link = there.links.get(name)
        if link is None or link.kind not in CARRIERS or link.operstate != IF_OPER_UP:
            continue
        if not any(one.version == 6 and one.is_link_local for one in there.addresses[name]):
            address = _link_local(link.mac)
            yield Loss(f"network {network}: address {address} of {name}", (EnsureAddress(name, address),))


def _link_local(mac: bytes) -> IPv6Interface:
    """As the kernel makes it (RFC 4291, appendix A)."""
    return IPv6Interface((b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:], 64))


def _ports(added: Iterable[Added], there: There, bridges: dict[str, Loss]) -> Iterator[Loss]:
    done = set()
    for each in added:
        settings = [op for op in each.ops if isinstance(op, SetPort | SetPortVlans)]
        for pair in _of(CreateVeth, each.ops):
            port = there.links.get(pair.host)
            if port is not None and pair.bridge and _is_left(port, pair.bridge, there, bridges):
                mine = (op for op in settings if op.link == pair.host)
                what = f"{each.owner}: {pair.host} on bridge {pair.bridge}"
                yield Loss(what, (JoinBridge(pair.host, pair.bridge), *mine))
        for gateway in _of(EnsureVlanGateway, each.ops):
            port = there.links.get(gateway.port)
            if gateway.port not in done and port is not None and _is_left(port, gateway.bridge, there, bridges):
                what = f"network {each.network}: {gateway.port} on bridge {gateway.bridge}"
                yield Loss(what, (JoinBridge(gateway.port, gateway.bridge), gateway.port_vlans))
            done.add(gateway.port)


def _is_left(port: Link, bridge: str, there: There, bridges: dict[str, Loss]) -> bool:
    """Whether *port* is on no bridge because the one it was on is gone. One that is there again, made by the next ADD,
    has a larger index than its ports of before (dev_index_reserve, dev.c); off an older one somebody took it."""
    if port.master:
        return False
    link = there.links.get(bridge)
    return bridge in bridges if link is None else link.kind == "bridge" and link.index > port.index


def _of(kind: type[T], ops: Iterable[Op]) -> Iterator[T]:
    return (op for op in ops if isinstance(op, kind))
