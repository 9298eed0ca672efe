"""Results of ADD: one value for all protocol versions, read from and written as each of them.

Shapes (specification of each version; key order and omissions as the reference writes them):
0.1.0, 0.2.0: `ip4` and `ip6` with one address and its family's routes each, `dns` always;
0.3.0 to 0.4.0: `interfaces`, `ips` (each with `version`), `routes`, `dns` always;
1.0.0: keys sorted, `ips` without `version`, `dns` only when there is something in it;
1.1.0: interfaces also with `mtu`, `socketPath` and `pciID`.
Beside them, in every version, `pycni/portMappings` where the port mapping plugin chose a port: keys that a caller does
not know it has to ignore, and plugins behind ours get it back in prevResult.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.keys import Keys
from pycni.cni.value import Value
from pycni.cni.versions import SUPPORTED, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.cni.addresses import Address

_SCOPE_LINK = 253  # linux/rtnetlink.h, RT_SCOPE_LINK
_UINT32 = 2**32 - 1  # what the kernel's route attributes hold
_FAMILIES = ((4, "ip4"), (6, "ip6"))
PUBLISHED = "pycni/portMappings"


class Interface(Value):
    """A link: of the container if *sandbox* (the path of its namespace) is set, else of the host."""

    name: str
    mac: str = ""
    mtu: int = 0  # bytes; 0: not said
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class IPConfig(Value):
    """An address of the container. *interface* indexes `Result.interfaces`; foreign results may point beyond it."""

    address: IPv4Interface | IPv6Interface
    gateway: IPv4Address | IPv6Address | None = None
    interface: int | None = None


class Route(Value):
    """A route in the container. Without *gw*: by the gateway of the addresses, as the plugin decides."""

    dst: IPv4Network | IPv6Network
    gw: IPv4Address | IPv6Address | None = None
    mtu: int = 0  # bytes; 0: not said, as with the next two
    advmss: int = 0  # bytes
    priority: int = 0  # the kernel's metric
    table: int | None = None
    scope: int | None = None  # rtnetlink number, 0 is global


class Dns(Value):
    """What a resolv.conf of the container should say."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PublishedPort(Value):
    """A host port that was chosen for the caller, as it would stand in the capability `portMappings`."""

    host_port: int
    container_port: int
    protocol: str
    host_ip: str = ""  # one address of the host; "": all


