"""`pycni doctor`: look at everything on this host that container networking rests on, and say what to do.

It changes nothing: what must be tried is tried in a network namespace that ends with the trial.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator

from pycni.cli.doctor import agent, executables, forwarding, kernel, network_files, overlay, packet_filter, state
from pycni.cli.doctor.finding import FAIL, WARN, Finding
from pycni.cli.failure import Failure
from pycni.cli.tables import counted, paint, render_facts, width_of
from pycni.cni.errors import CniError

_COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
#: Examinations that go by the records.
OF_RECORDS = (
    *("reverse path filter", "MTU", "firewall rules", "firewall leftovers"),
    *("attachments", "leftover links", "leases", "address pools"),
)


def examinations(given: Namespace) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """Every examination with the name it has when it cannot be done, in the order of the report."""
    yield state.FILE, lambda: state.check_file(OF_RECORDS)
    yield "IPv4 forwarding", forwarding.check_ipv4
    yield "IPv6 forwarding", forwarding.check_ipv6
    yield "router advertisements", forwarding.check_router_advertisements
    yield "reverse path filter", forwarding.check_reverse_path
    yield "bridge netfilter", forwarding.check_bridge_netfilter
    yield "MTU", forwarding.check_mtu
    yield "kernel abilities", kernel.check_abilities
    yield "firewall tools", packet_filter.check_tools
    yield "iptables variants", packet_filter.check_variants
    yield "forwarding rules", packet_filter.check_blockers
    yield "firewall rules", packet_filter.check_rules
    yield "firewall leftovers", packet_filter.check_leftovers
    yield "attachments", state.check_attachments
    yield "leftover links", state.check_links
    yield "leases", state.check_leases
    yield "address pools", lambda: state.check_pools(given.conf_dir)
    yield overlay.ETCD, overlay.check_etcd
    yield overlay.CHECK, overlay.check_networks
    yield network_files.CHECK, lambda: network_files.check(given.conf_dir, given.bin_dir or ())
    yield "executables", lambda: executables.check(given.bin_dir or ())
    yield "agent", agent.check


def examine(given: Namespace) -> list[Finding]:
    """All findings. An examination that cannot be done is a finding itself, but for those that want records which
    cannot be read: that is one."""
    findings: list[Finding] = []
    for name, look in examinations(given):
        if name in OF_RECORDS and any((one.check, one.level) == (state.FILE, FAIL) for one in findings):
            continue
        try:
            findings += look()
        except (OSError, CniError, Failure) as exc:
            step = "run `pycni doctor` as root" if os.geteuid() else "the message says what is in the way"
            findings.append(Finding(level=WARN, check=name, found=f"cannot be examined: {_reason(exc)}", action=step))
    return findings


def _reason(exc: OSError | CniError | Failure) -> str:
    if isinstance(exc, OSError) and exc.filename:
        return f"{exc.filename}: {exc.strerror}"
    return str(exc.strerror or exc) if isinstance(exc, OSError) else str(exc)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if all is well, 1 if there are warnings, 2 if there are failures."""
    levels = {finding.level for finding in findings}
    return 2 if FAIL in levels else 1 if WARN in levels else 0


def run(given: Namespace) -> int:
    """Examine, print, and answer with the exit code."""
    findings = examine(given)
    if given.json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=4))
        return exit_code(findings)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        label = paint(finding.level.ljust(4), _COLOURS[finding.level], sys.stdout)
        print(f"{label}  {finding.check.ljust(width)}  {finding.found}")
        more = [("means", finding.meaning)] if finding.meaning and finding.level != "OK" else []
        more += [("do", finding.action)] if finding.action else []
        for line in render_facts(more, indent=" " * 6, width=width_of(sys.stdout)):
            print(line)
    counts = {level: sum(finding.level == level for finding in findings) for level in ("OK", "WARN", "FAIL")}
    warnings, failures = counted(counts["WARN"], "warning"), counted(counts["FAIL"], "failure")
    print(f"\n{counts['OK']} in order, {warnings}, {failures}")
    return exit_code(findings)


HANDLERS = {"doctor": run}
