"""Published ports as people write them: `[HOSTIP:]HOSTPORT:CONTAINERPORT[/PROTOCOL]`, ranges `8000-8009:80-89`."""

from __future__ import annotations

import ipaddress
from typing import Any

from pycni.cni.value import Value

PROTOCOLS = ("tcp", "udp", "sctp")


class PortSpec(Value):
    """One published port."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""

    def mapping(self) -> dict[str, Any]:
        """An element of the capability argument portMappings."""
        mapping = {"hostPort": self.host_port, "containerPort": self.container_port, "protocol": self.protocol}
        return {**mapping, "hostIP": self.host_ip} if self.host_ip else mapping


def parse_port(text: str) -> list[PortSpec]:
    """The ports that *text* names; ValueError in words. IPv6 addresses stand in brackets."""
    ports, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{text!r}: the protocol is one of {', '.join(PROTOCOLS)}")
    parts = ports.rsplit(":", 2)
    if len(parts) < 2:
        raise ValueError(f"{text!r} is not [HOSTIP:]HOSTPORT:CONTAINERPORT[/PROTOCOL]; quote it")
    host, container = _range(parts[-2], text), _range(parts[-1], text)
    if len(host) != len(container):
        raise ValueError(f"{text!r}: {len(host)} host ports for {len(container)} container ports")
    host_ip = ""
    if len(parts) == 3:
        try:
            host_ip = str(ipaddress.ip_address(parts[0].removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError(f"{text!r}: {parts[0]!r} is no IP address") from None
    return [
        PortSpec(host_port=ours, container_port=theirs, protocol=protocol, host_ip=host_ip)
        for ours, theirs in zip(host, container, strict=True)
    ]


def _range(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    if not all(part.isascii() and part.isdigit() for part in ([first, last] if dash else [first])):
        raise ValueError(f"{whole!r}: {text!r} is no port")
    ports = range(int(first), int(last if dash else first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ValueError(f"{whole!r}: ports go from 1 to 65535, the lower one first")
    return ports
