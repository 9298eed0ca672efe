"""Steps of tuning, bandwidth and ptp failing, and the process killed at each, as test_faults.py has it for bridge."""

from __future__ import annotations

import pytest

from netns_fixtures import Container, assert_unchanged
from tests.kernel.bridge_lab import Conf, Lab, network, words
from tests.kernel.chain_lab import Chain
from tests.kernel.test_faults import Faulty

pytestmark = [
    pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth"),
    pytest.mark.needs("kernel:ifb", "kernel:tbf", "tool:tc"),
]

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
CONFS: dict[str, Conf] = {
    "ptp": {"ipMasq": True, "ipam": {"type": "host-local", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}},
    "bandwidth": {"ingressRate": 80_000, "ingressBurst": 80_000, "egressRate": 80_000, "egressBurst": 80_000},
    "tuning": {
        "sysctl": {"net.core.somaxconn": "99", "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_forward": "1"},
        **{"mac": "02:00:00:00:00:07", "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 7},
    },
}
KEYS = "/proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/arp_filter /proc/sys/net/ipv4/ip_forward"
MORE = f"tc qdisc; ip -o link | sed 's/^[0-9]*: //'; cat {KEYS}; ls /run/cni/tuning 2>/dev/null"
NOISE = ["*/sysctl/*", "*dst=fe80*", "*neighbour*", "*/file/run/cni*"]


class Target(Faulty):
    """One plugin; a chained one behind a bridge that the container is on from the beginning."""

    def glance(self, *containers: Container) -> list[str]:
        """Also queueing disciplines, and the settings and files of tuning."""
        more = [each.run(["sh", "-c", MORE], check=False).stdout for each in (self.lab.host, *containers)]
        return [*super().glance(*containers), *more]

    def clean(self, container: Container, way: str) -> None:
        """DEL, or the GC that follows when the runtime has forgotten the container; what that cannot know is put back
        by hand: the settings of a namespace that lives on without its owner."""
        if way == "DEL":
            self.lab.delete(self.conf, container)
            return
        answer = self.lab.gc(self.conf)
        assert answer.ok, answer


@pytest.fixture(params=CONFS)
def target(request: pytest.FixtureRequest, lab: Lab, c1: Container) -> Target:
    """What the first ADD on a host leaves is there: forwarding."""
    conf: Conf = {"cniVersion": "1.1.0", "name": "net", "type": request.param, **CONFS[request.param]}
    if request.param == "ptp":
        lab.host.run(["sh", "-c", "ip link add spare type veth && ip link del spare"])  # see test_ptp.py
        lab.add(conf, c1)
        lab.delete(conf, c1)
    else:
        conf["prevResult"] = Chain(lab, [network(ipMasq=False)], version="1.1.0").add(c1)
    return Target(lab, conf)


def test_every_failing_step_of_add_is_undone(target: Target, c1: Container) -> None:
    """Whichever step fails: an error that says so, and both sides as before the ADD."""
    lab = target.lab
    before, glance = lab.traces(c1), target.glance(c1)
    events = target.events("ADD", c1)
    lab.delete(target.conf, c1)
    for number, event in enumerate(events):
        if not event.startswith("before"):
            continue
        answer = target.call("ADD", c1, "fail", number)
        assert answer.error_code is not None, event
        assert "planted" in words(answer.json), event
        assert "bug in pycni" not in answer.stdout, answer
        assert target.glance(c1) == glance, event
    assert_unchanged(before, lab.traces(c1), ignore=NOISE)


def test_killed_add_is_cleaned_by_whatever_comes_next(target: Target, c1: Container) -> None:
    """SIGKILL before every step: a DEL, or the next ADD (which works, to its CHECK) and a DEL, leave no trace."""
    lab = target.lab
    before, glance = lab.traces(c1), target.glance(c1)
    events = target.events("ADD", c1)
    lab.delete(target.conf, c1)
    for number, event in enumerate(events):
        if not event.startswith("before"):
            continue
        target.kill("ADD", c1, number)
        if number % 4:
            result = lab.add(target.conf, c1)
            assert lab.check(target.conf, c1, result).ok, event
        lab.delete(target.conf, c1)
        assert target.glance(c1) == glance, event
    assert_unchanged(before, lab.traces(c1), ignore=NOISE)


FOREIGN = {  # in the words of tc; the step of ADD that finds it there
    "root handle 8: tbf rate 1mbit burst 10kb limit 10kb": "before do LimitRate",
    "root handle 1: tbf rate 1mbit burst 10kb limit 10kb": "before do LimitRate",
    "root handle 1: pfifo": "before do LimitRate",
    "ingress": "before do RedirectIngress",
    "clsact": "before do RedirectIngress",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_killed_add_takes_no_foreign_discipline_along(lab: Lab, c1: Container, what: str) -> None:
    """SIGKILL before every step until bandwidth finds somebody else's discipline on the link: that, and its filters,
    are there after the DEL, also after another ADD, which is refused."""
    previous = Chain(lab, [network(ipMasq=False)], version="1.1.0").add(c1)
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bandwidth", **CONFS["bandwidth"], "prevResult": previous}
    target, link = Target(lab, conf), previous["interfaces"][1]["name"]
    events = target.events("ADD", c1)
    lab.delete(conf, c1)
    lab.host.run(["tc", "qdisc", "add", "dev", link, *what.split()])
    if what in ("ingress", "clsact"):
        filtered = "protocol ip u32 match ip dst 192.0.2.1 flowid 1:1"
        parent = {"ingress": "parent ffff:", "clsact": "ingress"}[what]
        lab.host.run(f"tc filter add dev {link} {parent} {filtered}".split())
    before = seen_by_tc(lab, link)
    for number in range(events.index(FOREIGN[what]) + 1):
        target.kill("ADD", c1, number)
        if number % 2:
            assert lab.call("ADD", conf, c1).error_code == 105
            assert seen_by_tc(lab, link) == before, events[number]
        lab.delete(conf, c1)
        assert seen_by_tc(lab, link) == before, events[number]


def seen_by_tc(lab: Lab, link: str) -> list[str]:
    """The disciplines and incoming filters of a link of the host."""
    shown = f"qdisc show dev {link}", f"filter show dev {link}", f"filter show dev {link} ingress"
    return [lab.host.run(["tc", *what.split()]).stdout for what in shown]


def test_killed_del_is_finished_by_the_next(target: Target, c1: Container) -> None:
    """SIGKILL before and after every step of DEL: a second DEL leaves no trace."""
    lab = target.lab
    before, glance = lab.traces(c1), target.glance(c1)
    lab.add(target.conf, c1)
    events = target.events("DEL", c1)
    for number, event in enumerate(events):
        lab.add(target.conf, c1)
        target.kill("DEL", c1, number)
        lab.delete(target.conf, c1)
        assert target.glance(c1) == glance, event
    assert_unchanged(before, lab.traces(c1), ignore=NOISE)


def test_killed_add_is_forgotten_by_gc(target: Target, c1: Container) -> None:
    """Where no DEL ever comes: the GC of the network's plugins leaves no link, rule, record or file."""
    lab = target.lab
    events = [event for event in target.events("ADD", c1) if event.startswith("before")]
    lab.delete(target.conf, c1)
    chain = [target.conf] if target.conf["type"] == "ptp" else [target.conf, network(ipMasq=False)]
    for number in (2 * len(events) // 3, 2 * len(events) - 2):
        target.kill("ADD", c1, number)
        for conf in reversed(chain):
            assert lab.gc(conf).ok
        assert lab.records() == {}
        assert not [name for name in lab.host.links() if name.startswith(("veth", "bwp"))]
        assert not list(lab.host.file("/run/cni/tuning").glob("c1_*"))
        if len(chain) > 1:
            Chain(lab, [network(ipMasq=False)], version="1.1.0").add(c1)
