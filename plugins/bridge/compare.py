"""What CHECK compares: the last result and the configuration against what the kernel has. Pure."""

from __future__ import annotations

from pycni.change.differences import container_link, missing_addresses, missing_routes, other_mac, own_ips
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link, RouteFacts
    from pycni.plugins.bridge.conf import BridgeConf


class CheckFacts(Value):
    """What the kernel has; None for a link that is missing."""

    bridge: Link | None
    container: Link | None
    host: dict[str, Link | None]  # every interface of the result that lives in the host
    addresses: tuple[AddressWithPrefix, ...]  # of the container's link
    routes: tuple[RouteFacts, ...]  # of the container, in all tables
    gateways: tuple[AddressWithPrefix, ...]  # of the link that carries them
    rules: tuple[str, ...]  # firewall elements that are missing


def differences(conf: BridgeConf, call: Call, previous: Result, facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words; what a later plugin may change (MTU, more addresses) is no
    difference, nor is a promiscuous bridge: somebody is running tcpdump."""
    return (
        *_bridge(conf, previous, facts),
        *_gateways(conf, call, previous, facts),
        *_container(conf, call, previous, facts),
        *_host_links(conf, facts),
        *missing_addresses(call, previous, facts.addresses),
        *missing_routes(previous, facts.routes),
        *facts.rules,
    )


def _bridge(conf: BridgeConf, previous: Result, facts: CheckFacts) -> tuple[str, ...]:
    link = facts.bridge
    if link is None:
        return (f"bridge {conf.bridge} is missing",)
    if link.kind != "bridge":
        return (f"{conf.bridge} is not a bridge but {link.kind or 'a physical link'}",)
    wrong = [] if link.up else [f"bridge {conf.bridge} is down"]
    if conf.promiscuous and not link.promiscuous:
        wrong.append(f"bridge {conf.bridge} is not promiscuous")
    expected = next((i for i in previous.interfaces if i.name == conf.bridge and not i.sandbox), None)
    return (*wrong, *other_mac(expected, link))


def _gateways(conf: BridgeConf, call: Call, previous: Result, facts: CheckFacts) -> list[str]:
    if not conf.is_gateway:
        return []
    wanted = {ip.gateway for ip in own_ips(call, previous)} - {None}
    missing = wanted.difference(each.ip for each in facts.gateways)
    return [f"gateway address {each} is missing on {conf.gateway_link}" for each in sorted(map(str, missing))]


def _container(conf: BridgeConf, call: Call, previous: Result, facts: CheckFacts) -> tuple[str, ...]:
    wrong = container_link(call, previous, facts.container)
    if conf.container_up and facts.container is not None and not facts.container.up:
        wrong = (*wrong, f"{call.ifname} is down")
    return wrong


def _host_links(conf: BridgeConf, facts: CheckFacts) -> list[str]:
    wrong: list[str] = []
    for name, link in facts.host.items():
        if name in (conf.bridge, conf.gateway_link):
            continue
        if link is None:
            wrong.append(f"host link {name} is missing")
        elif not link.up:
            wrong.append(f"host link {name} is down")
        elif facts.bridge is not None and link.kind == "veth" and link.master != facts.bridge.index:
            wrong.append(f"host link {name} is not on bridge {conf.bridge}")
        elif conf.hairpin and link.hairpin is False:
            wrong.append(f"hairpin mode is off on {name}")
        elif conf.port_isolation and link.isolated is False:
            wrong.append(f"port isolation is off on {name}")
    return wrong
