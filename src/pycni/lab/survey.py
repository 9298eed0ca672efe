"""What there is of a lab, read from its state and from the processes that live."""

from __future__ import annotations

from pycni.lab.addressing import Kept, Route
from pycni.lab.plan import Actual
from pycni.lab.running import RunningLab, RunningLink
from pycni.lab.topology import LinkSpec


def survey(lab: RunningLab) -> Actual:
    """The lab as a value that `plan` can compare."""
    machines = lab.machines
    alive = {name for name, machine in machines.items() if machine.holder.alive()}
    if lab.switch is None or not lab.switch.alive():
        alive = set()  # without switches no cable leads anywhere
    return Actual(
        lab=lab.lab,
        links={name: tuple(map(_spec, machine.links)) for name, machine in machines.items()},
        routes={
            name: tuple(Route(prefix=prefix, via=via) for prefix, via in raw["routes"])
            for name, raw in lab.state["machines"].items()
        },
        conflists=lab.state["conflists"],
        containers=frozenset(each.path for each in lab.containers),
        dead=frozenset(machines.keys() - alive),
        agents=frozenset(name for name in alive if (agent := machines[name].agent) is not None and agent.alive()),
        members=frozenset(name for name, each in lab.etcd.items() if each.process is not None and each.process.alive()),
    )


def kept_addresses(lab: RunningLab) -> Kept:
    """What machines have, for `addressing`."""
    return {(link.host, link.segment): (link.ipv4, link.ipv6) for link in lab.links}


def _spec(link: RunningLink) -> LinkSpec:
    return LinkSpec(segment=link.segment, ifname=link.ifname, ipv4=link.ipv4, ipv6=link.ipv6, mtu=link.mtu)
