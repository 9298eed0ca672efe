"""ADD of the bridge plugin in order: parse, record, lease, facts, plan, apply, commit. No decisions here."""

from __future__ import annotations

import os

from pycni.attach.begin import EveryoneElse, begin_with_lease, new_record
from pycni.attach.container import open_container
from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment, bridge_alias, host_link_name, sha256_hex
from pycni.cni.result import Interface, Result, dump, render_result
from pycni.host import netns, rtnl
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall
from pycni.plugins.bridge import plan
from pycni.plugins.bridge.conf import BridgeConf
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store
    from pycni.store.attachments import Record

PLUGIN = "bridge"


def add(call: Call, netconf: NetConf) -> Result:
    """ADD (spec, section 4): a veth pair on the bridge, addressed by the IPAM plugin. Undone wholly if it fails."""
    conf = BridgeConf.parse(netconf, call)
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    container = open_container(call)
    try:
        firewall = open_firewall(conf.backend if plan.needs_firewall(conf) else "none")
        with open_store() as store:
            record = new_record(attachment, call, netconf, PLUGIN, netns.identity(container)).replace(
                host_links=(host_link_name(attachment),), bridge=conf.bridge, backend=firewall.name
            )

            def described(record: Record, lease: Result) -> tuple[Record, plan.Wanted]:
                if conf.ipam and not lease.ips:
                    why = f"ipam.type is {conf.ipam}"
                    raise CniError(Code.INVALID_CONFIG, "IPAM plugin returned missing IP config", why)
                # A MAC before anything is made: the record names every rule there will be.
                want = plan.wanted(conf, lease.replace(mac=conf.mac or lease.mac or _random_mac()))
                owned = record.replace(
                    addresses=tuple(str(ip.address) for ip in want.result.ips),
                    network_rules=plan.network_rules(conf, attachment, want),
                    attachment_rules=plan.attachment_rules(conf, attachment, want),
                )
                return owned, want

            record, want = begin_with_lease(store, call, record, netconf, described)
            kernel = Kernel(container, firewall, EveryoneElse(store, record))
            return _add(store, record, call, netconf, conf, want=want, kernel=kernel)
    finally:
        os.close(container)


def _add(
    store: Store,
    record: Record,
    call: Call,
    netconf: NetConf,
    conf: BridgeConf,
    *,
    want: plan.Wanted,
    kernel: Kernel,
) -> Result:
    inverses: list[ops.Op] = []
    try:
        facts = read_facts(store, record, conf, netconf, want=want, kernel=kernel)
        apply_plan(plan.plan_add(conf, record.attachment, want, facts), kernel, inverses)
        result = want.result.replace(interfaces=_interfaces(conf, call, record, kernel))
        store.attachments.commit(record.attachment, dump(render_result(result, netconf.cni_version)))
    except BaseException as failure:
        from pycni.attach.undo import undo_add

        undo_add(failure, store, record, call, netconf, kernel=kernel, inverses=inverses)
        raise
    finally:
        kernel.close()
    return result


def read_facts(
    store: Store, record: Record, conf: BridgeConf, netconf: NetConf, *, want: plan.Wanted, kernel: Kernel
) -> plan.BridgeFacts:
    bridge = kernel.find(ops.HOST, conf.bridge)
    link = bridge if conf.gateway_link == conf.bridge else kernel.find(ops.HOST, conf.gateway_link)
    if not conf.is_gateway or (link is not None and link.name == conf.bridge and link.kind != "bridge"):
        link = None  # EnsureBridge refuses it: its addresses do not matter
    addresses = kernel.host.addresses(link.index) if link is not None else ()
    ours = link is not None and link.alias == bridge_alias(record.attachment.network)
    beside: tuple[AddressWithPrefix, ...] = ()
    if plan.unwanted(addresses, want.gateways):
        from pycni.ipam.conf import range_gateways  # most networks have one range of a family

        beside = range_gateways(netconf)
    # Whether others use the bridge is read only where the answer matters: it may take all records.
    unwanted = ours and bool(plan.unwanted(addresses, want.gateways, beside))
    return plan.BridgeFacts(
        uplink_mtu=0 if conf.mtu else (rtnl.uplink_mtu(kernel.host) or 0),
        gateway_addresses=addresses,
        range_gateways=beside,
        replaceable=unwanted and not store.attachments.has_others_on_bridge(record.attachment, conf.bridge),
        bridge_mac=_bridge_mac(record, conf.bridge) if bridge is None else b"",
    )


def _bridge_mac(record: Record, bridge: str) -> bytes:
    """The same for as long as this host is up: containers of a bridge that somebody deleted, and that this ADD makes
    anew, know its gateway by it. No other host's bridge, and no container (see cni/macs), has it."""
    host = f"{record.boot_id}/{netns.own_identity()}"
    return bytes.fromhex("0e" + sha256_hex(f"{host}/{bridge}".encode())[:10])


def _random_mac() -> bytes:
    """Unicast and locally administered (IEEE 802: the two lowest bits of the first byte)."""
    mac = bytearray(os.urandom(6))
    mac[0] = mac[0] & 0xFC | 0x02
    return bytes(mac)


def _interfaces(conf: BridgeConf, call: Call, record: Record, kernel: Kernel) -> tuple[Interface, ...]:
    """Bridge, host link, container link (result index 2), and the VLAN's gateway where there is one."""
    names = [(ops.HOST, conf.bridge), (ops.HOST, record.host_links[0]), (ops.CONTAINER, call.ifname)]
    if conf.gateway_link != conf.bridge:
        names.append((ops.HOST, conf.gateway_link))
    known = [(where, kernel.known(where, name)) for where, name in names]
    port_mtu = known[1][1].mtu

    def is_settled(link: rtnl.Link) -> bool:
        """A bridge's MAC and MTU may have followed its new port, unless the one was set by us and the other its own."""
        return link.kind == "veth" or (link.mac == _bridge_mac(record, link.name) and link.mtu == port_mtu)

    links = [(where, link if is_settled(link) else kernel.link(where, link.name)) for where, link in known]
    return tuple(
        Interface(
            name=link.name,
            mac=link.mac.hex(":"),
            mtu=link.mtu,
            sandbox=call.netns if where == ops.CONTAINER else "",
        )
        for where, link in links
    )
