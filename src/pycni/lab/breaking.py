"""Breaking a lab on purpose, and mending it: each verb changes the list of faults and puts the difference in force."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence

from pycni.lab import control
from pycni.lab.errors import NOT_FOUND, USAGE, LabError
from pycni.lab.faults import (
    KILLED,
    LEAST_IPV6_MTU,
    LINK_KINDS,
    Fault,
    Impairment,
    faults_in,
    impairment,
    nft_text,
    parse_delay,
    parse_mtu,
    parse_percent,
    parse_rate,
    qdisc_lines,
    told,
    with_fault,
)
from pycni.lab.hosts import give_ipv6_back
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab, RunningLink, tool

_VALUE: dict[str, Callable[[str], float]] = {
    "loss": parse_percent,
    "delay": parse_delay,
    "rate": parse_rate,
    "mtu": parse_mtu,
}


def links_of(lab: RunningLab, target: str) -> tuple[RunningLink, ...]:
    """The links that HOST, HOST:INTERFACE or HOST:SEGMENT means; LabError naming those there are."""
    host, colon, end = target.partition(":")
    links = lab.machine(host).links
    found = tuple(link for link in links if not colon or end in (link.ifname, link.segment))
    if not found:
        there = ", ".join(f"{host}:{link.ifname} (segment {link.segment})" for link in links) or "none"
        raise LabError(f"{host} has no link {end!r}", (f"there are: {there}",), exit_code=NOT_FOUND)
    return found


# -- verbs -------------------------------------------------------------------------------------------------------------


def break_links(lab: RunningLab, kind: str, targets: Iterable[str], value: str = "") -> list[str]:
    """`cut` and `unplug`, or loss, delay, rate and mtu with a *value* as text; what is broken now, in words."""
    links = [link for target in targets for link in links_of(lab, target)]
    try:
        amount = float(_VALUE[kind](value)) if kind in _VALUE else 0.0
    except ValueError as failure:
        raise LabError(str(failure), exit_code=USAGE) from None
    made = [
        Fault("cut" if kind == "unplug" else kind, link.host, link.ifname, amount, carrier=kind != "unplug")
        for link in links
    ]
    try:
        _update(lab, lambda faults: functools.reduce(with_fault, made, faults))
    except LabError as failure:
        if kind == "delay" and "qdisc kind is unknown" in str(failure):
            raise LabError(
                "this kernel cannot delay packets: it has no netem",
                next_step="a kernel with CONFIG_NET_SCH_NETEM, or loss and rate, which work without it",
            ) from None
        raise
    return [told(fault) for fault in made]


def split(lab: RunningLab, parties: Sequence[Sequence[str]]) -> list[str]:
    """Let machines of different parties not hear each other; who is in none hears all. Replaces the split before."""
    named = [lab.machine(name).name for party in parties for name in party]
    if len(parties) < 2 or not all(parties):
        raise LabError("a split needs at least two parties: `pycni lab split h1,h2 h3`", exit_code=USAGE)
    doubled = sorted({name for name in named if named.count(name) > 1})
    if doubled:
        raise LabError(f"{', '.join(doubled)} cannot be in two parties", exit_code=USAGE)
    fault = Fault("split", parties=tuple(tuple(party) for party in parties))
    _update(lab, lambda faults: with_fault(faults, fault))
    return [told(fault)]


def kill(lab: RunningLab, target: str) -> str:
    """End `agent HOST`, `etcd MEMBER` or `host HOST` without warning, until `start` or `heal`; what was done."""
    what, name = _process(lab, target)
    fault = Fault("kill", name, what=what)
    {"agent": control.kill_agent, "etcd": control.kill_member, "host": control.power_off}[what](lab, name)
    _update(lab, lambda faults: with_fault(faults, fault))
    return told(fault)


def start(lab: RunningLab, target: str, progress: Progress | None = None) -> str:
    """Undo `kill`; harmless where it runs."""
    what, name = _process(lab, target)
    _start(lab, [Fault("kill", name, what=what)], progress)
    return f"{what} {name} runs"


def reboot(lab: RunningLab, host: str, progress: Progress | None = None) -> str:
    """Take the host's namespaces, links, rules and processes away and start it with what it has on its disk."""
    control.reboot(lab, lab.machine(host).name, progress)
    lab.reload()
    enforce(lab, [host])
    return f"{host} was booted again"


def heal(lab: RunningLab, targets: Sequence[str] = (), progress: Progress | None = None) -> list[str]:
    """Undo faults: all, or those of a kind ("loss", "split"), of a link, or a killed "agent HOST"; which, in words."""
    there = faults_in(lab.state)
    chosen = there if not targets or list(targets) == ["all"] else _chosen(lab, there, targets)
    _update(lab, lambda faults: tuple(each for each in faults if each not in chosen or each.kind == "kill"))
    _start(lab, [each for each in chosen if each.kind == "kill"], progress)
    return [told(each) for each in chosen]


def _chosen(lab: RunningLab, faults: Sequence[Fault], targets: Sequence[str]) -> list[Fault]:
    found: list[Fault] = []
    for target in targets:
        if target in (*LINK_KINDS, "split", "kill"):
            found += [each for each in faults if each.kind == target]
        elif target.partition(" ")[0] in KILLED:
            what, name = _process(lab, target)
            found += [each for each in faults if each.place == ("kill", name, "", what)]
        else:
            places = {(link.host, link.ifname) for link in links_of(lab, target)}
            found += [each for each in faults if (each.host, each.ifname) in places]
    return found


