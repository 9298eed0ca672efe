"""The life of an attachment of an overlay: what CHECK sees, what DEL needs, and what both do without etcd."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns_fixtures import CniRun, run_cni, wait_until
from tests.kernel.bridge_lab import address_of, words
from tests.overlay.overlay_lab import Conf, OverlayLab, query, records


def test_check_names_what_is_missing(overlay: Callable[..., OverlayLab]) -> None:
    """A MAC and addresses that are asked for are what the container has and etcd says. Each thing that somebody takes
    away or changes is named by CHECK: the entry of a peer, the gateway, what the guard lets in, the guard, forwarding,
    the member key, the endpoint's key, the device and its MTU, the bridge; DEL works all the same, even without
    namespace and configuration."""
    lab = overlay()
    one, two = lab.hosts
    conf = lab.conf(runtimeConfig={"mac": "02:00:5E:10:00:01", "ips": ["10.1.9.9/16", "fd00:1::9"]})
    far, of_far = lab.add(two, "far")
    first, result = lab.add(one, "first", conf)
    assert (address_of(result, 4), address_of(result, 6)) == ("10.1.9.9", "fd00:1::9")
    assert result["interfaces"][2]["mac"] == "02:00:5e:10:00:01"
    said = [json.loads(kv.value) for key, kv in lab.keys().items() if key.startswith("ep/net/4/0a010909")]
    assert [each["mac"] for each in said] == ["02:00:5e:10:00:01"]
    lab.add(two, "near")
    lab.ping(first, of_far)
    bridge, device = (result["interfaces"][at]["name"] for at in (0, 3))
    assert lab.check(one, first, conf, result).ok, "nobody follows, so h1 need not know it"

    def broken(word: str) -> None:
        answer = lab.check(one, first, conf, result)
        assert answer.error_code == 106, (word, answer)
        assert word in answer.stdout, (word, answer)

    mac = of_far["interfaces"][2]["mac"]
    one.run(["bridge", "fdb", "del", mac, "dev", device, "self"])
    broken(f"FDB entry {mac} to {lab.tunnel_address(two)} is missing on {device}")
    one.ip("addr", "del", "10.1.0.1/16", "dev", bridge)
    broken(f"gateway 10.1.0.1 is not on {bridge}")
    one.run(["bridge", "fdb", "append", "00:00:00:00:00:00", "dev", device, "dst", "192.0.2.9"])
    broken(f"{device} floods")
    one.ip("link", "set", device, "mtu", "1400")
    broken(f"{device} has MTU 1400, not 1450")
    one.sysctl("net/ipv4/ip_forward", "0")
    broken("this host does not forward IPv4")
    peer = f"{{ 4789 . {int(device.removeprefix('vxlan'))} . {lab.tunnel_address(two)} }}"
    one.run(["nft", "delete", "element", "inet", "pycni_tunnels", "vteps4", peer])
    broken(f"from {lab.tunnel_address(two)} are dropped")
    one.run(["nft", "delete", "table", "inet", "pycni_tunnels"])
    broken("are taken from any host")
    lab.forget_key(f"member/{lab.node(one)}/net")
    broken("etcd does not know that this host takes part")
    one.ip("link", "del", device)
    broken(f"VXLAN device {device} is missing")
    one.ip("link", "del", bridge)
    broken(f"bridge {bridge} is missing")
    lab.forget_key("ep/net/4/0a010909")
    broken("10.1.9.9 is not its own in etcd")
    one.containers.pop("first").delete()
    lab.delete(one, "first", {key: conf[key] for key in ("cniVersion", "name", "type")})
    for name in (far, "near"):
        lab.delete(two, name)
    left = lab.keys()
    assert not {key.split("/")[0] for key in left} & {"ep", "own", "member"}
    assert records(one) == {}


def test_without_etcd(overlay: Callable[..., OverlayLab]) -> None:
    """With etcd away ADD of an l2 network is code 11 within 2 s and leaves nothing; DEL works, the last one too; what
    is owed is given back by the GC that follows. A routed network goes on attaching containers."""
    lab = overlay()
    one, two = lab.hosts
    routed = lab.conf("routed", name="routed", number=2)
    flat = lab.conf()
    before = lab.settle(flat)
    first, _ = lab.add(one, "first", flat)
    lab.add(two, "far", routed)
    _, of_mate = lab.add(one, "mate", routed)
    lab.add(two, "far2", routed)
    lab.etcd.stop()
    late, later = one.container("late"), one.container("later")
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:  # each waits for etcd as long as it may
        refused = pool.submit(lab.refused, one, late, flat)
        attached = pool.submit(lab.call, "ADD", one, later, routed)
        deleted = pool.submit(lab.call, "DEL", one, first, flat)
    assert time.monotonic() - began < 3.5  # 2 s, and interpreters that start on a busy machine
    error, result = refused.result(), attached.result().result()
    assert error["code"] == 11
    assert lab.etcd.endpoints[0] in words(error)
    assert "net/late/eth0" not in records(one)
    assert late.links() == ["lo"]
    assert deleted.result().ok
    lab.ping(later, of_mate)
    lab.delete(one, later, routed)
    assert lab.devices(one) == [result["interfaces"][3]["name"]]
    lab.etcd.start()
    assert "ep/net/" in str(lab.keys()), "what first had"
    for conf in (flat, routed):
        for host in lab.hosts:
            assert lab.gc(host, conf).ok
    for host in lab.hosts:
        for name in list(host.containers):
            host.containers.pop(name).delete()
    assert lab.traces() == before


def test_status(overlay: Callable[..., OverlayLab]) -> None:
    """Ready without a word where nothing is attached; where nobody follows the peers of a network that has containers
    still ready, with a word on stderr; but code 51, and ADD is refused, where the configuration insists on an agent.
    Without etcd 51 as well; 50 without the underlay's interface."""
    lab = overlay()
    one = lab.hosts[0]
    conf, insisting = lab.conf(), lab.conf(requireAgent=True)

    def status(conf: Conf) -> CniRun:
        return run_cni(one, lab.plugins, "pycni-overlay", "STATUS", conf)

    assert (status(conf).rc, status(conf).stderr) == (0, "")
    assert status(insisting).error_code == 50
    lab.add(one, "box", conf)
    assert status(conf).ok
    assert "no agent follows network net" in status(conf).stderr
    assert status(insisting).error_code == 51
    assert lab.refused(one, one.container("other"), insisting)["code"] == 107
    lab.agents[0].start(config="node_ttl_s = 5\n")
    wait_until(lambda: (status(insisting).rc, status(insisting).stderr) == (0, ""))
    lab.add(one, "other", insisting)
    lab.delete(one, "other", insisting)
    assert status(lab.conf(interface="nowhere")).error_code == 50
    lab.agents[0].stop()
    lab.etcd.stop()
    answer = status(conf)
    assert (answer.error_code, lab.etcd.endpoints[0] in answer.stdout) == (51, True)


