"""Both ends of a trace through a lab: which host sees which, and at what address. Pure, from the picture of the lab."""

from __future__ import annotations

import ipaddress

from pycni.cni.value import Value
from pycni.lab.errors import USAGE, LabError
from pycni.lab.picture import Picture
from pycni.lab.reaching import addresses_of, family_of, is_address, machines_of, nearest


class End(Value):
    """Where one end of a packet's way is. host: that runs containers, "" for the world beyond (routers and members of
    etcd among it); container: on that host, "" for the host itself; address: without length."""

    host: str
    container: str
    address: str


def ends_of(picture: Picture, source: str, target: str, family: int = 0) -> tuple[End, End]:
    """Of HOST/CONTAINER, HOST or an address each, one of which is the lab's; on a network that both have, if there is
    one, over IPv4 unless *family* or an address says otherwise. LabError for what is not there."""
    source, target = _as_kept(source), _as_kept(target)
    family = family or next((family_of(each) for each in (source, target) if is_address(each)), 0)
    owners = _owner(picture, source, target), _owner(picture, target, source)
    family = family or _only_family(picture, owners)
    network, goal = _address(picture, target, owners[1], _networks(picture, source, owners[0]), family)
    _, start = _address(picture, source, owners[0], {network}, family)
    ends = _end(picture, owners[0], start), _end(picture, owners[1], goal)
    if not ends[0].host and not ends[1].host:
        raise LabError(
            f"neither {source} nor {target} is a host of lab {picture.name}, or a container there",
            next_step="`pycni lab ps` shows them: HOST/CONTAINER",
            exit_code=USAGE,
        )
    return ends


def _as_kept(text: str) -> str:
    """An address as the picture has it: FD00:0::2 is fd00::2."""
    return str(ipaddress.ip_address(text)) if is_address(text) else text


def _only_family(picture: Picture, names: tuple[str, str]) -> int:
    """That which both have, where it is one: on an underlay of IPv6 a host reaches a container over IPv6; else 0."""
    one, other = ({family_of(address) for _, address in addresses_of(picture, name)} for name in names)
    return next(iter(one & other)) if len(one & other) == 1 else 0


def _end(picture: Picture, name: str, address: str) -> End:
    host, _, container = name.partition("/")
    return End(host if any(each.name == host for each in picture.hosts) else "", container, address)


def _address(picture: Picture, text: str, name: str, near: set[str], family: int) -> tuple[str, str]:
    """(network, address) of the end that *text* says, which is *name*."""
    if is_address(text):
        return min(_networks(picture, text, name), default=""), text
    return nearest(picture, name, near, family)


def _networks(picture: Picture, text: str, name: str) -> set[str]:
    """Those of the end that *text* says: of an address only its own."""
    found = addresses_of(picture, name) if name else []
    return {network for network, address in found if address == text or not is_address(text)}


def _owner(picture: Picture, text: str, other: str) -> str:
    """HOST or HOST/CONTAINER that has that address, rather on a network of *other*; "" for nobody. A name is one."""
    if not is_address(text):
        return text
    near = {network for network, _ in addresses_of(picture, other)} if not is_address(other) else set()
    names = [*machines_of(picture), *(f"{host.name}/{each.name}" for host in picture.hosts for each in host.containers)]
    found = [
        (network not in near, name) for name in names for network, each in addresses_of(picture, name) if each == text
    ]
    return min(found)[1] if found else ""
