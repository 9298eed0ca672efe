"""What CHECK compares for every plugin that makes an interface: the last result against the container. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.env import Call
    from pycni.cni.result import Interface, IPConfig, Result, Route
    from pycni.host.link_facts import Link, RouteFacts

RT_TABLE_MAIN = 254  # linux/rtnetlink.h


def container_link(call: Call, previous: Result, link: Link | None) -> tuple[str, ...]:
    """What is not as ADD left it of the container's interface, None where that is missing; but not whether it is up."""
    if link is None:
        return (f"{call.ifname} is missing in {call.netns}",)
    wrong = [] if link.kind == "veth" else [f"{call.ifname} is not a veth but {link.kind or 'a physical link'}"]
    expected = next((i for i in previous.interfaces if i.name == call.ifname and i.sandbox), None)
    return (*wrong, *other_mac(expected, link))


def other_mac(expected: Interface | None, link: Link) -> tuple[str, ...]:
    """Whether *link* has another MAC than the result says, where it says one."""
    if expected is None or not expected.mac or expected.mac.lower() == link.mac.hex(":"):
        return ()
    return (f"{link.name} has MAC {link.mac.hex(':')} instead of {expected.mac}",)


def own_ips(call: Call, previous: Result) -> tuple[IPConfig, ...]:
    """Those of the result that are of the container's interface: all others are of another plugin."""
    ours = {n for n, i in enumerate(previous.interfaces) if i.name == call.ifname and i.sandbox}
    return tuple(ip for ip in previous.ips if ip.interface is None or ip.interface in ours)


def missing_addresses(call: Call, previous: Result, addresses: tuple[AddressWithPrefix, ...]) -> tuple[str, ...]:
    """The addresses of the result that the container's interface lacks."""
    return tuple(
        f"address {ip.address} is missing on {call.ifname}"
        for ip in own_ips(call, previous)
        if ip.address not in addresses
    )


def missing_routes(previous: Result, routes: tuple[RouteFacts, ...]) -> tuple[str, ...]:
    """The routes of the result that the container lacks. *routes*: those of all its tables."""
    return tuple(
        f"route {_words(route)} is missing" for route in previous.routes if not any(_same(route, r) for r in routes)
    )


def _same(wanted: Route, have: RouteFacts) -> bool:
    """A route without gateway was given one on ADD, so only a named one counts."""
    if wanted.dst != have.dst or (wanted.table or RT_TABLE_MAIN) != have.table:
        return False
    return wanted.gw is None or wanted.gw == have.gw


def _words(route: Route) -> str:
    return f"{route.dst} via {route.gw}" if route.gw is not None else str(route.dst)
