"""`pycni peers`, `pycni networks` and `pycni ipam usage` on networks that span hosts."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from netns_fixtures import Host
from tests.kernel.agent_lab import AgentHost
from tests.overlay.overlay_lab import Conf, OverlayLab, wait_until

CONF_DIR = "/etc/cni/net.d"
SHORT = "node_ttl_s = 2\n"  # what agents know is said at renewals of that lease


def configure(host: Host, *confs: Conf) -> None:
    """Put networks where a runtime of *host* would look for them."""
    host.run(["mkdir", "-p", CONF_DIR])
    for conf in confs:
        plugin = {key: value for key, value in conf.items() if key not in ("name", "cniVersion")}
        whole = {"cniVersion": conf["cniVersion"], "name": conf["name"], "plugins": [plugin]}
        host.run(["sh", "-c", f"cat >{CONF_DIR}/10-{conf['name']}.conflist"], input=json.dumps(whole))


def states(place: AgentHost, network: str) -> dict[str, str]:
    """Host name to state."""
    found = place.json("peers", network, rc=None)
    return {host["name"]: host["state"] for one in found[0]["networks"] for host in one["hosts"]}


def test_peers_without_and_with_agents(overlay: Callable[..., OverlayLab]) -> None:
    """Standalone hosts are "no agent"; with agents all are in sync, a host whose agent was killed becomes suspect, and
    tables name hosts, tunnels, containers and what is known. `networks` says it in a line, and `ipam usage` counts the
    addresses of both hosts. `doctor` says
    who follows. Without etcd the answer is a failure that names it, and what this host knows stands. A record without a
    configuration can be removed by its name."""
    lab = overlay()
    l2, routed = lab.conf(name="flat"), lab.conf("routed", name="blocks", number=2)
    one, two = lab.agents
    for host in lab.hosts:
        configure(host, l2, routed)
    assert [(each["name"], each["kind"], each["shared"]) for each in one.json("networks")] == [
        ("blocks", "routed", None),
        ("flat", "l2", None),
    ]
    made = one.json("networks", "create", "flat")
    assert (made["mode"], made["subnets"]) == ("l2", ["10.1.0.0/16", "fd00:1::/64"])
    assert one.json("networks", "create", "flat") == made
    remove_by_name(one, lab.conf(name="gone", number=3))
    for host, name in zip(lab.hosts, ("c1", "c2"), strict=True):
        lab.add(host, name, l2)
        lab.add(host, f"r{name}", routed)
    assert states(one, "flat") == {"h1": "no agent", "h2": "no agent"}
    text = one.pycni("peers").stdout
    for word in (
        "network flat: l2",
        "; 4 blocks",
        "h1 (this)",
        lab.tunnel_address(lab.hosts[1]),
        "network blocks: routed",
        "no agent",
    ):
        assert word in text
    endpoints = one.json("peers", "flat", "--endpoints")
    assert {(each["container"], each["node"]) for each in endpoints} == {
        (name, lab.node(host)) for name, host in zip(("c1", "c2"), lab.hosts, strict=True)
    }
    assert "h2" in one.pycni("peers", "flat", "--endpoints").stdout
    usage = one.json("ipam", "usage")
    shared = [each for each in usage if each["network"] == "flat"]
    assert [(each["pool"], each["leased"], each["here"], each["known"]) for each in shared] == [
        ("shared", 2, 1, True)
    ] * 2
    blocks = [each for each in usage if each["network"] == "blocks" and each["pool"] == "blocks"]
    assert [each["leased"] for each in blocks] == [128, 128] and all(each["here"] == 1 for each in blocks)
    mine = [each for each in usage if each["pool"] == "block"]
    assert [(each["leased"], each["size"]) for each in mine] == [(1, 61), (1, 61)]
    assert "blocks" in one.pycni("ipam", "usage").stdout
    leased = one.json("ipam", "list")[0]["address"]
    assert "share in etcd" in one.pycni("ipam", "release", leased, "--yes", rc=1).stderr

    looked = doctor(one)
    assert (looked["overlay networks"], looked["etcd"]) == ("WARN", "OK")
    for place in (one, two):
        place.start(config=SHORT)
    wait_until(lambda: states(one, "flat") == {"h1": "in sync", "h2": "in sync"}, 20, "both are in sync")
    listed = {each["name"]: each for each in one.json("networks")}
    assert listed["flat"]["shared"]["hosts"][1]["containers"] == 1
    wait_until(lambda: "in sync" in two.pycni("networks").stdout, 20, "both are, as h2 sees it")
    assert doctor(one)["overlay networks"] == "OK"
    assert "take part" in one.pycni("networks", "remove", "flat", rc=1).stderr
    for words in (("nothing",), ("nothing", "--endpoints")):
        assert "no network nothing" in one.pycni("peers", *words, rc=3).stderr
        assert one.json("peers", *words, rc=3)["msg"] == "no network nothing is in etcd"

    two.stop(signal.SIGKILL)
    wait_until(lambda: states(one, "flat") == {"h1": "in sync", "h2": "suspect"}, 20, "h2 is suspect")
    assert "not heard of any more" in one.pycni("peers", "flat").stdout

    lab.etcd.kill()
    away = wait_until(lambda: stale(one), 20, "the agent notices that etcd is away")
    assert {host["name"] for network in away[0]["networks"] for host in network["hosts"]} == {"h1", "h2"}
    one.stop(signal.SIGKILL)
    silent = one.pycni("peers", rc=1)
    assert "etcd does not answer" in silent.stdout
    partial = [each for each in one.json("ipam", "usage") if each["network"] == "flat"]
    assert [(each["leased"], each["known"]) for each in partial] == [(1, False)] * 2


@pytest.mark.parametrize("family", [4, 6])
def test_own_part_is_known_without_etcd(overlay: Callable[..., OverlayLab], family: int) -> None:
    """Neither etcd nor an agent answers: this host still tells what it takes part in itself, by which tunnel and with
    how many containers, that it knows no more, and of a network that it did not join only that nobody can say. An agent
    that never heard of etcd changes nothing about it."""
    lab = overlay(1, family=family)
    flat, routed, other = lab.conf(name="flat"), lab.conf("routed", name="blocks", number=2), lab.conf(name="other")
    (one,), (host,) = lab.agents, lab.hosts
    configure(host, flat, routed, other)
    for name, conf in (("c1", flat), ("c2", flat), ("r1", routed)):
        lab.add(host, name, conf)
    vni = {each["name"]: each["shared"]["vni"] for each in one.json("networks") if each["shared"]}
    lab.etcd.kill()
    for start in (None, one.start):
        if start is not None:
            start()
        rows = {line.split()[0]: line.split()[1:] for line in one.pycni("networks", rc=1).stdout.splitlines() if line}
        silent = ["unknown:", "etcd", "is", "silent"]
        assert rows["flat"] == ["l2", str(vni["flat"]), "10.1.0.0/16", "fd00:1::/64", "≥1", "≥2", *silent]
        assert rows["blocks"] == ["routed", str(vni["blocks"]), "10.2.0.0/16", "fd00:2::/64", "≥1", "-", *silent]
        assert rows["other"] == ["l2", "-", "10.1.0.0/16", "fd00:1::/64", "-", "0", *silent]
        text = one.pycni("peers", rc=1).stdout
        for words in ("; 2 containers here", "; 2 blocks here", lab.tunnel_address(host), "this host's own part"):
            assert words in text
        (cluster,) = one.json("peers", "flat", rc=1)
        (network,) = cluster["networks"]
        (shown,) = network["hosts"]
        assert (shown["name"], shown["state"], shown["containers"]) == ("h1", "unknown", 2)
        assert cluster["reason"]


def remove_by_name(place: AgentHost, conf: Conf) -> None:
    """A record in etcd whose network is configured nowhere any more is removed, once."""
    configure(place.host, conf)
    assert place.json("networks", "create", conf["name"])["vni"]
    place.host.run(["rm", f"{CONF_DIR}/10-{conf['name']}.conflist"])
    assert place.json("networks", "remove", conf["name"])["prefix"] == conf["etcd"]["prefix"]
    assert "no network called" in place.pycni("networks", "remove", conf["name"], rc=3).stderr


def doctor(place: AgentHost) -> dict[str, str]:
    """Check to level."""
    found: list[dict[str, str]] = json.loads(place.pycni("doctor", "--json", rc=None).stdout)
    return {finding["check"]: finding["level"] for finding in found}


def stale(place: AgentHost) -> list[dict[str, Any]]:
    """The clusters, once one of them is no more as etcd has it."""
    found: list[dict[str, Any]] = place.json("peers", rc=None)
    return found if found and found[0]["reason"] else []
