"""Many at once: a thousand containers by eight processes, a full bridge, the same id twice at a time."""

from __future__ import annotations

import ctypes
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from netns_fixtures import Container, assert_unchanged, can_ping, wait_until
from pycni.attach.begin import EveryoneElse
from pycni.cni.names import Attachment
from pycni.host.firewall import open_firewall
from pycni.store import open_store
from tests.kernel.bridge_lab import STATE, Conf, Lab, masqueraded, network, words

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

CONTAINERS = int(os.environ.get("PYCNI_TEST_CONTAINERS", "1000"))  # a bridge takes 1023 ports
WORKERS = 8
CLONE_NEWNET, MS_BIND = 0x40000000, 0x1000

# One worker: its share of the containers, one call after the other, each answer a file.
WORKER = """
cd /run/crowd
export CNI_COMMAND=$1 CNI_IFNAME=eth0 CNI_PATH=$2
number=$3
while [ $number -le $5 ]; do
    CNI_CONTAINERID=c$number CNI_NETNS=/run/netns/n$number $2/bridge <conf >$1.$number || echo "$number" >>failed.$1
    number=$((number + $4))
done
"""


class Crowd:
    """That many bare namespaces at /run/netns/n1, n2, … of the host: no process each, so they cost a millisecond."""

    def __init__(self, lab: Lab, size: int) -> None:
        self.lab = lab
        self.size = size
        lab.host.in_namespace(self._make)

    def _make(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        os.mkdir("/run/crowd")
        for number in range(1, self.size + 1):
            path = f"/run/netns/n{number}"
            Path(path).touch()
            if libc.unshare(CLONE_NEWNET) or libc.mount(
                b"/proc/thread-self/ns/net", path.encode(), None, MS_BIND, None
            ):
                raise OSError(ctypes.get_errno(), path)

    def run(self, command: str, conf: Conf) -> None:
        """*command* for all of them, by WORKERS processes at a time; every call must work."""
        self.lab.host.file("/run/crowd/conf").write_text(json.dumps(conf))
        share = (str(WORKERS), str(self.size))
        workers = [
            self.lab.host.popen(["sh", "-c", WORKER, "sh", command, str(self.lab.plugins), str(first), *share])
            for first in range(1, WORKERS + 1)
        ]
        for worker in workers:
            assert worker.wait(120) == 0
        failed = self.lab.host.file(f"/run/crowd/failed.{command}")
        assert not failed.exists(), self.answer(command, failed.read_text().split()[0])

    def answer(self, command: str, number: object) -> str:
        return self.lab.host.file(f"/run/crowd/{command}.{number}").read_text()

    def pings(self, number: int, address: str) -> bool:
        # Again and again: what is flooded to a thousand ports overflows netdev_max_backlog, and some of it is lost.
        argv = ["nsenter", f"--net=/run/netns/n{number}", "ping", "-c1", "-i.2", "-w10", address]
        return self.lab.host.run(argv, check=False).returncode == 0


@pytest.mark.crowd
def test_a_thousand_containers_by_eight_processes(wide: Lab) -> None:
    """No address twice, all of them work, and after as concurrent DELs, and a GC, the host is what it was."""
    conf = network(ipam={"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/20"}], [{"subnet": "fd00:1::/64"}]]})
    wide.host.sysctl("net/ipv4/ip_forward", "1")
    wide.host.sysctl("net/ipv6/conf/all/forwarding", "1")
    crowd = Crowd(wide, CONTAINERS)
    before = wide.traces()
    crowd.run("ADD", conf)
    results = {number: json.loads(crowd.answer("ADD", number)) for number in range(1, CONTAINERS + 1)}
    addresses = Counter(ip["address"] for result in results.values() for ip in result["ips"])
    assert len(addresses) == 2 * CONTAINERS
    assert len(wide.ports()) == CONTAINERS
    assert len(wide.leases()) == 2 * CONTAINERS
    assert set(wide.records().values()) == {"ready"}
    for number in range(1, CONTAINERS + 1, CONTAINERS // 10):
        assert crowd.pings(number, "10.1.0.1")
        assert crowd.pings(number, "198.51.100.1")
        other = results[CONTAINERS + 1 - number]["ips"]
        assert crowd.pings(number, other[0]["address"].split("/")[0])
        assert crowd.pings(number, other[1]["address"].split("/")[0])
    crowd.run("DEL", conf)
    assert (wide.records(), wide.leases(), wide.ports(), wide.ruleset()) == ({}, [], [], "")
    assert wide.gc(conf).ok
    assert_unchanged(before, wide.traces(), ignore=["*/file/run/crowd*"])


def test_first_containers_of_a_host_at_once(lab: Lab) -> None:
    """Bridge, tables, state file and gateway are missing, and everybody makes them: all work."""
    crowd = Crowd(lab, WORKERS)
    for backend in ("nftables", "iptables"):
        for families in ((4, 6), (4,)):
            conf = network(families=families, ipMasqBackend=backend)
            crowd.run("ADD", conf)
            assert all(crowd.pings(number, "10.1.0.1") for number in range(1, WORKERS + 1))
            crowd.run("DEL", conf)
            assert "PYCNI" not in lab.ruleset()
            assert "inet pycni" not in lab.ruleset()
            assert lab.gc(conf).ok
            assert "cni1" not in lab.host.links()


def test_comings_and_goings_leave_the_others_connected(wide: Lab) -> None:
    """ADD and DEL of two networks at the same time, the last attachments of one among them: who stays has its rules."""
    crowd = Crowd(wide, 8)
    coming, staying = network("coming", 1), network("staying", 2)

    def come_and_go(number: int) -> None:
        how = {"netns": f"/run/netns/n{number}"}
        for _ in range(4):
            assert wide.call("ADD", coming, f"c{number}", **how).ok
            assert wide.call("DEL", coming, f"c{number}", **how).ok

    def stay(number: int) -> Conf:
        result: Conf = {}
        for _ in range(4):
            wide.call("DEL", staying, f"c{number}", netns=f"/run/netns/n{number}")
            result = wide.call("ADD", staying, f"c{number}", netns=f"/run/netns/n{number}").result()
        return result

    with ThreadPoolExecutor(8) as pool:
        going = [pool.submit(come_and_go, number) for number in range(1, 5)]
        kept = {number: pool.submit(stay, number) for number in range(5, 9)}
        for each in going:
            each.result()
        results = {number: each.result() for number, each in kept.items()}
    for number, result in results.items():
        how = {"netns": f"/run/netns/n{number}"}
        assert wide.call("CHECK", {**staying, "prevResult": result}, f"c{number}", **how).ok
        assert crowd.pings(number, "198.51.100.1")
    assert set(wide.records()) == {f"staying/c{number}/eth0" for number in range(5, 9)}


def test_a_delete_beside_an_add_that_puts_everything_back(lab: Lab, c1: Container, c2: Container) -> None:
    """After a flush: what a DEL finds gone does not come back behind it, where nobody would remove it any more."""
    conf = network()
    kept = [ip["address"].split("/")[0] for ip in lab.add(conf, c1)["ips"]]
    lab.add(conf, c2)
    lab.host.run(["nft", "flush", "ruleset"])

    def put_back(own: Attachment) -> None:
        with open_store() as store, closing(open_firewall("nftables")) as firewall:
            record = store.attachments.get(own)
            assert record is not None
            with EveryoneElse(store, record) as others:
                deletion = pool.submit(lab.delete, conf, c2)
                wait_until(lambda: deletion.done() or is_waited_for(f"{STATE}.lock"), 10, "the DEL waits, or is done")
                for rules in ((record.network_rules, record.attachment_rules), *others):
                    firewall.apply_add(*rules)
        deletion.result()

    with ThreadPoolExecutor(1) as pool:
        lab.host.in_namespace(lambda: put_back(Attachment(conf["name"], c1.name, "eth0")))
    assert sorted(masqueraded(lab)) == sorted(kept)


def is_waited_for(path: str) -> bool:
    """Whether a process waits for a lock on that file (proc_locks(5))."""
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and f":{os.stat(path).st_ino} " in line for line in locks)


