"""The loopback plugin: lo up, lo down, whatever the interface is called."""

from __future__ import annotations

import pytest

from netns_fixtures import Container, assert_unchanged, can_ping, run_cni
from tests.kernel.bridge_lab import Lab

pytestmark = pytest.mark.needs("root")

CONF = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}


@pytest.mark.parametrize("ifname", ["lo", "eth0"])
def test_lo_is_up_and_told(lab: Lab, c1: Container, ifname: str) -> None:
    """Nomad calls it with eth0. Both families answer; the result names lo and its addresses; DEL undoes it."""
    c1.ip_batch("link set lo up", "link set lo down")  # a lo that was ever up keeps 127.0.0.1
    before = lab.traces(c1)
    result = lab.add(CONF, c1, ifname=ifname)
    assert can_ping(c1, "127.0.0.1")
    assert can_ping(c1, "::1")
    assert result["interfaces"] == [{"name": "lo", "mac": "00:00:00:00:00:00", "mtu": 65536, "sandbox": c1.path}]
    assert [ip["address"] for ip in result["ips"]] == ["127.0.0.1/8", "::1/128"]
    assert lab.check(CONF, c1, result, ifname=ifname).ok
    lab.delete(CONF, c1, ifname=ifname)
    assert_unchanged(before, lab.traces(c1))
    assert lab.check(CONF, c1, result, ifname=ifname).error_code == 106


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version(lab: Lab, c1: Container, version: str) -> None:
    """The result in the shape of each; a second ADD is no error."""
    for _ in range(2):
        result = lab.add({**CONF, "cniVersion": version}, c1)
        assert result["cniVersion"] == version
        assert ("ip4" in result) is (version < "0.3.0")


def test_result_of_an_earlier_plugin_is_passed_on(lab: Lab, c1: Container) -> None:
    """In a chain the result is that of the network, not of lo."""
    earlier = {"cniVersion": "1.1.0", "ips": [{"address": "192.0.2.9/24"}], "dns": {"domain": "x.test"}}
    assert lab.add({**CONF, "prevResult": earlier}, c1) == earlier


@pytest.mark.parametrize("netns", ["", None, "/run/netns/gone", "/etc/hostname"])
def test_del_without_a_namespace(lab: Lab, netns: str | None) -> None:
    """Success: lo is gone with it."""
    lab.delete(CONF, "c1", netns=netns)


def test_unused_arguments_may_be_garbage(lab: Lab, c1: Container) -> None:
    """The reference ignores CNI_ARGS here, and runtimes send such."""
    lab.add(CONF, c1, args="none")


def test_own_namespace_is_refused(lab: Lab) -> None:
    """Code 8; `lo` of the host must never go down by a DEL."""
    assert lab.refused(CONF, "c1", netns="/proc/self/ns/net")["code"] == 8
    lab.call("DEL", CONF, "c1", netns="/proc/self/ns/net")
    assert can_ping(lab.host, "127.0.0.1")


def test_namespace_without_ipv6(lab: Lab, c1: Container) -> None:
    """No ::1 in the result, and no error."""
    c1.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    result = lab.add(CONF, c1)
    assert [ip["address"] for ip in result["ips"]] == ["127.0.0.1/8"]


def test_status_gc_and_version(lab: Lab) -> None:
    """The commands without an attachment: success, and no output but VERSION's."""
    assert lab.call("STATUS", CONF).stdout == ""
    assert lab.gc(CONF).ok
    answer = run_cni(lab.host, lab.plugins, "loopback", "VERSION", "", ifname=None)
    assert answer.json["supportedVersions"][-1] == "1.1.0"
