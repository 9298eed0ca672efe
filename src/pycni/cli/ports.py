"""`pycni ports`: the host ports that containers have published, who serves them, and whether a socket holds them."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from pycni.agent.view import Published
from pycni.cli.failure import OK
from pycni.cli.state import see_published
from pycni.cli.tables import print_table

HEAD = ("PROTO", "HOST", "CONTAINER ADDRESS", "NETWORK", "CONTAINER", "VIA", "HELD")


def list_ports(given: Namespace) -> int:
    """One row for each run of ports."""
    found = sorted(see_published(given.network), key=_order)
    if given.json:
        print(json.dumps([_as_json(one) for one in found], indent=4))
        return OK
    if not found:
        where = f"of network {given.network} " if given.network else ""
        print(f"no container {where}has published a port on this host")
        return OK
    print_table(HEAD, [_row(one) for one in found])
    return OK


def _order(one: Published) -> tuple[Any, ...]:
    return one.binding.port, one.binding.proto, one.binding.family, one.binding.host_ip


def _row(one: Published) -> tuple[str, ...]:
    binding = one.binding
    return (
        binding.proto,
        _endpoint(binding.host_ip or ("0.0.0.0" if binding.family == 4 else "::"), binding.port, binding.count),
        _endpoint(binding.address, binding.target, binding.count),
        one.attachment.network,
        one.attachment.container_id,
        _via(one),
        {True: "yes", False: "no", None: "agent off"}[one.held],
    )


def _via(one: Published) -> str:
    return "+".join(name for name, does in (("kernel", one.by_kernel), ("proxy", one.binding.proxied)) if does)


def _endpoint(address: str, port: int, count: int) -> str:
    last = f"-{port + count - 1}" if count > 1 else ""
    return f"{f'[{address}]' if ':' in address else address}:{port}{last}"


def _as_json(one: Published) -> dict[str, Any]:
    binding = one.binding
    return {
        "protocol": binding.proto,
        "family": binding.family,
        "hostIP": binding.host_ip,
        "hostPort": binding.port,
        "hostPortEnd": binding.port + binding.count - 1,
        "address": binding.address,
        "containerPort": binding.target,
        "network": one.attachment.network,
        "containerID": one.attachment.container_id,
        "ifname": one.attachment.ifname,
        "via": _via(one),
        "held": one.held,
    }


HANDLERS = {"ports": list_ports}
