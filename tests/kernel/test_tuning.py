"""The tuning plugin on the real kernel: every setting is made, checked, and taken back by whoever comes next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netns_fixtures import Container, assert_unchanged, netns_snapshot
from tests.kernel.bridge_lab import Conf, Lab, network, words
from tests.kernel.chain_lab import REFERENCE, Chain

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

KEPT = "/run/cni/tuning/c1_eth0.json"
LINK = {"mac": "02:00:00:00:00:07", "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77}
SYSCTLS = {
    "net.core.somaxconn": "0x100",
    "net.ipv4.conf.IFNAME.arp_filter": "1",
    "net/ipv6/conf/IFNAME/hop_limit": "77",
    "net/ipv4/ip_local_reserved_ports": "7,8,9",
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.route.flush": "1",
}


def tuning(**keys: Any) -> Conf:
    return {"type": "tuning", **keys}


def chain(lab: Lab, *tunings: Conf, **how: Any) -> Chain:
    return Chain(lab, [network(), *tunings], **how)


def kept(lab: Lab, path: str = KEPT) -> Conf | None:
    file = lab.host.file(path)
    return json.loads(file.read_text()) if file.exists() else None


def test_every_setting_is_made_checked_and_taken_back(lab: Lab, c1: Container) -> None:
    """MAC and flags, sysctls in both spellings, lists that the kernel writes in a way of its own, a key that can only
    be written: all there after ADD, in the result and to CHECK, and all as before after this plugin's DEL."""
    base = chain(lab)
    result = base.add(c1)
    before = netns_snapshot(c1)
    tuned = tuning(**LINK, sysctl=SYSCTLS)
    answer = base.call("ADD", {**tuned, "prevResult": result}, c1).result()
    link = lab.link("eth0", of=c1)
    assert (link["address"], link["mtu"], link["txqlen"]) == (LINK["mac"], 1400, 77)
    assert {"PROMISC", "ALLMULTI"} <= set(link["flags"])
    shown = {name: c1.sysctl(f"net/{name}") for name in ("core/somaxconn", "ipv4/conf/eth0/arp_filter")}
    assert shown == {"core/somaxconn": "256", "ipv4/conf/eth0/arp_filter": "1"}
    assert c1.sysctl("net/ipv6/conf/eth0/hop_limit") == "77"
    assert c1.sysctl("net/ipv4/ip_local_reserved_ports") == "7-9"
    interfaces = {one["name"]: one for one in answer["interfaces"]}
    assert interfaces["eth0"]["mac"] == LINK["mac"]
    assert [one for one in answer["interfaces"] if one["name"] != "eth0"] == [
        one for one in result["interfaces"] if one["name"] != "eth0"
    ]
    assert base.call("CHECK", {**tuned, "prevResult": answer}, c1).ok
    assert base.call("DEL", tuned, c1).ok
    assert_unchanged(before, netns_snapshot(c1), ignore=["*neighbour*"])
    assert kept(lab) is None


CHANGES = {
    "sysctl net/core/somaxconn is 99 instead of 0x100": "echo 99 >/proc/sys/net/core/somaxconn",
    "sysctl net/ipv4/ip_local_reserved_ports is 5": "echo 5 >/proc/sys/net/ipv4/ip_local_reserved_ports",
    "eth0 has MAC 02:00:00:00:00:08 instead of 02:00:00:00:00:07": "ip link set eth0 address 02:00:00:00:00:08",
    "eth0 has an MTU of 1399 instead of 1400": "ip link set eth0 mtu 1399",
    "eth0 is not promiscuous": "ip link set eth0 promisc off",
    "eth0 has all-multicast mode off": "ip link set eth0 allmulticast off",
    "eth0 has a queue of 78 packets instead of 77": "ip link set eth0 txqueuelen 78",
}


