"""ADD of the overlay plugin in order: parse, record, join, lease, the network, its peers, the container, commit."""

from __future__ import annotations

import os

from pycni.attach.begin import EveryoneElse, ask_lease, begin, new_record
from pycni.attach.container import open_container
from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment, bridge_alias
from pycni.cni.result import Interface, Result, dump, render_result
from pycni.etcd.client import Unavailable
from pycni.host import netns, rtnl
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall
from pycni.ipam import delegate
from pycni.plugins.overlay import following, plan
from pycni.plugins.overlay.conf import MULTICAST, OUR_IPAM, OverlayConf, connection_of, with_etcd
from pycni.plugins.overlay.joining import join, joined_again
from pycni.plugins.overlay.program import know_peers
from pycni.plugins.overlay.site import host_state
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.plugins.overlay.site import Joined
    from pycni.store import Store
    from pycni.store.attachments import Record

PLUGIN = "overlay"


def add(call: Call, netconf: NetConf) -> Result:
    """ADD (spec, section 4): a container on a network that spans hosts. Undone wholly if it fails."""
    netconf = with_etcd(netconf, call.args)
    conf = OverlayConf.parse(netconf, call)
    refuse_foreign_ipam(conf, call, netconf)
    refuse_encryption(conf)
    if conf.require_agent and conf.mode != MULTICAST and following.follower() is None:
        raise CniError(Code.NEEDS_AGENT, *no_agent(netconf.name))
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    container = open_container(call)
    try:
        firewall = open_firewall(conf.backend if plan.needs_firewall(conf) else "none")
        with open_store() as store:
            record = new_record(attachment, call, netconf, PLUGIN, netns.identity(container)).replace(
                host_links=plan.host_links(conf, attachment), backend=firewall.name
            )
            begin(store, call, record, _release_record)
            kernel = Kernel(container, firewall, EveryoneElse(store, record))
            try:
                return _attach(store, record, call, netconf, conf, kernel=kernel)
            finally:
                kernel.close()
    finally:
        os.close(container)


def _release_record(store: Store, record: Record, executable: str) -> None:
    from pycni.plugins.overlay.delete import release_record  # not an ordinary ADD's

    release_record(store, record, executable)


def refuse_encryption(conf: OverlayConf) -> None:
    """CniError 7 where the network is to be encrypted, which this release cannot: never is it sent in clear text."""
    if not conf.encrypted:
        return
    from pycni.host.esp import has_esp

    able = has_esp(conf.local.version if conf.local is not None else 4)
    why = "this release does not" if able else "this kernel cannot: it has no ESP with AES-GCM (CONFIG_INET_ESP)"
    raise CniError(
        Code.INVALID_CONFIG,
        f"encrypted is true: {why}, and nothing is sent in clear text instead",
        'put the underlay on WireGuard or IPsec and name its address with "local"',
    )


def no_agent(network: str) -> tuple[str, str]:
    """What there is to say where `requireAgent` is set and none runs: message and details."""
    return f"no agent follows network {network}, which requireAgent asks for", "start `pycni agent` on this host"


def refuse_foreign_ipam(conf: OverlayConf, call: Call, netconf: NetConf) -> None:
    """CniError 7 where the addresses would not be in etcd, from which the other hosts know them."""
    if conf.mode == MULTICAST:
        return
    if conf.ipam not in OUR_IPAM or not delegate.is_ours(call, netconf):
        raise CniError(
            Code.INVALID_CONFIG,
            f"ipam.type is {conf.ipam or 'missing'}: other hosts learn of an address from etcd, where only pycni's own"
            " plugin records it",
            'use "ipam": {"type": "pycni-ipam", "subnet": …}, or "mode": "multicast"',
        )