def _process(lab: RunningLab, target: str) -> tuple[str, str]:
    what, _, name = target.partition(" ")
    if what not in KILLED:
        raise LabError(f"{target!r} is not `agent HOST`, `etcd MEMBER` or `host HOST`", exit_code=USAGE)
    if what == "etcd" and name not in lab.etcd:
        there = ", ".join(lab.etcd) or "none"
        raise LabError(f"lab {lab.name} has no etcd member {name!r}", (f"there are: {there}",), exit_code=NOT_FOUND)
    machine = lab.machine(name.strip())
    if what == "agent" and machine.agent is None:
        raise LabError(f"{machine.name} has no agent", exit_code=NOT_FOUND)
    return what, machine.name


def _start(lab: RunningLab, killed: Sequence[Fault], progress: Progress | None = None) -> None:
    """Undo these, what others need first: etcd for a host's containers, a host for its agent."""

    def order(fault: Fault) -> int:
        if fault.what == "host" and lab.machine(fault.host).role == "host":
            return 2
        return {"host": 0, "etcd": 1, "agent": 3}[fault.what]

    members = [each.host for each in killed if each.what == "etcd"]
    for fault in sorted(killed, key=order):
        if fault.what == "etcd":
            control.start_member(lab, fault.host, wait=False)
            if fault.host == members[-1]:
                _wait_for_members(lab, members)
        elif fault.what == "agent":
            control.start_agent(lab, fault.host)
        elif not lab.machine(fault.host).holder.alive():
            control.boot(lab, fault.host, progress)
            lab.reload()
            enforce(lab, [fault.host])
    places = {each.place for each in killed}
    _update(lab, lambda faults: tuple(each for each in faults if each.place not in places))


def _wait_for_members(lab: RunningLab, names: Sequence[str]) -> None:
    """Until they are healthy; a minority never is, so it is not waited for."""
    running = sum(each.process is not None and each.process.alive() for each in lab.etcd.values())
    for name in names if 2 * running > len(lab.etcd) else ():
        control.start_member(lab, name)


# -- putting in force --------------------------------------------------------------------------------------------------


def _update(lab: RunningLab, change: Callable[[tuple[Fault, ...]], tuple[Fault, ...]]) -> None:
    """Change the list of faults, and the switch and the links after it; under the lock of the lab's state.

    What failed half is taken back, so that nothing is in force that the list does not have.
    """
    with lab.changing() as state:
        before = faults_in(state)
        after = change(before)
        touched = {each.host for each in (*before, *after) if each.ifname and (each in before) != (each in after)}
        links = [each for each in (*before, *after) if each.kind != "kill"]
        try:
            if links:
                _apply(lab, before, after, touched)
        except LabError:
            _apply(lab, after, before, touched)
            raise
        state["faults"] = [each.as_json() for each in after]


def enforce(lab: RunningLab, hosts: Collection[str] | None = None) -> None:
    """Put the faults in force on the links of *hosts* (None: all), which were made anew.

    What was killed and runs again, since `pycni lab up` started it, is no fault any more.
    """
    faults = faults_in(lab.state)
    if faults:
        _update(lab, lambda known: tuple(each for each in known if each.kind != "kill" or not _runs(lab, each)))
        _apply(lab, (), faults, set(lab.machines if hosts is None else hosts))


def _runs(lab: RunningLab, killed: Fault) -> bool:
    machine = lab.machines.get(killed.host)
    if machine is None:
        return True  # it is not in the file any more
    if killed.what == "host":
        return machine.holder.alive()
    process = machine.agent if killed.what == "agent" else lab.etcd[killed.host].process
    return process is not None and process.alive()


def _apply(lab: RunningLab, before: Sequence[Fault], after: Sequence[Fault], hosts: Collection[str]) -> None:
    lab.run_switch([tool("nft"), "-f", "-"], input=nft_text(after, lab.links))
    for name in hosts:
        machine = lab.machines.get(name)
        for link in machine.links if machine is not None and machine.holder.alive() else ():
            _change(lab, link, impairment(before, link), impairment(after, link))


def _change(lab: RunningLab, link: RunningLink, before: Impairment, after: Impairment) -> None:
    """Both ends of the cable: the switch's sends to the host, the host's own sends from it."""

    def here(*argv: str, check: bool = True) -> None:
        lab.run(link.host, None, argv, check=check)

    def there(*argv: str, check: bool = True) -> None:
        lab.run_switch(argv, check=check)

    for run, device in ((here, link.ifname), (there, link.port)):
        if (before.rate_bps, before.delay_ms) != (after.rate_bps, after.delay_ms):
            if before.rate_bps or before.delay_ms:  # a host that was booted again has none
                run(tool("tc"), "qdisc", "del", "dev", device, "root", check=False)
            for line in qdisc_lines(device, after):
                run(tool("tc"), *line.split())
        if before.mtu != after.mtu:
            run(tool("ip"), "link", "set", "dev", device, "mtu", str(after.mtu))
    if before.mtu < LEAST_IPV6_MTU <= after.mtu:
        give_ipv6_back(lab, link)
    if before.down != after.down:
        there(tool("ip"), "link", "set", "dev", link.port, "down" if after.down else "up")