def test_check_names_every_setting_that_was_changed(lab: Lab, c1: Container) -> None:
    """One message with all of it, code 106; a container without the interface is told so, too."""
    plugins = chain(lab, tuning(**LINK, sysctl=SYSCTLS))
    result = plugins.add(c1)
    for command in CHANGES.values():
        c1.run(["sh", "-c", command])
    (answer,) = plugins.check(c1, {**result, "ips": [], "routes": [], "interfaces": result["interfaces"][:2]})
    assert answer.error_code == 106
    for said in CHANGES:
        assert said in answer.json["msg"]
    c1.run(["ip", "link", "set", "eth0", "name", "other"], check=False)
    plugins.delete(c1, result)
    missing = plugins.call("CHECK", {**plugins.plugins[1], "prevResult": result}, c1)
    assert "eth0 is missing" in missing.json["msg"]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"sysctl": {"net.core.somaxconn": "100", "net.ipv4.ip_forward": "1", "net.no.such": "1"}}, "net/no/such"),
        ({"sysctl": {"net.core.somaxconn": "100", "net.ipv4.ip_local_port_range": "9 1"}}, "ip_local_port_range"),
        ({"sysctl": {"net.core.somaxconn": "100"}, "mac": LINK["mac"], "mtu": 65535, "txQLen": 5, "promisc": True}, ""),
    ],
)
def test_a_refused_setting_takes_the_others_back(lab: Lab, c1: Container, last: Conf, said: str) -> None:
    """Nothing half made: the settings before the one that the kernel refuses are as they were, no file is left."""
    plugins = chain(lab)
    result = plugins.add(c1)
    if not said:
        last = {**last, "sysctl": {**last["sysctl"], "net.ipv6.conf.IFNAME.hop_limit": "256"}}
    before = lab.traces(c1)
    answer = plugins.call("ADD", {**tuning(**last), "prevResult": result}, c1)
    assert answer.error_code == 999
    assert "failed to set sysctl" in answer.json["msg"] and said in answer.json["msg"]
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/run/cni", "*/file/run/cni/tuning", "*neighbour*"])


def test_a_key_that_is_the_hosts_is_named(lab: Lab, c1: Container) -> None:
    """As net.core.rmem_max, which a container can only read: key, value and where to set it, not a missing privilege
    alone; and nothing of the list is changed."""
    plugins = chain(lab)
    result = plugins.add(c1)
    before = lab.traces(c1)
    refused = tuning(sysctl={"net.core.somaxconn": "100", "net.core.rmem_max": "9999"})
    answer = plugins.call("ADD", {**refused, "prevResult": result}, c1)
    assert answer.json["msg"] == "failed to set sysctl net/core/rmem_max to 9999: Permission denied"
    assert "set it there" in answer.json["details"]
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/run/cni", "*/file/run/cni/tuning", "*neighbour*"])


def test_an_mtu_that_would_cost_ipv6_addresses_is_refused(lab: Lab, c1: Container, c2: Container) -> None:
    """The kernel removes them for good, so neither DEL nor an undo could; without IPv6 the same MTU is fine."""
    result = chain(lab).add(c1)
    before = lab.traces(c1)
    answer = chain(lab).call("ADD", {**tuning(mtu=1279), "prevResult": result}, c1)
    assert answer.error_code == 7
    assert "fd00:1::2/64" in answer.json["msg"]
    # a bridge's link-local address becomes usable, and has routes, some time after the bridge was made
    assert_unchanged(before, lab.traces(c1), ignore=["*neighbour*", "*dst=fe80*"])
    lab.delete(network(), c1)
    single = Chain(lab, [network(families=[4]), tuning(mtu=1279)])
    result = single.add(c2)
    assert lab.link("eth0", of=c2)["mtu"] == 1279
    single.delete(c2, result)


