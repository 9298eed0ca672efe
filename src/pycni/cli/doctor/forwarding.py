"""The kernel's parameters that let packets between containers and the world pass or not."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.agent.view import ATTACHED
from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.state import see_all
from pycni.cni.errors import CniError
from pycni.host import sysctl
from pycni.host.rtnl import Netlink, uplink_mtu

RTPROT_RA = 9  # linux/rtnetlink.h: the route came from a router advertisement
_STRICT = 1  # Documentation/networking/ip-sysctl: rp_filter


def _is_needed(words: str) -> bool:
    """Whether containers with addresses of that family are attached now: then a switch that is off is no longer a
    matter of the next ADD. False where the records cannot be read, which is a finding of its own."""
    try:
        there = [seen.record for seen in see_all() if seen.state in ATTACHED]
    except CniError:
        return False
    return any((":" in address) == (words == "IPv6") for record in there for address in record.addresses)


def _bridges() -> set[str]:
    return {seen.record.bridge for seen in see_all() if seen.record.bridge}


def _forwarding(check: str, key: str, words: str) -> Finding:
    value = sysctl.read(key)
    dotted = key.replace("/", ".")
    if value is None:
        return Finding(level=OK, check=check, found=f"{words} is not in this kernel or switched off")
    if value != "0":
        return Finding(level=OK, check=check, found="on")
    needed = _is_needed(words)
    return Finding(
        level=FAIL if needed else WARN,
        check=check,
        found=f"off ({dotted} = 0)" + (" while containers are attached" if needed else ""),
        meaning=f"no {words} packet passes between containers and other networks; "
        "the bridge plugin turns it on at ADD when it is the gateway, something may turn it off again",
        action=f"sysctl -w {dotted}=1, and the same line in /etc/sysctl.d/ to keep it",
    )


def check_ipv4() -> Iterator[Finding]:
    """net.ipv4.ip_forward."""
    yield _forwarding("IPv4 forwarding", "net/ipv4/ip_forward", "IPv4")


def check_ipv6() -> Iterator[Finding]:
    """net.ipv6.conf.all.forwarding."""
    yield _forwarding("IPv6 forwarding", "net/ipv6/conf/all/forwarding", "IPv6")


def check_router_advertisements() -> Iterator[Finding]:
    """A host that learnt its IPv6 default route from advertisements loses it once it forwards (accept_ra = 1)."""
    check = "router advertisements"
    with Netlink() as kernel:
        learnt = [route for route in kernel.routes(protocol=RTPROT_RA) if route.dst is None or route.dst.prefixlen == 0]
        names = sorted({link.name for link in (kernel.link(route.oif) for route in learnt) if link})
    losing = [name for name in names if sysctl.read(f"net/ipv6/conf/{name}/accept_ra") != "2"]
    if not losing:
        yield Finding(level=OK, check=check, found="no IPv6 default route would be lost by forwarding")
    for name in losing:
        yield Finding(
            level=WARN,
            check=check,
            found=f"the IPv6 default route through {name} comes from advertisements, and accept_ra is not 2",
            meaning="once IPv6 forwarding is on, the kernel ignores advertisements there: the host loses its way out",
            action=f"sysctl -w net.ipv6.conf.{name}.accept_ra=2",
        )


def check_reverse_path() -> Iterator[Finding]:
    """Strict reverse path filtering. The kernel takes the larger value of `all` and the link's (ip-sysctl)."""
    check = "reverse path filter"
    everywhere = int(sysctl.read("net/ipv4/conf/all/rp_filter") or 0)
    with Netlink() as kernel:
        ways_out = [
            kernel.link(route.oif) for route in kernel.routes(family=2) if route.dst is None or not route.dst.prefixlen
        ]
    names = {link.name for link in ways_out if link} | _bridges()
    strict = [
        name
        for name in sorted(names)
        if max(everywhere, int(sysctl.read(f"net/ipv4/conf/{name}/rp_filter") or 0)) == _STRICT
    ]
    # Strict is harmless as long as answers take the way the requests came: one way out, bridges of our own.
    if len({link.name for link in ways_out if link}) > 1 and strict:
        yield Finding(
            level=WARN,
            check=check,
            found=f"strict on {', '.join(strict)}, and this host has several ways out",
            meaning="packets that come in by another way than their answer leaves are dropped without a trace",
            action="sysctl -w net.ipv4.conf.all.rp_filter=2 (loose)",
        )
    else:
        found = f"strict on {', '.join(strict)}; harmless with one way out" if strict else "not strict where it matters"
        yield Finding(level=OK, check=check, found=found)


def check_bridge_netfilter() -> Iterator[Finding]:
    """Whether bridged packets, too, are shown to iptables (br_netfilter)."""
    check = "bridge netfilter"
    values = {family: sysctl.read(f"net/bridge/bridge-nf-call-{family}") for family in ("iptables", "ip6tables")}
    if set(values.values()) == {None}:
        yield Finding(
            level=OK, check=check, found="br_netfilter is not loaded: packets within a bridge pass no firewall"
        )
    elif len(set(values.values())) > 1:
        on, off = sorted(values, key=lambda family: values[family] != "1")
        yield Finding(
            level=WARN,
            check=check,
            found=f"on for {on}, off for {off}",
            meaning="packets within a bridge pass the firewall in one family only",
            action="set net.bridge.bridge-nf-call-iptables and -ip6tables to the same value",
        )
    elif values["iptables"] == "1":
        yield Finding(level=OK, check=check, found="on: packets within a bridge pass the FORWARD rules as well")
    else:
        yield Finding(level=OK, check=check, found="off: packets within a bridge pass no firewall")


def check_mtu() -> Iterator[Finding]:
    """Our bridges beside the way out."""
    check = "MTU"
    with Netlink() as kernel:
        outside = uplink_mtu(kernel)
        bridges = sorted(_bridges())
        links = [link for link in map(kernel.link, bridges) if link]
    if outside is None:
        yield Finding(level=OK, check=check, found="this host has no default route: nothing to compare with")
        return
    larger = [link for link in links if link.mtu > outside]
    for link in larger:
        yield Finding(
            level=WARN,
            check=check,
            found=f"{link.name} has {link.mtu}, the way out {outside}",
            meaning="large packets of containers need fragmentation or ICMP to get through; where ICMP is filtered, "
            "connections hang after the first data",
            action=f'set "mtu": {outside} in the network (or leave it out) and attach the containers anew',
        )
    if not larger:
        shown = ", ".join(f"{link.name} {link.mtu}" for link in links)
        yield Finding(level=OK, check=check, found=f"the way out has {outside}" + (f", {shown}" if shown else ""))
