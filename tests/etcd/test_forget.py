"""`pycni etcd`: what a person does about a host that is gone, and is told about its etcd."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from netns_fixtures import Etcd
from pycni.cli import entry
from pycni.etcd import requests
from pycni.etcd.networks import make_network
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys
from pycni.etcd.space import Space
from tests.etcd.cluster_hosts import NETWORK, ClusterHost
from tests.etcd.place import conf_of, gateway_client, keys_of

SPACE = Space(4, ((int(ip_address("10.1.0.2")), int(ip_address("10.1.0.9"))),))
Command = Callable[..., Any]


@pytest.fixture
def command(
    shared: Etcd,
    prefix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """`command("forget", "n1", rc=0)`: what `pycni etcd forget net1 n1` prints; with `--json` as an object."""
    monkeypatch.setattr("pycni.cli.etcd.FOLLOW_S", 1.5)
    config = {"cniVersion": "1.1.0", "name": NETWORK}
    plugin = {"type": "pycni-overlay", "etcd": keys_of(shared, prefix=prefix), "ipam": {"type": "pycni-ipam"}}
    (tmp_path / "net.conflist").write_text(json.dumps({**config, "plugins": [plugin]}))

    def run(verb: str, *more: str, rc: int = 0) -> Any:
        code = entry.run(["etcd", verb, NETWORK, *more, "--conf-dir", str(tmp_path)])
        told = capsys.readouterr()
        assert code == rc, told
        return json.loads(told.out) if "--json" in more else told.out + told.err

    return run


def test_a_host_of_an_overlay_is_forgotten(shared: Etcd, prefix: str, command: Command) -> None:
    """Its addresses are free as soon as the agents have followed, for which the command waits; who does not follow is
    named, and run again it goes on. A host that is there is refused, one that has nothing is not found."""
    with gateway_client(conf_of(shared)) as client:
        make_network(client, Keys(prefix), NETWORK, NetworkRecord(vni=0, mode="l2"))
        dead, other, bare = (ClusterHost(client, prefix, f"n{at}", f"192.0.2.{at}") for at in (1, 2, 3))
        for each in (dead, other):
            each.join()
            each.announce()
        bare.join(agent=False)
        dead.take(SPACE, "c1")
        assert "n1 is alive" in command("forget", "n1", rc=1)
        dead.cut_off()
        told = command("forget", "n1", "--json", "--quarantine", "500")
        assert (told["freed"], told["pending"]) == (0, 1)
        assert [each["node"] for each in told["waits"]] == ["n2", "n3"]
        Timer(0.5, other.follow).start()
        told = command("forget", "n1", "--quarantine", "500")
        assert "wait for host n3: it has no agent" in told
        assert "hosts without an agent are waited for until 500 s after the death" in told
        assert "n2" not in told
        problems = command("check", "--json", rc=1)["problems"]
        assert {problem["problem"] for problem in problems} == {"host n1 was declared dead: this is still to be freed"}
        assert "freed 1 record of n1" in command("forget", "n1", "--quarantine", "0")
        assert "host n1 has nothing" in command("forget", "n1", rc=3)
        assert "0 problems" in command("check")
        bare.leave()
        assert "n3 has nothing" in command("forget", "n3", rc=3)


def test_what_cannot_be_read_is_named(shared: Etcd, prefix: str, command: Command) -> None:
    """A record of a dead host that cannot be read stays, and is named; the rest of the host's is freed."""
    with gateway_client(conf_of(shared)) as client:
        host = ClusterHost(client, prefix, "n1", "192.0.2.1")
        host.join()
        host.take(SPACE, "c1")
        damaged = host.keys.own_endpoint("n1", NETWORK, "c2", "eth0")
        client.txn(requests.txn([], [requests.put(damaged, b"{}")]))
        told = command("forget", "n1")
        assert "freed 1 record of n1" in told
        assert f"this stays, since it cannot be read: {damaged}: " in told
        told = command("forget", "n1", "--json")
        assert (told["freed"], told["pending"]) == (0, 1)
        assert damaged in told["message"]


def test_a_host_is_named(shared: Etcd, prefix: str, command: Command) -> None:
    """A host of an overlay is known by its name as well; one of several with the same name has to be told by its id."""
    with gateway_client(conf_of(shared)) as client:
        first, second = (ClusterHost(client, prefix, f"n{at}", f"192.0.2.{at}") for at in (1, 2))
        for each in (first, second):
            each.join(name="worker")
        told = command("forget", "worker", rc=1)
        assert "several hosts are called worker: n1, n2" in told
        second.leave()
        assert command("forget", "worker", "--json")["node"] == "n1"
        assert not first.has(first.keys.member("n1", NETWORK))


def test_check_mentions_dated_members(shared: Etcd, command: Command) -> None:
    """An etcd with known losses is mentioned with what to install, which is no failure."""
    with gateway_client(conf_of(shared)) as client:
        ((_, status),) = client.statuses()
        assert not isinstance(status, str)
    dated = [int(part) for part in status.version.split(".")] < [3, 4, 36]
    assert ("is dated: its watches can lose events" in command("check")) is dated
    (member,) = command("check", "--json")["members"]
    assert bool(member["warning"]) is dated


def test_dump_of_an_overlay(shared: Etcd, prefix: str, command: Command) -> None:
    """Members and how far they follow are shown in words, and as they are with --json."""
    with gateway_client(conf_of(shared)) as client:
        make_network(client, Keys(prefix), NETWORK, NetworkRecord(vni=5000, mode="l2", port=4789))
        host = ClusterHost(client, prefix, "n1", "2001:db8::1")
        host.join(mac="0a:00:00:00:00:01")
        host.join("other", agent=False)
        host.announce()
        host.follow(7)
        told = command("dump")
        assert "n1 at 2001:db8::1 port 4789, 0a:00:00:00:00:01, MTU 1500" in told
        assert "MTU 1500, no agent" in told
        assert "revision 7" in told
        kinds = {entry["kind"]: entry for entry in command("dump", "--json")["entries"]}
        assert kinds["sync"]["value"]["revision"] == 7
        assert kinds["sync"]["lease"] == host.lease
        assert kinds["member"]["lease"] == 0
