"""CHECK of the overlay plugin in order: ask the IPAM plugin, read kernel and etcd, compare."""

from __future__ import annotations

import os
import time

from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host import rtnl, sysctl, tunnel_guard
from pycni.host.firewall import missing_rules
from pycni.host.forwarding import read_entries
from pycni.host.vxlan import read_vxlan
from pycni.ipam import delegate
from pycni.plugins.overlay import following
from pycni.plugins.overlay.compare import CheckFacts, differences
from pycni.plugins.overlay.conf import MULTICAST, ROUTED, OverlayConf, with_etcd
from pycni.plugins.overlay.plan import FORWARDING
from pycni.plugins.overlay.program import read_etcd
from pycni.plugins.overlay.site import find_joined, noted
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.plugins.overlay.peers import Lack
    from pycni.plugins.overlay.program import Said
    from pycni.plugins.overlay.site import Joined
    from pycni.store.attachments import Record


NOBODY = "00:00:00:00:00:00"  # the kernel sends what has no entry to this one's host
LATEST_S, PAUSE_S = 1.0, 0.02  # until an agent has carried out what etcd says now


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names everything of ours that is missing or was changed; 11 where etcd cannot be asked."""
    netconf = with_etcd(netconf, call.args)
    conf = OverlayConf.parse(netconf, call)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing", "CHECK needs the result of the last ADD")
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    with open_store() as store:
        if conf.ipam:
            delegate.ask("CHECK", call, netconf, store)
        if conf.gateway is not None:
            from pycni.plugins.overlay import outside

            outside.check(conf.gateway, call, netconf, store)
        record = store.attachments.get(attachment)
        joined = find_joined(os.path.dirname(store.path), netconf.name)
    if joined is None or joined.left:
        raise broken(attachment.owner, (f"this host takes no part in network {netconf.name}",))
    end = time.monotonic() + (LATEST_S if following.follower() is not None else 0)
    before: frozenset[Lack] | None = None
    while True:
        facts = _read_facts(call, joined, previous, record, said=_said(joined))
        if before is not None:
            facts = facts.replace(lacking=facts.lacking & before)
        wrong = differences(call, joined, previous, facts)
        if not wrong:
            return
        if before is not None and time.monotonic() > end:
            raise broken(attachment.owner, wrong)
        # etcd and kernel are not read at one moment, containers of other hosts come and go between, and the kernel may
        # leave entries out of its answer (see read_entries): each look may miss others. What is missing is so in all.
        before = facts.lacking
        time.sleep(PAUSE_S)


def _said(joined: Joined) -> Said | None:
    """What etcd says, where nobody follows it as of the last ADD; None where nothing is to be compared: it learns, or
    routes on without etcd."""
    if joined.mode == MULTICAST:
        return None
    try:
        return read_etcd(joined, until=0 if following.follower() is not None else noted(joined.network) or 1)
    except CniError as failure:
        if joined.mode == ROUTED and failure.code == Code.TRY_AGAIN:
            return None
        raise


def _read_facts(
    call: Call, joined: Joined, previous: Result, record: Record | None, *, said: Said | None
) -> CheckFacts:
    names = [each.name for each in previous.interfaces if each.sandbox]
    container = open_container(call)
    try:
        with rtnl.Netlink() as host, rtnl.in_namespace(container) as inside:
            links = {name: inside.link(name) for name in names}
            bridge = host.link(joined.bridge)
            wanted = said.table.since() if said is not None else frozenset()
            entries = read_entries(host, joined.vxlan)
            guard = tunnel_guard.read_peers(joined.port, joined.vni) if joined.connection else frozenset()
            there = {*entries, *(guard or ())}
            return CheckFacts(
                bridge=bridge,
                vxlan=read_vxlan(host, joined.vxlan),
                host={each.name: host.link(each.name) for each in previous.interfaces if not each.sandbox},
                inside=links,
                addresses=tuple(one for link in links.values() if link for one in inside.addresses(link.index)),
                routes=inside.routes(table=0),
                gateways=host.addresses(bridge.index) if bridge is not None else (),
                rules=missing_rules(record.backend, record.network_rules, record.attachment_rules) if record else (),
                lacking=frozenset(each for each in wanted if each[0] not in there),
                flooding=joined.mode != MULTICAST and any(getattr(each, "mac", "") == NOBODY for each in entries),
                guarded=guard is not None,
                forwarding=tuple(version for version, key in FORWARDING.items() if sysctl.read(key) != "0"),
                lost=_lost(said),
            )
    finally:
        os.close(container)


def _lost(said: Said | None) -> tuple[str, ...]:
    if said is None or said.takes_part:
        return ()
    return ("etcd does not know that this host takes part: no other host sends to it",)
