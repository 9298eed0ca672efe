"""The packet filter: what can drive it, who else uses it, what of ours is missing in it, and what was left."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.agent.reconcile import lost_rules
from pycni.attach.liveness import is_dead
from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding, few
from pycni.cli.state import existing_store, read_records
from pycni.cli.tables import counted
from pycni.cni.errors import CniError
from pycni.firewall.rules import comment_of
from pycni.host import nft, program
from pycni.host.firewall import open_firewall
from pycni.host.forward import forward_blockers
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.rtnl import Netlink

_LEGACY_TABLES = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


def check_tools() -> Iterator[Finding]:
    """libnftables, nft, iptables: one of them must be there."""
    check = "firewall tools"
    library = nft.load_library() is not None
    programs = [name for name in ("nft", "iptables-restore", "ip6tables-restore") if program.find(name)]
    have = ([nft.LIBRARY] if library else []) + programs
    if library or "nft" in programs:
        yield Finding(level=OK, check=check, found=", ".join(have))
        if not library:
            yield Finding(
                level=WARN,
                check=check,
                found=f"{nft.LIBRARY} cannot be loaded",
                meaning="the program nft is run instead: it works, the first attachment takes a little longer",
                action="install libnftables1",
            )
    elif "iptables-restore" in programs:
        yield Finding(
            level=WARN,
            check=check,
            found="only iptables",
            meaning="the iptables backend is used: it works, and costs more with every container",
            action="install libnftables1 (or nftables)",
        )
    else:
        yield Finding(
            level=FAIL,
            check=check,
            found="neither nftables nor iptables",
            meaning='networks with ipMasq cannot be attached unless they say "ipMasqBackend": "none"',
            action="install libnftables1 (or nftables, or iptables)",
        )


def _legacy_tables() -> list[str]:
    """Tables of the old iptables that exist. The files list them without loading any module, unlike iptables-save."""
    found = set()
    for path in _LEGACY_TABLES:
        try:
            with open(path) as file:
                found |= set(file.read().split())
        except FileNotFoundError:
            continue
    return sorted(found)


def _rules(save: str) -> int:
    path = program.find(save)
    if path is None:
        return 0
    status, out, _ = program.run((path,))
    return 0 if status else sum(line.startswith("-A ") for line in out.splitlines())


def check_variants() -> Iterator[Finding]:
    """Rules of both iptables, the old one and the one over nftables: each is blind for the other's."""
    check = "iptables variants"
    tables = _legacy_tables()
    legacy = _rules("iptables-legacy-save") + _rules("ip6tables-legacy-save") if tables else 0
    modern = _rules("iptables-nft-save") + _rules("ip6tables-nft-save")
    if legacy and modern:
        yield Finding(
            level=WARN,
            check=check,
            found=f"{legacy} rules by iptables-legacy and {modern} by iptables-nft",
            meaning="both kinds are in force; what one accepts the other may drop, and neither program shows all",
            action="decide for one (update-alternatives --config iptables) and flush the other: iptables-legacy -F",
        )
    else:
        found = (
            f"{legacy} rules, all legacy" if legacy else f"{modern} rules, all over nftables" if modern else "no rules"
        )
        yield Finding(level=OK, check=check, found=found)


def check_blockers() -> Iterator[Finding]:
    """Base chains of others on the forward hook whose policy is drop."""
    check = "forwarding rules"
    with Nfnetlink() as kernel:
        blockers = forward_blockers(kernel)
    for blocker in blockers:
        if blocker.variant:
            yield Finding(level=OK, check=check, found=f"{blocker}; the plugins add rules for their bridges to it")
            continue
        table = f"nft add rule {blocker.family} {blocker.table} {blocker.chain}"
        yield Finding(
            level=WARN,
            check=check,
            found=str(blocker),
            meaning="unless its rules accept them, packets between containers and other networks are dropped there, "
            "whatever other tables accept; the plugins do not write into tables of others",
            action=f"{table} iifname BRIDGE accept; {table} oifname BRIDGE ct state established,related accept",
        )
    if not blockers:
        yield Finding(level=OK, check=check, found="no chain has the policy drop")


def check_rules() -> Iterator[Finding]:
    """What our attachments' rules lack, as CHECK and the agent look for it."""
    check = "firewall rules"
    store = existing_store()
    if store is None:
        yield Finding(level=OK, check=check, found="none needed")
        return
    with store:
        with Netlink() as kernel:
            alive = [record for record in store.attachments.all() if not is_dead(record, kernel)]
        lost = lost_rules(store, alive)
    owners = list(dict.fromkeys(record.attachment.replace(part="").owner for record, _ in lost))
    if owners:
        words = lost[0][1]
        yield Finding(
            level=FAIL,
            check=check,
            found=f"{counted(len(owners), 'attachment')} without all their rules: {few(owners)}; "
            f"the first lacks {few(words)}",
            meaning="its packets are not masqueraded, kept apart or led to its ports as its network asks for",
            action="pycni reconcile, with a running agent; else start one, which puts them back: pycni agent",
        )
    else:
        yield Finding(level=OK, check=check, found="all there" if alive else "none needed")


def check_leftovers() -> Iterator[Finding]:
    """Rules of ours that belong to no attachment we know of."""
    check = "firewall leftovers"
    records = read_records()
    known = {comment_of(record.attachment.owner) for record in records}
    known |= {record.attachment.network for record in records}
    left = []
    for backend in ("nftables", "iptables"):
        try:
            firewall = open_firewall(backend)
        except CniError:
            continue
        try:
            left += [f"{owner} ({backend})" for owner in sorted(firewall.owners() - known)]
        finally:
            firewall.close()
    if left:
        yield Finding(
            level=WARN,
            check=check,
            found=f"rules of {counted(len(left), 'attachment')} that are gone: {few(left)}",
            meaning="a new container that gets one of their addresses meets the old one's rules",
            action="pycni gc NETWORK removes them",
        )
    else:
        yield Finding(level=OK, check=check, found="none")