@pytest.mark.parametrize("mode", ["l2", "routed"])
def test_after_a_reboot(overlay: Callable[..., OverlayLab], mode: str) -> None:
    """Links, rules and namespaces are gone, files and etcd are as before: the container that starts again has its
    address and is reached; GC gives back what the other one had."""
    lab = overlay()
    one, two = lab.hosts
    conf = lab.conf(mode)
    far, _ = lab.add(two, "far", conf)
    _, before = lab.add(one, "again", conf)
    lab.add(one, "never", conf)
    for name in ("again", "never"):
        one.containers.pop(name).delete()
    for link in (each["name"] for each in before["interfaces"] if each["name"].startswith(("ovl", "vxlan"))):
        one.ip("link", "del", link)
    one.run(["nft", "flush", "ruleset"])
    one.run(["rm", "-r", "/run/pycni"])
    query(one, "UPDATE attachments SET boot_id = 'former'")
    query(one, "UPDATE leases SET boot_id = 'former'")
    box, result = lab.add(one, "again", conf)
    assert [ip["address"] for ip in result["ips"]] == [ip["address"] for ip in before["ips"]]
    lab.add(two, "far2", conf)
    lab.ping(far, result)
    assert lab.gc(one, conf, "again").ok
    assert records(one) == {"net/again/eth0": "ready"}
    assert "/never/" not in str(lab.keys())
    assert lab.check(one, box, conf, result).ok