class Result(Value):
    """What ADD made. `Result()` is the empty one that a chain without addresses gives."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    published: tuple[PublishedPort, ...] = ()
    # Not in the protocol, between our own plugins:
    mac: bytes = b""  # what the interface with these addresses gets where nobody asks for another; b"": any
    former_macs: tuple[bytes, ...] = (b"",)  # under which neighbours may know them, b"": unknown ones; (): nobody does

    def is_known_otherwise(self, mac: bytes) -> bool:
        """Whether somebody may remember one of the addresses with another MAC than *mac*."""
        return any(not former or former != mac for former in self.former_macs)


def first_address(ip: IPConfig) -> Address:
    """Of the subnet of *ip*: its gateway, where none is named. CniError 7 where the container has the only one."""
    subnet = ip.address.network
    if subnet.prefixlen == subnet.max_prefixlen:
        raise CniError(
            Code.INVALID_CONFIG,
            f"{ip.address} leaves its subnet no address for a gateway",
            "give ipam a gateway, or the address a larger subnet",
        )
    return subnet.network_address + 1


def first_gateways(ips: list[IPConfig] | tuple[IPConfig, ...]) -> dict[int, Address]:
    """IP version to the gateway that routes of this family use when they name none."""
    found: dict[int, Address] = {}
    for ip in ips:
        if ip.gateway is not None:
            found.setdefault(ip.gateway.version, ip.gateway)
    return found


def gateway_of(route: Route, first: dict[int, Address]) -> Address | None:
    """What *route* goes through: where it names nothing, the *first* gateway of its family, unless its scope says that
    its destination is on the link. The kernel refuses both together (fib_check_nh, fib_semantics.c)."""
    if route.gw is not None or (route.scope or 0) >= _SCOPE_LINK:
        return route.gw
    return first.get(route.dst.version)


def parse_result(obj: Any, config_version: str, *, where: str = "result") -> Result:
    """The result in JSON value *obj*, read as its own cniVersion or else as *config_version*; null is empty.

    CniError 6 if it is no object, 1 if its version is unknown, 7 for a wrong value; *where* names it in messages.
    """
    if obj is None:
        return Result()
    if not isinstance(obj, dict):
        raise CniError(Code.DECODE, f"{where} is {shown(obj)}, not an object")
    keys = Keys(obj, where)
    version = keys.text("cniVersion") or config_version
    if version not in SUPPORTED:
        raise CniError(
            Code.VERSION, "incompatible CNI versions", f"{where} is {shown(version)}, known are {' '.join(SUPPORTED)}"
        )
    if not at_least(version, "0.3.0"):
        return _parse_by_family(keys)
    return Result(
        interfaces=tuple(_parse_interface(each) for each in keys.objects("interfaces")),
        ips=tuple(_parse_ip(each, "address") for each in keys.objects("ips")),
        routes=tuple(parse_route(each) for each in keys.objects("routes")),
        dns=parse_dns(keys.object("dns")),
        published=_parse_published(keys),
    )


def parse_route(keys: Keys) -> Route:
    """The route in *keys*, of a result or of an `ipam` config; CniError 7."""
    dst = keys.prefix("dst")
    if dst is None:
        raise keys.wrong("dst", "is missing: give the destination, as 0.0.0.0/0")
    return Route(
        dst=dst,
        gw=keys.address("gw"),
        mtu=keys.integer("mtu", 0, _UINT32) or 0,
        advmss=keys.integer("advmss", 0, _UINT32) or 0,
        priority=keys.integer("priority", 0, _UINT32) or 0,
        table=keys.integer("table", 0, _UINT32),
        scope=keys.integer("scope", 0, 255),
    )


def parse_dns(keys: Keys) -> Dns:
    """The `dns` object in *keys*; CniError 7."""
    return Dns(keys.texts("nameservers"), keys.text("domain"), keys.texts("search"), keys.texts("options"))


def render_result(result: Result, version: str) -> dict[str, Any]:
    """*result* as the JSON object of *version* (one of `SUPPORTED`), keys in the reference's order.

    What *version* cannot say is left out. CniError 999 if it is older than 0.3.0 and there is no address.
    """
    if not at_least(version, "0.3.0"):
        return _render_by_family(result, version)
    rendered: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        rendered["interfaces"] = [_render_interface(each, version) for each in result.interfaces]
    if result.ips:
        rendered["ips"] = [_render_ip(each, version) for each in result.ips]
    if result.routes:
        rendered["routes"] = [_render_route(each) for each in result.routes]
    rendered.update(_render_published(result))
    dns = _render_dns(result.dns)
    if not at_least(version, "1.0.0"):
        return {**rendered, "dns": dns}
    ordered: dict[str, Any] = _sorted({**rendered, "dns": dns} if dns else rendered)
    return ordered


def dump(obj: Any) -> str:
    """*obj* as JSON in the reference's form: 4 spaces of indentation, no newline at the end; write it as UTF-8.

    Bytes of the environment that are no UTF-8 (lone surrogates to Python) come out as U+FFFD, as with the reference.
    """
    text = json_text.dumps(obj, indent=4)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _parse_by_family(keys: Keys) -> Result:
    ips: list[IPConfig] = []
    routes: list[Route] = []
    for _, name in _FAMILIES:
        if keys.has(name):
            family = keys.object(name)
            ips.append(_parse_ip(family, "ip"))
            routes.extend(parse_route(each) for each in family.objects("routes"))
    return Result(
        ips=tuple(ips), routes=tuple(routes), dns=parse_dns(keys.object("dns")), published=_parse_published(keys)
    )


def _parse_published(keys: Keys) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(
            host_port=each.integer("hostPort", 0, 65535) or 0,
            container_port=each.integer("containerPort", 0, 65535) or 0,
            protocol=each.text("protocol"),
            host_ip=each.text("hostIP"),
        )
        for each in keys.objects(PUBLISHED)
    )


def _parse_ip(keys: Keys, address_key: str) -> IPConfig:
    address = keys.cidr(address_key)
    if address is None:
        raise keys.wrong(address_key, "is missing: give the address with its prefix length, as 10.1.0.5/16")
    return IPConfig(address, keys.address("gateway"), keys.integer("interface", 0, 2**31 - 1))


def _parse_interface(keys: Keys) -> Interface:
    return Interface(
        name=keys.text("name"),
        mac=keys.text("mac"),
        mtu=keys.integer("mtu", 0, _UINT32) or 0,
        sandbox=keys.text("sandbox"),
        socket_path=keys.text("socketPath"),
        pci_id=keys.text("pciID"),
    )


def _render_by_family(result: Result, version: str) -> dict[str, Any]:
    """The 0.1.0 and 0.2.0 shape: the first address of each family; routes of a family without address are lost."""
    rendered: dict[str, Any] = {"cniVersion": version}
    for number, name in _FAMILIES:
        first = next((each for each in result.ips if each.address.version == number), None)
        if first is None:
            continue
        rendered[name] = {"ip": str(first.address)}
        if first.gateway is not None:
            rendered[name]["gateway"] = str(first.gateway)
        routes = [_render_route(Route(each.dst, each.gw)) for each in result.routes if each.dst.version == number]
        if routes:
            rendered[name]["routes"] = routes
    if len(rendered) == 1:
        raise CniError(
            Code.INTERNAL,
            "cannot convert: no valid IP addresses",
            f"a result of cniVersion {version} needs one: give the network an ipam, or cniVersion 0.3.0 or newer",
        )
    return {**rendered, **_render_published(result), "dns": _render_dns(result.dns)}


def _render_published(result: Result) -> dict[str, Any]:
    if not result.published:
        return {}
    ports = (
        {"hostPort": each.host_port, "containerPort": each.container_port, "protocol": each.protocol}
        | ({"hostIP": each.host_ip} if each.host_ip else {})
        for each in result.published
    )
    return {PUBLISHED: list(ports)}


def _render_interface(interface: Interface, version: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"mac": interface.mac, "sandbox": interface.sandbox}
    if at_least(version, "1.1.0"):
        fields.update(mtu=interface.mtu, socketPath=interface.socket_path, pciID=interface.pci_id)
    return {"name": interface.name, **_filled(fields)}


def _render_ip(ip: IPConfig, version: str) -> dict[str, Any]:
    rendered: dict[str, Any] = {} if at_least(version, "1.0.0") else {"version": str(ip.address.version)}
    if ip.interface is not None:
        rendered["interface"] = ip.interface
    rendered["address"] = str(ip.address)
    if ip.gateway is not None:
        rendered["gateway"] = str(ip.gateway)
    return rendered


def _render_route(route: Route) -> dict[str, Any]:
    rendered: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        rendered["gw"] = str(route.gw)
    rendered.update(_filled({"mtu": route.mtu, "advmss": route.advmss, "priority": route.priority}))
    if route.table is not None:
        rendered["table"] = route.table
    if route.scope is not None:
        rendered["scope"] = route.scope
    return rendered


def _render_dns(dns: Dns) -> dict[str, Any]:
    lists = {"nameservers": list(dns.nameservers), "domain": dns.domain}
    return _filled({**lists, "search": list(dns.search), "options": list(dns.options)})


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