def test_a_result_that_cannot_be_told_takes_all_back(lab: Lab, c1: Container) -> None:
    """A version whose results need an address, after a layer 2 network: an error, so nothing is changed."""
    layer2 = network(ipam={}, isDefaultGateway=None, ipMasq=None)
    result = Chain(lab, [layer2]).add(c1)
    before = lab.traces(c1)
    plugins = Chain(lab, [tuning(**LINK, sysctl={"net.core.somaxconn": "9"})], version="0.2.0")
    answer = plugins.call("ADD", {**plugins.plugins[0], "prevResult": result}, c1)
    assert "no valid IP addresses" in answer.json["msg"]
    assert_unchanged(before, lab.traces(c1), ignore=["*/file/run/cni", "*/file/run/cni/tuning", "*neighbour*"])
    lab.delete(layer2, c1)


def test_del_works_with_the_namespace_gone_and_again(lab: Lab, c1: Container) -> None:
    """The kept file goes; a second DEL, and one without any ADD, succeed and say nothing."""
    plugins = chain(lab, tuning(**LINK))
    plugins.add(c1)
    assert kept(lab) is not None
    c1.delete()
    plugins.delete("c1")
    assert kept(lab) is None
    plugins.delete("c1")
    plugins.delete("c2")


def test_del_leaves_another_namespace_of_the_same_id_alone(lab: Lab, c1: Container, c2: Container) -> None:
    """A container that was started anew without DEL: what was kept of the old one is not written into the new one."""
    plugins = chain(lab, tuning(mtu=1400))
    plugins.add(c1)
    c2.run(["sh", "-c", "ip link add eth0 type bridge && ip link set eth0 mtu 1300"])
    assert plugins.call("DEL", plugins.plugins[1], "c1", netns=c2).ok
    assert lab.link("eth0", of=c2)["mtu"] == 1300
    assert kept(lab) is None
    lab.delete(network(), c1)


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"mac": 7}', "\x00"])
def test_a_broken_kept_file_is_no_obstacle(lab: Lab, c1: Container, garbage: str) -> None:
    """As a crash leaves it: DEL forgets it, and an ADD writes it anew."""
    plugins = chain(lab, tuning(mtu=1400))
    lab.host.file("/run/cni/tuning").mkdir(parents=True)
    lab.host.file(KEPT).write_text(garbage)
    result = plugins.add(c1)
    assert kept(lab) == {"mtu": 1500} | {"pycni": (kept(lab) or {})["pycni"]}
    lab.host.file(KEPT).write_text(garbage)
    lab.host.file(f"{KEPT}.new").write_text("half")
    plugins.delete(c1, result)
    assert list(lab.host.file("/run/cni/tuning").iterdir()) == []


def test_a_list_may_tune_twice(lab: Lab, c1: Container) -> None:
    """The second one changes what the first one did; DEL brings back what was there before both."""
    first = tuning(mtu=1400, sysctl={"net.core.somaxconn": "100"})
    plugins = chain(lab, first, tuning(mtu=1300, txQLen=5, sysctl={"net.core.somaxconn": "200"}))
    somaxconn = c1.sysctl("net/core/somaxconn")
    plugins.add(c1)
    assert (lab.link("eth0", of=c1)["mtu"], c1.sysctl("net/core/somaxconn")) == (1300, "200")
    for plugin in reversed(plugins.plugins[1:]):
        assert plugins.call("DEL", plugin, c1).ok
    link = lab.link("eth0", of=c1)
    assert (link["mtu"], link["txqlen"], c1.sysctl("net/core/somaxconn")) == (1500, 1000, somaxconn)
    lab.delete(network(), c1)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_sysctl_of_two_networks_stays_with_the_one_that_is_left(lab: Lab, c1: Container, order: list[int]) -> None:
    """A container leaves one network and lives on: what the other set is there, to its CHECK, too; both restore all."""
    keys = ("net/core/somaxconn", "net/ipv4/tcp_keepalive_time")
    before = [c1.sysctl(key) for key in keys]
    values = {1: {keys[0]: "100", keys[1]: "7"}, 2: {keys[0]: "200"}}
    tuned = {}
    for number, sysctls in values.items():
        net = network(f"net{number}", number)
        result = lab.add(net, c1, ifname=f"eth{number}")
        tuned[number] = {**net, **tuning(sysctl=sysctls), "prevResult": result}
        lab.add(tuned[number], c1, ifname=f"eth{number}")
    first, last = order
    lab.delete(tuned[first], c1, ifname=f"eth{first}")
    assert [c1.sysctl(key) for key in keys] == [
        values[last].get(key, was) for key, was in zip(keys, before, strict=True)
    ]
    assert lab.call("CHECK", tuned[last], c1, ifname=f"eth{last}").ok
    lab.delete(tuned[last], c1, ifname=f"eth{last}")
    assert [c1.sysctl(key) for key in keys] == before


