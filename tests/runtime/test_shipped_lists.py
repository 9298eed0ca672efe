"""The network lists that runtimes and distributions ship or write, as they are, through the command line of pycni."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Outside, assert_unchanged, can_ping, needs, netns_snapshot, wait_until
from pycni.cni.result import Result, parse_result
from tests.runtime.command_line import pycni, pycni_json
from tests.runtime.lists import bridge_of, read_list, shipped_lists

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

#: What an attachment leaves on purpose, beside its bridge: forwarding, on which others may rely by now. It makes the
#: kernel answer on the subnet-router anycast addresses (RFC 4291, 2.6.1).
KEPT = ("*/sysctl/*", "*/route/inet6/*type=anycast")
#: And what the kernel keeps of a loopback that was up and is down again.
KEPT_OF_LO = ("*/link/lo:qdisc", "*/qdisc/dev=lo *", "*/address/lo/127.0.0.1/8", "*/route/inet/dev=lo *")
#: A link-local address is there a moment before its route (net/ipv6/addrconf.c: a work queue starts DAD).
LATE = ("*/route/inet6/dev=uplink dst=fe80:*",)


@pytest.mark.parametrize("path", shipped_lists(), ids=lambda path: path.stem)
def test_shipped_list_works_as_it_is(
    outside: Outside, container_ns: Container, bin_dir: Path, tmp_path: Path, path: Path
) -> None:
    """ADD gives what the list promises (gateway, outside by masquerade), CHECK agrees, DEL leaves the bridge alone."""
    host = outside.host
    conf = read_list(path)
    bridge = bridge_of(conf)
    if bridge.get("vlan"):
        needs("kernel:vlan_filtering")
    file = tmp_path / path.name
    file.write_text(json.dumps(conf))
    words = (file, container_ns.file, "--plugin-dir", bin_dir)
    before = netns_snapshot(host, container_ns)
    result = pycni_json(host, "add", *words)
    if bridge:
        reaches_what_it_should(bridge, parse_result(result, result["cniVersion"]), container_ns, outside)
    else:
        assert can_ping(container_ns, "127.0.0.1")
    if result["cniVersion"] >= "0.4.0":
        pycni(host, "check", *words)
    pycni(host, "del", *words)
    wait_until(lambda: not [name for name in host.links() if name.startswith("veth")], 10)
    kept = [*KEPT, *KEPT_OF_LO, *LATE, *([f"*{bridge.get('bridge', 'cni0')}*"] if bridge else [])]
    assert_unchanged(before, netns_snapshot(host, container_ns), ignore=kept)
    assert pycni_json(host, "ipam", "list") == []
    assert host.run(["find", "/run", "/var/lib", "-name", "*eth0"]).stdout == "", "the result cache is empty"


def reaches_what_it_should(bridge: dict[str, Any], result: Result, container: Container, outside: Outside) -> None:
    """The gateways that the list makes; and outside, seen as the host if, and only if, the list masquerades."""
    is_gateway = bridge.get("isGateway") or bridge.get("isDefaultGateway")
    assert set(container.addresses("eth0")) == {str(ip.address) for ip in result.ips}
    assert bool(result.ips) == bool(bridge["ipam"])
    for ip in result.ips:
        assert not is_gateway or can_ping(container, str(ip.gateway), deadline_s=10), ip
    for family in (4, 6):
        has_default = any(route.dst.version == family and route.dst.prefixlen == 0 for route in result.routes)
        if is_gateway and has_default and bridge.get("ipMasq"):
            assert outside.seen_from(container, family, deadline_s=10).address == outside.host_address(family)
        else:
            with pytest.raises(OSError):  # noqa: PT011 - no route, or no answer
                outside.seen_from(container, family, deadline_s=0.3)