def _attach(store: Store, record: Record, call: Call, netconf: NetConf, conf: OverlayConf, *, kernel: Kernel) -> Result:
    try:
        joined = join(store, call, netconf, conf, kernel.host)
        lease = ask_lease(store, record, call, netconf)
    except BaseException as failure:
        store.attachments.remove(record)
        from pycni.plugins.overlay.leaving import leave_if_last

        silent = isinstance(failure, Unavailable)
        leave_if_last(store, record.attachment.network, connection_of(netconf), ask_etcd=False if silent else None)
        raise
    inverses: list[ops.Op] = []
    try:
        if conf.ipam and not lease.ips:
            raise CniError(Code.INVALID_CONFIG, "IPAM plugin returned missing IP config", f"ipam.type is {conf.ipam}")
        outside = Result()
        if conf.gateway is not None:
            from pycni.plugins.overlay import outside as pool

            outside = pool.lease(conf.gateway, call, netconf, store)
        joined = joined_again(store, call, netconf, conf, kernel.host, joined=joined, lease=lease)
        want = plan.wanted(conf, joined, lease, outside)
        record = record.replace(
            bridge=joined.bridge,
            addresses=tuple(str(ip.address) for ip in want.result.ips),
            network_rules=plan.network_rules(conf, joined, want),
            attachment_rules=plan.attachment_rules(conf, record.attachment, want),
        )
        store.attachments.update(record)
        _refuse_foreign_bridges(conf, joined, want, kernel)
        apply_plan(plan.plan_network(joined, want), kernel, inverses)
        know_peers(joined, kernel.host, host_state(store, joined.prefix))
        mtu = (rtnl.uplink_mtu(kernel.host) or 0) if conf.gateway is not None else 0
        apply_plan(plan.plan_attachment(conf, record.attachment, joined, want, uplink_mtu=mtu), kernel, inverses)
        result = want.result.replace(interfaces=_interfaces(conf, call, record, joined, kernel))
        store.attachments.commit(record.attachment, dump(render_result(result, netconf.cni_version)))
    except BaseException as failure:
        from pycni.plugins.overlay.delete import undo

        undo(failure, store, record, call, netconf, conf=conf, kernel=kernel, inverses=inverses)
        raise
    return result


def _refuse_foreign_bridges(conf: OverlayConf, joined: Joined, want: plan.Wanted, kernel: Kernel) -> None:
    """CniError 7 where a bridge's name is another link's: containers would be on somebody else's network."""
    _refuse_foreign_bridge(kernel, joined.bridge, joined.network, plan.bridge_mac(joined, want))
    if conf.gateway is not None:
        gateway = conf.gateway
        _refuse_foreign_bridge(kernel, gateway.bridge, gateway.network, plan.gateway_bridge_mac(want))


def _refuse_foreign_bridge(kernel: Kernel, name: str, network: str, mac: bytes) -> None:
    link = kernel.find(ops.HOST, name)
    if link is None or link.alias == bridge_alias(network):
        return
    # One that another ADD makes at this moment has its MAC, and no alias yet: a bridge takes none at its creation.
    if link.alias or link.mac != mac:
        raise CniError(
            Code.INVALID_CONFIG,
            f"link {name} exists and is not network {network}'s",
            f'it is a {link.kind or "physical"} link with alias {link.alias!r}: name another with "bridge"',
        )


def _interfaces(conf: OverlayConf, call: Call, record: Record, joined: Joined, kernel: Kernel) -> tuple[Interface, ...]:
    """Bridge, host link, container link (plan.CONTAINER_END), VXLAN device; with a gateway bridge that, its host link
    and its container link (plan.GATEWAY_END)."""
    names = [(ops.HOST, joined.bridge), (ops.HOST, record.host_links[0]), (ops.CONTAINER, call.ifname)]
    names.append((ops.HOST, joined.vxlan))
    if conf.gateway is not None:
        names += [(ops.HOST, conf.gateway.bridge), (ops.HOST, record.host_links[1])]
        names.append((ops.CONTAINER, conf.gateway.ifname))
    links = [(where, kernel.link(where, name)) for where, name in names]
    return tuple(
        Interface(
            name=link.name, mac=link.mac.hex(":"), mtu=link.mtu, sandbox=call.netns if where == ops.CONTAINER else ""
        )
        for where, link in links
    )