def test_arguments_decide_over_the_configuration(lab: Lab, c1: Container) -> None:
    """args.cni over runtimeConfig over CNI_ARGS over the list; args.cni.sysctl works where the list has none."""
    args = {"args": {"cni": {"sysctl": {"net.core.somaxconn": "100"}, "txQLen": 9}}}
    macs = {n: f"02:00:00:00:00:0{n}" for n in range(1, 5)}
    base = chain(lab)
    result = base.add(c1)

    def mac(**keys: Any) -> str:
        conf = {**tuning(mac=macs[1], **keys), "prevResult": result}
        answer = base.call("ADD", conf, c1, args=f"MAC={macs[2]};K8S_POD_NAME=a;IgnoreUnknown=1")
        return str(answer.result()["interfaces"][2]["mac"])

    assert mac() == macs[2]
    assert mac(runtimeConfig={"mac": macs[3]}) == macs[3]
    assert mac(runtimeConfig={"mac": macs[3]}, args={"cni": {"mac": macs[4]}}) == macs[4]
    assert base.call("ADD", {**tuning(**args), "prevResult": result}, c1).ok
    assert (lab.link("eth0", of=c1)["txqlen"], c1.sysctl("net/core/somaxconn")) == (9, "100")
    base.delete(c1, result)


def test_the_hosts_allowlist_is_obeyed(lab: Lab, c1: Container) -> None:
    """Every key as it is written must match a line, which may have classes of RE2; STATUS says so before any ADD."""
    plugins = chain(lab)
    result = plugins.add(c1)
    before = lab.traces(c1)
    lab.host.file("/etc/cni/tuning").mkdir()
    lab.host.file("/etc/cni/tuning/allowlist.conf").write_text(
        "^net\\.core\\.[[:alpha:]]+$\n\n  ^net.ipv4.conf.IFNAME \n"
    )
    allowed = {"net.core.somaxconn": "100", "net/ipv4/conf/IFNAME/arp_filter": "1"}
    assert plugins.call("ADD", {**tuning(sysctl=allowed), "prevResult": result}, c1).ok
    assert plugins.call("DEL", tuning(), c1).ok
    for key in ("net/core/wmem_default", "net.core.somaxconn_", "net.ipv4.ip_forward"):
        conf = tuning(sysctl={**allowed, key: "1"})
        answer = plugins.call("ADD", {**conf, "prevResult": result}, c1)
        assert answer.json["msg"].startswith(f"Sysctl {key} is not allowed. Only the following sysctls are allowed:")
        status = plugins.call("STATUS", conf, "")
        assert status.error_code == 50
    lab.host.file("/etc/cni/tuning/allowlist.conf").write_text("(")
    answer = plugins.call("ADD", {**tuning(sysctl=allowed), "prevResult": result}, c1)
    assert "is no regular expression" in words(answer.json)
    ignore = ["*/file/run/cni", "*/file/run/cni/tuning", "*/file/etc/cni/tuning*", "*neighbour*"]
    assert_unchanged(before, lab.traces(c1), ignore=ignore)


