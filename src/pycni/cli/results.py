"""A CNI result for people, and whether its namespace is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pycni.cli.tables import print_table
from pycni.cni.errors import CniError
from pycni.cni.result import Result, parse_result
from pycni.host.netns import open_netns


def is_namespace(path: str) -> bool:
    """Whether *path* is a network namespace now."""
    try:
        os.close(open_netns(path))
    except (CniError, OSError):
        return False
    return True


def print_result(raw: Mapping[str, Any], version: str) -> None:
    """The result as tables: interfaces, addresses, routes, DNS; empty ones are left out."""
    result = parse_result(raw, version)
    _print_interfaces(result)
    if result.ips:
        print()
        rows = [(str(ip.address), _at(ip.gateway), _interface_name(result, ip.interface)) for ip in result.ips]
        print_table(("ADDRESS", "GATEWAY", "INTERFACE"), rows)
    if result.routes:
        print()
        print_table(
            ("ROUTE", "VIA", "OPTIONS"), [(str(r.dst), _at(r.gw), _route_options(r.as_dict())) for r in result.routes]
        )
    dns = result.dns
    lines = [("nameserver", dns.nameservers), ("domain", (dns.domain,) if dns.domain else ())]
    lines += [("search", dns.search), ("options", dns.options)]
    if any(values for _, values in lines):
        print()
        print_table(("DNS", "VALUE"), [(key, " ".join(values)) for key, values in lines if values])


def _print_interfaces(result: Result) -> None:
    if not result.interfaces:
        return
    rows = [
        (one.name, "container" if one.sandbox else "host", one.mac, str(one.mtu or ""), one.sandbox)
        for one in result.interfaces
    ]
    print()
    print_table(("INTERFACE", "SIDE", "MAC", "MTU", "NAMESPACE"), rows, right=("MTU",))


def _at(address: object) -> str:
    return "" if address is None else str(address)


def _interface_name(result: Result, index: int | None) -> str:
    return result.interfaces[index].name if index is not None and 0 <= index < len(result.interfaces) else ""


def _route_options(route: Mapping[str, Any]) -> str:
    names = ("mtu", "advmss", "priority", "table", "scope")
    return " ".join(f"{name} {route[name]}" for name in names if route[name])
