"""What pycni remembers, and beside it what there is: half-made and leaked attachments, links, leases, full pools."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from pycni.agent.changed import BRIDGE_DOWN, BRIDGE_GONE, CHANGED, LINK_DOWN, LINK_GONE, OFF_BRIDGE
from pycni.cli.cache import DEFAULT_CACHE_DIR, all_cached
from pycni.cli.doctor.finding import FAIL, FEW, OK, WARN, Finding, few
from pycni.cli.leases import FULL_SHARE
from pycni.cli.pools import BLOCK, read_usage
from pycni.cli.state import existing_store, see_all
from pycni.cni.errors import CniError
from pycni.host.netns import exists
from pycni.host.rtnl import Netlink
from pycni.store import Record
from pycni.store.boot import boot_id

FILE = "state file"
ALIAS_HEAD = "pycni "

_CUT_OFF = "no packet passes between the container and the rest of its network"
_AGAIN = "a running agent brings it back with its ports: pycni agent; or pycni del, then pycni add"

#: What each state means, and what to do: {each} host link of an attachment, the {first} of them, its {bridge}.
_TROUBLES = {
    "half-made": (
        WARN,
        "an ADD died half-way; what it made is still there",
        "pycni del NETWORK CONTAINER, or pycni gc NETWORK",
    ),
    "half-removed": (
        WARN,
        "a DEL died half-way; the rest is still there",
        "pycni del NETWORK CONTAINER, or pycni gc NETWORK",
    ),
    "netns gone": (
        WARN,
        "the container ended without DEL; its address is given out again after gc, or once no other is free",
        "pycni gc NETWORK",
    ),
    "other boot": (
        WARN,
        "left from before the last reboot; its address is given out again after gc, or once no other is free",
        "pycni gc NETWORK",
    ),
    LINK_GONE: (FAIL, "the container's way to the host was deleted: it has no network", "pycni del, then pycni add"),
    BRIDGE_GONE: (FAIL, _CUT_OFF, _AGAIN),
    OFF_BRIDGE: (FAIL, _CUT_OFF, "ip link set {first} master {bridge}"),
    BRIDGE_DOWN: (FAIL, _CUT_OFF, "ip link set {bridge} up"),
    LINK_DOWN: (FAIL, _CUT_OFF, "ip link set {each} up"),
}


def check_file(readers: Sequence[str]) -> Iterator[Finding]:
    """Whether the records can be read; where they cannot, none of the examinations *readers* could be done."""
    try:
        store = existing_store()
        if store is None:
            yield Finding(level=OK, check=FILE, found="none: no plugin of pycni was ever called here")
            return
        with store:
            damage = store.damage()
            reason = f"{store.path} is damaged: {damage.splitlines()[-1]}" if damage else ""
            step = f"stop the containers of pycni's networks, then remove {store.path} and {store.path}-journal"
    except CniError as failure:
        reason, step = failure.msg, failure.details
    if reason:
        yield Finding(
            level=FAIL,
            check=FILE,
            found=reason,
            meaning="every ADD fails with code 5, and nothing is known of what is attached; "
            f"left out here: {', '.join(readers)}",
            action=step,
        )
    else:
        yield Finding(level=OK, check=FILE, found="sound")


def check_attachments() -> Iterator[Finding]:
    """Every record beside the kernel."""
    check = "attachments"
    seen = see_all()
    bad = [one for one in seen if one.state in _TROUBLES]
    for state in sorted({one.state for one in bad}):
        yield _trouble(state, [one.record for one in bad if one.state == state])
    if not bad:
        yield Finding(level=OK, check=check, found=f"{len(seen)}, all as they should be" if seen else "none")


def _trouble(state: str, records: list[Record]) -> Finding:
    """All that are in the same *state*."""
    level, meaning, action = _TROUBLES[state]
    names, steps = [], []
    for record in records:
        owner, links = record.attachment.owner, record.host_links or ("",)
        about = record.bridge if state in (BRIDGE_GONE, BRIDGE_DOWN) else ", ".join(links)
        names.append(f"{owner} ({about})" if state in CHANGED else owner)
        steps += [action.format(each=link, first=links[0], bridge=record.bridge) for link in links]
    found = f"{len(records)} {state}: {few(names)}"
    do = "; ".join(list(dict.fromkeys(steps))[:FEW])
    return Finding(level=level, check="attachments", found=found, meaning=meaning, action=do)


def check_links() -> Iterator[Finding]:
    """Links that carry our mark and that no record names."""
    check = "leftover links"
    records = [seen.record for seen in see_all()]
    known = {name for record in records for name in (*record.host_links, record.bridge)}
    left = []
    with Netlink() as kernel:
        for index, name in socket.if_nameindex():
            link = None if name in known else kernel.link(index)
            # Bridges and tunnels are shared and stay on purpose; only what belongs to one attachment can leak.
            if link and link.alias.startswith(ALIAS_HEAD) and link.kind not in ("bridge", "vxlan"):
                left.append(f"{name} ({link.alias.removeprefix(ALIAS_HEAD)})")
    if left:
        yield Finding(
            level=WARN,
            check=check,
            found=", ".join(left),
            meaning="the attachment these links were made for is unknown: nothing will ever remove them",
            action="pycni gc NETWORK, or ip link delete NAME",
        )
    else:
        yield Finding(level=OK, check=check, found="none")


def check_leases() -> Iterator[Finding]:
    """Addresses leased to attachments that neither we nor any runtime's cache knows of, and whose namespace is gone."""
    check = "leases"
    store = existing_store()
    if store is None:
        yield Finding(level=OK, check=check, found="none")
        return
    with store:
        leases = store.leases.all()
        owners = {
            (r.attachment.network, r.attachment.container_id, r.attachment.ifname) for r in store.attachments.all()
        }
    owners |= {(one.network, one.container_id, one.ifname) for one in all_cached(DEFAULT_CACHE_DIR)}
    boot = boot_id()
    left = [
        lease
        for lease in leases
        if (lease.network, lease.container_id, lease.ifname) not in owners
        and (lease.boot_id != boot or (lease.netns and not exists(lease.netns, lease.netns_id)))
    ]
    if left:
        shown = few([f"{lease.address} of {lease.container_id}" for lease in left])
        yield Finding(
            level=WARN,
            check=check,
            found=f"{len(left)} of {len(leases)} belong to containers that are gone: {shown}",
            meaning="they are given out again only when their pool is full",
            action="pycni gc NETWORK, or pycni ipam release ADDRESS",
        )
    else:
        yield Finding(level=OK, check=check, found=f"{len(leases)}, each of an attachment" if leases else "none")


def check_pools(conf_dir: str) -> Iterator[Finding]:
    """Range sets that are full, or nearly."""
    check = "address pools"
    usages = read_usage(conf_dir)
    # A full block is no trouble: the host takes another one.
    tight = [one for one in usages if one.share >= FULL_SHARE and one.pool != BLOCK]
    for one in tight:
        full = one.share >= 1
        yield Finding(
            level=FAIL if full else WARN,
            check=check,
            found=f"network {one.network}: {one.leased} of {one.size} addresses of {one.ranges} are leased",
            meaning="the next container gets no address" if full else "soon a container will get no address",
            action="pycni gc NETWORK frees what dead containers hold; else give the network a larger range",
        )
    if not tight:
        yield Finding(level=OK, check=check, found=f"{len(usages)}, none nearly full" if usages else "none in use")