def test_gc_forgets_the_dead_of_its_own_network(lab: Lab, c1: Container, c2: Container) -> None:
    """With a list all that are not on it; without one only those of an earlier boot. Others' files stay."""
    plugins = chain(lab, tuning(mtu=1400))
    for container in (c1, c2):
        plugins.add(container)
    directory = lab.host.file("/run/cni/tuning")
    (directory / "c3_eth0.json").write_text('{"mtu": 1500}')
    other = json.dumps(kept(lab)).replace("net/c1", "other/c1")
    (directory / "c4_eth0.json").write_text(other)
    conf = plugins.plugins[1]
    assert plugins.call("GC", conf, "").ok
    assert len(list(directory.iterdir())) == 4
    plugins.gc("c2")
    assert sorted(path.name for path in directory.iterdir()) == ["c2_eth0.json", "c3_eth0.json", "c4_eth0.json"]
    (directory / "c2_eth0.json").write_text(json.dumps({"pycni": {"attachment": "net/c2/eth0", "boot": "earlier"}}))
    assert plugins.call("GC", conf, "").ok
    assert sorted(path.name for path in directory.iterdir()) == ["c3_eth0.json", "c4_eth0.json"]
    for container in (c1, c2):
        lab.delete(network(), container)


def test_status_tells_where_nothing_can_be_kept(lab: Lab) -> None:
    """A dataDir that is no directory is code 50 before any container comes; one that is yet to be made is fine."""
    plugins = Chain(lab, [])
    lab.host.file("/run/file").write_text("")
    bad = plugins.call("STATUS", tuning(mtu=1400, dataDir="/run/file/x"), "")
    assert bad.error_code == 50
    assert plugins.call("STATUS", tuning(mtu=1400, dataDir="/run/a/b/c"), "").ok
    assert plugins.call("STATUS", tuning(), "").ok


REFERENCED = {key: value for key, value in LINK.items() if key != "txQLen"}  # Debian's is older than that key


@pytest.mark.needs("tool:/usr/lib/cni/tuning")
@pytest.mark.parametrize("adds", ["ours", "reference"])
def test_del_by_the_other_plugin_takes_all_back(lab: Lab, c1: Container, adds: str) -> None:
    """What either wrote down is restored by the other, and the file is gone."""
    base = chain(lab)
    result = base.add(c1)
    before = netns_snapshot(c1)
    tuned = {**tuning(**REFERENCED), "prevResult": result}
    sides = {"ours": lab.plugins, "reference": REFERENCE}
    base.by["tuning"] = sides[adds]
    assert base.call("ADD", tuned, c1).ok
    assert lab.link("eth0", of=c1)["mtu"] == 1400
    base.by["tuning"] = sides["reference" if adds == "ours" else "ours"]
    assert base.call("DEL", tuned, c1).ok
    assert_unchanged(before, netns_snapshot(c1), ignore=["*neighbour*"])
    assert kept(lab) is None


@pytest.mark.needs("tool:/usr/lib/cni/tuning")
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.0.0"])
def test_result_and_check_are_the_references(lab: Lab, c1: Container, version: str) -> None:
    """The same result for the same configuration, and each one's CHECK accepts what the other's ADD made."""
    plugins = chain(lab, tuning(**REFERENCED, sysctl={"net.core.somaxconn": "100"}), version=version)
    (before,) = (Chain(lab, [network()], version=version).add(c1),)
    tuned = {**plugins.plugins[1], "prevResult": before}
    ours = plugins.call("ADD", tuned, c1).result()
    plugins.by["tuning"] = REFERENCE
    assert plugins.call("CHECK", {**tuned, "prevResult": ours}, c1).ok or version == "0.2.0"
    theirs = plugins.call("ADD", tuned, c1).result()
    assert ours == {key: value for key, value in theirs.items() if value or version != "1.0.0"}  # an empty dns
    plugins.by.clear()
    assert plugins.call("CHECK", {**tuned, "prevResult": theirs}, c1).ok or version == "0.2.0"
    plugins.delete(c1, ours)
