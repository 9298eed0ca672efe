"""A port of this host as the destination: which container is behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from pycni.agent.view import Published, Seen, see_ports
from pycni.cli.failure import NOT_FOUND, Failure
from pycni.cli.trace.ends import Found
from pycni.cli.trace.facts import HERE, HOST, End, Packet
from pycni.portmap.holding import Binding
from pycni.store import Store

Address = IPv4Address | IPv6Address


def behind_port(target: Found, seen: Sequence[Seen], store: Store, *, proto: str, port: int) -> tuple[Found, int]:
    """*target* and *port*; where that is an address of this host, the container that the port leads to, and its port.

    Failure where nothing is published there.
    """
    end = target[0]
    if end.place != HOST or not port:
        return target, port
    address = ip_address(end.addresses[0])
    for one in _leading_there(see_ports(store, None, None), address, proto, port):
        owner = one.attachment
        for each in seen:
            mine = each.record.attachment
            if (mine.network, mine.container_id, mine.ifname) == (owner.network, owner.container_id, owner.ifname):
                found = End(HERE, owner.network, owner.container_id, owner.ifname, (one.binding.address,))
                return (found, each), one.binding.target + port - one.binding.port
    raise Failure(
        f"no container has published {proto} port {port} on {address}",
        exit_code=NOT_FOUND,
        code=3,
        next_step="`pycni ports` shows what is published; else it is a service of the host itself",
    )


def packet_behind(packet: Packet, target: End, port: int) -> Packet:
    """*packet*, which is sent to a port of this host, as it reaches *target*, the container that has published that."""
    return packet.replace(
        target=ip_address(target.addresses[0]), port=port, host_address=packet.target, host_port=packet.port
    )


def _leading_there(found: Sequence[Published], address: Address, proto: str, port: int) -> Iterator[Published]:
    for one in found:
        binding = one.binding
        if (
            leads_from(binding, address)
            and binding.proto == proto
            and binding.port <= port < binding.port + binding.count
        ):
            yield one


def leads_from(binding: Binding, address: Address) -> bool:
    """Whether *binding* is on that address of the host."""
    return binding.host_ip in ("", str(address)) and binding.family == address.version
