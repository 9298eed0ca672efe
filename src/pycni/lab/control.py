"""Verbs over a lab that runs: its daemons one by one, and machines that are switched off and on."""

from __future__ import annotations

from pycni.lab.addressing import addressed
from pycni.lab.building import Builder
from pycni.lab.daemons import kill_agent, kill_member, start_agent, start_member, stop_agent, stop_member
from pycni.lab.errors import LabError
from pycni.lab.hosts import remove_ports
from pycni.lab.plan import Step, plan
from pycni.lab.progress import Progress
from pycni.lab.removal import end_machine
from pycni.lab.running import RunningLab
from pycni.lab.survey import kept_addresses, survey

__all__ = [
    "boot",
    "kill_agent",
    "kill_member",
    "power_off",
    "reboot",
    "start_agent",
    "start_member",
    "stop_agent",
    "stop_member",
]


def power_off(lab: RunningLab, host: str) -> None:
    """Every process of *host* ends at once; its namespaces, links and rules go. Its /var/lib and /etc stay."""
    end_machine(lab, host)
    remove_ports(lab, [link.port for link in lab.machine(host).links])


def boot(lab: RunningLab, host: str, progress: Progress | None = None) -> None:
    """Start a host that is off: links, member of etcd, agent, containers as the lab's file has them."""
    if lab.machine(host).holder.alive():
        raise LabError(f"{host} is running")
    want = addressed(lab.lab, kept_addresses(lab))
    steps = plan(survey(lab), want, lab.etcd_connection)
    Builder(lab, want, progress or Progress(quiet=True)).carry_out([step for step in steps if _is_of(step, host)])


def reboot(lab: RunningLab, host: str, progress: Progress | None = None) -> None:
    """Off, and on again with another boot id."""
    power_off(lab, host)
    boot(lab, host, progress)


def _is_of(step: Step, host: str) -> bool:
    return step.name.partition("/")[0] == host and step.kind in ("host", "etcd", "agent", "container")
