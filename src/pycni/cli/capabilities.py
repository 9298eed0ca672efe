"""Runtime arguments of the command line → what plugins get: `capabilityArgs` and `CNI_ARGS`.

The shapes are the ones of the CNI conventions ("Well-known Capabilities"), which containerd, CRI-O and podman send.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


def _ports(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    if not all(part.isascii() and part.isdigit() for part in ([first, last] if dash else [first])):
        raise argparse.ArgumentTypeError(f"{whole!r}: {text!r} is no port")
    ports = range(int(first), int(last if dash else first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise argparse.ArgumentTypeError(f"{whole!r}: ports go from 1 to 65535, the lower one first")
    return ports


def parse_port(text: str) -> list[dict[str, Any]]:
    """`[HOSTIP:]HOSTPORT:CONTAINERPORT[/PROTOCOL]` → port mappings; `8000-8009:80-89` is ten. HOSTIP v6 in brackets."""
    ports, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise argparse.ArgumentTypeError(f"{text!r}: the protocol is one of {', '.join(PROTOCOLS)}")
    parts = ports.rsplit(":", 2)
    if len(parts) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOSTIP:]HOSTPORT:CONTAINERPORT[/PROTOCOL]")
    host, container = _ports(parts[-2], text), _ports(parts[-1], text)
    if len(host) != len(container):
        raise argparse.ArgumentTypeError(f"{text!r}: {len(host)} host ports for {len(container)} container ports")
    common: dict[str, Any] = {"protocol": protocol}
    if len(parts) == 3:
        try:
            common["hostIP"] = str(ipaddress.ip_address(parts[0].removeprefix("[").removesuffix("]")))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: {parts[0]!r} is no IP address") from None
    return [{"hostPort": ours, "containerPort": theirs, **common} for ours, theirs in zip(host, container, strict=True)]


def parse_requested_address(text: str) -> str:
    """An address, with or without a prefix length, as it goes into `ips`."""
    try:
        ipaddress.ip_interface(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def parse_mac(text: str) -> str:
    """A MAC address in colon form, lower case."""
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no MAC address such as 02:00:00:00:00:01")
    if int(parts[0], 16) & 1:
        raise argparse.ArgumentTypeError(f"{text!r} is a group address; a link needs one whose first byte is even")
    return ":".join(parts)


def parse_ip_range(text: str) -> list[dict[str, str]]:
    """`SUBNET[,START-END][,gateway=ADDRESS]` → one range set of one range."""
    subnet, *more = text.split(",")
    try:
        found = {"subnet": str(ipaddress.ip_network(subnet, strict=False))}
        for part in more:
            if part.startswith("gateway="):
                found["gateway"] = str(ipaddress.ip_address(part.removeprefix("gateway=")))
            else:
                start, _, end = part.partition("-")
                found["rangeStart"] = str(ipaddress.ip_address(start))
                found["rangeEnd"] = str(ipaddress.ip_address(end or start))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r}: {exc}") from None
    return [found]


def parse_pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE` for CNI_ARGS, whose pairs are joined by semicolons and hold exactly one equals sign."""
    key, equals, value = text.partition("=")
    if not key or not equals or "=" in value or ";" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE (one equals sign, no semicolon)")
    return key, value


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise argparse.ArgumentTypeError(f"not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('not a JSON object such as \'{"mac": "02:00:00:00:00:01"}\'')
    return value


def capability_args(given: argparse.Namespace) -> dict[str, Any]:
    """All capability arguments of one command line; --capability-args gives the base, the special options win."""
    args: dict[str, Any] = {}
    for each in given.capability_args:
        args.update(each)
    if given.port:
        args["portMappings"] = [mapping for mappings in given.port for mapping in mappings]
    if given.ip:
        args["ips"] = list(given.ip)
    if given.mac:
        args["mac"] = given.mac
    if given.ip_range:
        args["ipRanges"] = list(given.ip_range)
    dns = {"servers": given.dns, "searches": given.dns_search, "options": given.dns_option}
    if any(dns.values()):
        args["dns"] = {key: list(values) for key, values in dns.items() if values}
    return args


def render_args(pairs: Sequence[tuple[str, str]]) -> str:
    """CNI_ARGS."""
    return ";".join(f"{key}={value}" for key, value in pairs)
