"""Whether a claim holds now: one look at the running lab, with what was seen in words."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable

from pycni.cni.errors import CniError
from pycni.cni.value import Value
from pycni.host.netns import inside, open_netns
from pycni.host.rtnl import Netlink
from pycni.lab.errors import LabError
from pycni.lab.picture import Picture
from pycni.lab.picture_of import picture_of
from pycni.lab.pings import Probe, ping
from pycni.lab.programs import StillRunsError
from pycni.lab.reaching import address_of, chosen_pairs, plugs_of
from pycni.lab.running import RunningLab
from pycni.lab.scenario import Expectation
from pycni.lab.throughput import tcp_bits_per_second

ANSWER_S, SILENCE_S = 0.5, 0.4  # how long one echo may take where it must come back, and where it must not
TALK_S = 2.0
RUN_S = 2.0  # what a command has at least, however soon it is to hold
SHOWN_PAIRS = 4
_READ_BYTES = 65536


class Verdict(Value):
    """Whether it holds, and what was seen."""

    good: bool
    seen: str


def check(lab: RunningLab, claim: Expectation) -> Verdict:
    """One look. LabError where the claim speaks of what is not there."""
    lab.reload()
    return _CHECKS[claim.claim](lab, picture_of(lab), claim)


def namespaces_of(lab: RunningLab) -> dict[str, str]:
    """The network namespace of every HOST and HOST/CONTAINER that is on."""
    found = {name: machine.namespace() for name, machine in lab.machines.items()}
    for container in lab.containers:
        found[container.path] = lab.machine(container.host).file(container.netns)
    return found


def open_in(lab: RunningLab, name: str, kind: Callable[[], socket.socket]) -> socket.socket:
    """A socket made in the namespace of HOST or HOST/CONTAINER, where it stays."""
    path = namespaces_of(lab).get(name)
    if path is None:
        raise LabError(f"lab {lab.name} has no {name}")
    try:
        descriptor = open_netns(path)
    except CniError as failure:
        raise LabError(f"{name} is off") from failure
    try:
        return inside(descriptor, kind)
    finally:
        os.close(descriptor)


# -- claims ------------------------------------------------------------------------------------------------------------


def _reach(lab: RunningLab, picture: Picture, claim: Expectation) -> Verdict:
    pairs = chosen_pairs(picture, claim)
    probes = [Probe(pair.source, pair.address) for pair in pairs if pair.address]
    wanted = claim.claim == "reach"
    echoes = iter(ping(namespaces_of(lab), probes, timeout_s=ANSWER_S if wanted else SILENCE_S))
    reached = [bool(pair.address) and bool(next(echoes).rtts_ms) for pair in pairs]
    wrong = [pair for pair, came in zip(pairs, reached, strict=True) if came is not wanted]
    if not wrong:
        return Verdict(True, f"{len(pairs)} pairs")
    told = [f"{pair.source} → {pair.target} ({pair.address or 'no address'})" for pair in wrong[:SHOWN_PAIRS]]
    more = f" and {len(wrong) - SHOWN_PAIRS} more" if len(wrong) > SHOWN_PAIRS else ""
    verb = "no answer" if wanted else "answered"
    return Verdict(False, f"{verb}: {', '.join(told)}{more}; {len(wrong)} of {len(pairs)} pairs")


def _address(lab: RunningLab, picture: Picture, claim: Expectation) -> Verdict:
    """From the kernel, and not from what ADD once answered."""
    names = [each.ifname for each in plugs_of(picture, claim.source) if claim.network in ("", each.network)]
    descriptor = _descriptor(lab, claim.source)
    try:
        with inside(descriptor, Netlink) as netlink:
            found = [
                each
                for name in names
                if (link := netlink.link(name)) is not None
                for each in netlink.addresses(link.index)
                if not each.ip.is_link_local
            ]
    finally:
        os.close(descriptor)
    missing = [
        wanted for wanted in claim.addresses if not any(each.ip in ipaddress.ip_network(wanted) for each in found)
    ]
    return Verdict(not missing, f"{claim.source} has {', '.join(map(str, found)) or 'no address'}")


def _descriptor(lab: RunningLab, name: str) -> int:
    try:
        return open_netns(namespaces_of(lab)[name])
    except (CniError, KeyError) as failure:
        raise LabError(f"{name} is off") from failure


def _port(lab: RunningLab, picture: Picture, claim: Expectation) -> Verdict:
    address = address_of(picture, claim.target, claim.source, claim.family)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if claim.protocol == "tcp" else socket.SOCK_DGRAM
    where = f"[{address}]:{claim.port}" if ":" in address else f"{address}:{claim.port}"
    with open_in(lab, claim.source, lambda: socket.socket(family, kind)) as talk:
        talk.settimeout(min(TALK_S, max(claim.within_s, 0.1)))
        try:
            talk.connect((address, claim.port))
            answer = _exchanged(talk, claim)
        except OSError as failure:
            return Verdict(claim.refused, f"{where}: {failure.strerror or failure}")
    if claim.refused:
        return Verdict(False, f"{where} answers")
    if claim.answer not in answer:
        return Verdict(False, f"{where} answers {answer[:200]!r}")
    return Verdict(True, where)


def _exchanged(talk: socket.socket, claim: Expectation) -> str:
    if claim.send:
        talk.sendall(claim.send.encode())
    answer = talk.recv(_READ_BYTES) if claim.protocol == "udp" else b""  # a datagram that left proves nothing
    while claim.answer and claim.answer.encode() not in answer and len(answer) < _READ_BYTES:
        part = talk.recv(_READ_BYTES)
        if not part:
            break
        answer += part
    return answer.decode(errors="replace")


def _throughput(lab: RunningLab, picture: Picture, claim: Expectation) -> Verdict:
    """First what the two hosts get by themselves, then what the containers on them get."""
    source, target = claim.source.partition("/")[0], claim.target.partition("/")[0]
    rates = []
    for client, server in ((source, target), (claim.source, claim.target)):
        address = address_of(picture, server, client, claim.family)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = open_in(lab, server, lambda family=family: socket.socket(family, socket.SOCK_STREAM))  # type: ignore[misc]
        sender = open_in(lab, client, lambda family=family: socket.socket(family, socket.SOCK_STREAM))  # type: ignore[misc]
        with listener, sender:
            rates.append(tcp_bits_per_second(listener, sender, address, claim.seconds))
    raw, own = rates
    share = 100 * own / raw if raw else 0.0
    seen = f"{own / 1e6:.0f} Mbit/s of {raw / 1e6:.0f} Mbit/s on the underlay: {share:.0f} %"
    return Verdict(bool(own) and share >= claim.share, seen)


def _run(lab: RunningLab, picture: Picture, claim: Expectation) -> Verdict:
    host, _, container = claim.source.partition("/")
    try:
        done = lab.run(host, container or None, claim.command, check=False, timeout_s=max(claim.within_s, RUN_S))
    except StillRunsError as failure:
        return Verdict(False, failure.message)
    said = (done.stdout + done.stderr).strip()
    good = done.returncode == claim.exit_code and claim.answer in said
    return Verdict(good, f"exit code {done.returncode}{f': {said[-300:]}' if said else ''}")


_CHECKS: dict[str, Callable[[RunningLab, Picture, Expectation], Verdict]] = {
    "reach": _reach,
    "unreachable": _reach,
    "address": _address,
    "port": _port,
    "throughput": _throughput,
    "run": _run,
}