def test_same_id_at_the_same_time(lab: Lab, c1: Container) -> None:
    """No runtime should, some do: one ADD wins, the others get code 105 or 11, and the winner's container works."""
    conf = network()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: lab.call("ADD", conf, c1), range(6)))
    assert sorted(answer.error_code or 0 for answer in answers)[0] == 0
    assert {answer.error_code for answer in answers} <= {None, 11, 105}
    assert sum(answer.ok for answer in answers) == 1
    (result,) = [answer.json for answer in answers if answer.ok]
    assert lab.check(conf, c1, result).ok
    assert can_ping(c1, "10.1.0.1")
    with ThreadPoolExecutor(6) as pool:
        assert all(answer.ok for answer in pool.map(lambda _: lab.call("DEL", conf, c1), range(6)))
    assert (lab.records(), lab.leases(), lab.ports(), lab.ruleset()) == ({}, [], [], "")


def test_full_bridge_is_told_and_undone(lab: Lab, c1: Container) -> None:
    """The 1024th port: code 101 says what is full and what to do; nothing stays; with a port free it works."""
    lab.host.ip("link", "add", "cni1", "up", "type", "bridge")
    lab.host.ip_batch(*(f"link add p{number} master cni1 type veth peer name q{number}" for number in range(512)))
    lab.host.ip_batch(*(f"link set q{number} master cni1" for number in range(511)))
    before = lab.traces(c1)
    conf = network()
    error = lab.refused(conf, c1)
    assert error["code"] == 101
    assert "1023 ports" in words(error)
    assert_unchanged(before, lab.traces(c1), ignore=["*dst=fe80*", "*type=anycast"])
    lab.host.ip("link", "set", "q0", "nomaster")
    lab.add(conf, c1)
    assert can_ping(c1, "10.1.0.1")
