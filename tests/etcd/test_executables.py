"""Through the real executables, on hosts that reach etcd over the network: standalone, in the agent, under a reference
plugin; and `pycni etcd`."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Etcd, Namespace, Underlay, needs, run_cni, wait_until
from tests.kernel.agent_lab import BIN, AgentHost

REFERENCE = "/usr/lib/cni"
CONF_DIR = "/etc/cni/net.d"


def network(etcd: Etcd, **ipam: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "shared",
        "type": "pycni-bridge",
        "bridge": "cni1",
        "isGateway": True,
        "ipam": {
            "type": "pycni-ipam",
            "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]],
            "etcd": {"endpoints": etcd.endpoints, "prefix": "/pycni/lab"},
            **ipam,
        },
    }


def bare(result: dict[str, Any]) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


@pytest.fixture
def world(
    underlay: Callable[..., Underlay], make_etcd: Callable[..., Etcd], tmp_path: Path
) -> tuple[Etcd, list[AgentHost]]:
    """Two hosts with pycni installed, and an etcd on the first one's address."""
    segment = underlay(2)
    first = segment.hosts[0]
    etcd = make_etcd(places=[(first, segment.address(first))])
    hosts = [AgentHost(host, tmp_path / f"{host.name}.log") for host in segment.hosts]
    for each, kind in zip(hosts, ("standalone", "c"), strict=True):
        each.install(kind)
    return etcd, hosts


def test_two_hosts_one_subnet(world: tuple[Etcd, list[AgentHost]]) -> None:
    """Standalone on one host, by the agent on the other: different addresses of both families from one subnet, CHECK
    and STATUS content; `pycni etcd` shows them. With etcd gone ADD is code 11 within 2 s, DEL works, traffic goes on,
    and the agent gives back what it owes when etcd is there again."""
    etcd, (alone, served) = world
    conf = network(etcd)
    served.start(config="reconcile_s = 0.5\n")
    added = []
    for each in (alone, served):
        for box in (each.host.container("c0"), each.host.container("c1")):
            added.append((each, box, each.call("ADD", conf, box).result()))
    ips = [ip for _, _, result in added for ip in bare(result)]
    assert len(set(ips)) == 8
    for each, box, result in added:
        assert each.call("CHECK", {**conf, "prevResult": result}, box).ok
    assert served.counts()["ADD"] == 2
    for each in (alone, served):
        each.host.run(["mkdir", "-p", CONF_DIR])
        each.host.run(["sh", "-c", f"cat >{CONF_DIR}/10-shared.conflist"], input=as_list(conf))
    dump = served.json("etcd", "dump", "shared")
    assert {entry["of"][1] for entry in dump["entries"] if entry["kind"] == "ep"} == set(ips)
    assert "KIND" in alone.pycni("etcd", "dump", "shared").stdout
    assert alone.json("etcd", "check", "shared")["problems"] == []
    assert "12 records below /pycni/lab, 0 problems" in alone.pycni("etcd", "check", "shared").stdout
    node = served.host.run(["cat", "/var/lib/pycni/node"]).stdout.strip()
    leak = f"/pycni/lab/v1/own/{node}/ep/shared/lost/eth0"
    record = b64encode(b'{"v": 1, "id": "x", "ips": ["10.1.0.9"], "created": 5.0}').decode()
    etcd.members[0].post("/v3/kv/put", {"key": b64encode(leak.encode()).decode(), "value": record})
    told = served.pycni("etcd", "check", "shared", rc=1).stdout
    assert f"{leak}: this host took 10.1.0.9 and knows nothing of it: `pycni gc` gives it back" in told
    assert "knows nothing" not in alone.pycni("etcd", "check", "shared", rc=1).stdout
    etcd.members[0].post("/v3/kv/deleterange", {"key": b64encode(leak.encode()).decode()})

    etcd.stop()
    # At the same time, since every one waits for etcd as long as it may.
    late = [each.host.container("late") for each in (alone, served)]
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        adds = [pool.submit(each.call, "ADD", conf, box) for each, box in zip((alone, served), late, strict=True)]
        dels = [pool.submit(each.call, "DEL", conf, each.host.containers["c0"]) for each in (alone, served)]
    assert time.monotonic() - began < 4  # 2 s, and four interpreters that start on a busy machine
    for refused in adds:
        assert refused.result().error_code == 11
        assert etcd.endpoints[0] in refused.result().stdout
    assert [done.result().stdout for done in dels] == ["", ""]
    for each in (alone, served):
        assert each.host.ip_json("link", "show", "master", "cni1"), "the other one's link stays"
    ping(served.host.containers["c1"], "10.1.0.1")
    assert "does not answer" in alone.pycni("etcd", "dump", "shared", rc=1).stderr
    etcd.start()
    wait_until(lambda: not owned(served, node, "c0"), 10.0, "the agent gave back what it owed")
    assert owned(served, node, "c1")
    assert "1 attachment still to be given back" in alone.pycni("etcd", "check", "shared", rc=1).stdout
    assert served.call("DEL", conf, served.host.containers["c1"]).ok
    gone = alone.host.run(["cat", "/var/lib/pycni/node"]).stdout.strip()
    assert "declared dead 0 s ago" in served.pycni("etcd", "forget", "shared", gone).stdout
    assert served.json("etcd", "forget", "shared", gone, "--quarantine", "0")["freed"] > 0
    served.pycni("etcd", "forget", "shared", gone, rc=3)
    assert [entry["kind"] for entry in served.json("etcd", "dump", "shared")["entries"]] == ["fence"]


def test_reference_plugin_with_our_ipam(world: tuple[Etcd, list[AgentHost]]) -> None:
    """The reference bridge plugin asks pycni-ipam as the executable it is; per-host blocks give each host a gateway."""
    etcd, hosts = world
    needs("tool:ip")
    if not Path(REFERENCE, "bridge").exists():
        pytest.skip(f"needs {REFERENCE}/bridge")
    conf = {**network(etcd, ranges=[[{"subnet": "10.1.0.0/16"}]]), "type": "bridge"}
    conf["ipam"]["etcd"]["blocks"] = {"ipv4": 26}
    gateways = set()
    for each in hosts:
        box = each.host.container("c1")
        both = f"{REFERENCE}:{BIN}"
        result = run_cni(each.host, Path(REFERENCE), "bridge", "ADD", conf, container_id="c1", netns=box, cni_path=both)
        (ip,) = result.result()["ips"]
        assert ip["address"].endswith("/26")
        gateways.add(ip["gateway"])
        ping(box, ip["gateway"])
        done = run_cni(each.host, Path(REFERENCE), "bridge", "DEL", conf, container_id="c1", netns=box, cni_path=both)
        assert done.ok, done
    assert len(gateways) == 2


def owned(host: AgentHost, node: str, container: str) -> bool:
    entries = host.json("etcd", "dump", "shared")["entries"]
    return [node, "shared", container, "eth0"] in [entry["of"] for entry in entries if entry["kind"] == "own-ep"]


def as_list(conf: dict[str, Any]) -> str:
    plugin = {key: value for key, value in conf.items() if key not in ("cniVersion", "name")}
    return json.dumps({"cniVersion": conf["cniVersion"], "name": conf["name"], "plugins": [plugin]})


def ping(box: Namespace, target: str) -> None:
    box.run(["ping", "-c1", "-W2", target])
