"""ADD of the ptp plugin in order: parse, record, lease, plan, apply, commit. No decisions here."""

from __future__ import annotations

import os

from pycni.attach.begin import EveryoneElse, begin_with_lease, new_record
from pycni.attach.container import open_container
from pycni.change import ops
from pycni.cni.names import Attachment, host_link_name
from pycni.cni.result import Interface, Result, dump, render_result
from pycni.host import netns, rtnl
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall
from pycni.plugins.ptp import plan
from pycni.plugins.ptp.conf import PtpConf
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store
    from pycni.store.attachments import Record

PLUGIN = "ptp"


def add(call: Call, netconf: NetConf) -> Result:
    """ADD (spec, section 4): a veth pair that the host routes to, addressed by the IPAM plugin. Undone wholly if it
    fails."""
    conf = PtpConf.parse(netconf)
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    container = open_container(call)
    try:
        firewall = open_firewall(conf.backend)
        with open_store() as store:
            record = new_record(attachment, call, netconf, PLUGIN, netns.identity(container)).replace(
                host_links=(host_link_name(attachment),), backend=firewall.name
            )

            def described(record: Record, lease: Result) -> tuple[Record, Result]:
                result = plan.wanted(lease)
                owned = record.replace(
                    addresses=tuple(str(ip.address) for ip in result.ips),
                    network_rules=plan.network_rules(conf, attachment, result),
                    attachment_rules=plan.attachment_rules(conf, attachment, result),
                )
                return owned, result

            record, result = begin_with_lease(store, call, record, netconf, described)
            kernel = Kernel(container, firewall, EveryoneElse(store, record))
            return _add(store, record, call, netconf, conf, result=result, kernel=kernel)
    finally:
        os.close(container)


def _add(
    store: Store, record: Record, call: Call, netconf: NetConf, conf: PtpConf, *, result: Result, kernel: Kernel
) -> Result:
    inverses: list[ops.Op] = []
    try:
        uplink_mtu = 0 if conf.mtu else (rtnl.uplink_mtu(kernel.host) or 0)
        apply_plan(plan.plan_add(conf, record.attachment, result, uplink_mtu), kernel, inverses)
        result = result.replace(interfaces=_interfaces(call, record, kernel))
        store.attachments.commit(record.attachment, dump(render_result(result, netconf.cni_version)))
    except BaseException as failure:
        from pycni.attach.undo import undo_add

        undo_add(failure, store, record, call, netconf, kernel=kernel, inverses=inverses)
        raise
    finally:
        kernel.close()
    return result


def _interfaces(call: Call, record: Record, kernel: Kernel) -> tuple[Interface, ...]:
    """Host link and container link (result index 1)."""
    host, inside = kernel.known(ops.HOST, record.host_links[0]), kernel.known(ops.CONTAINER, call.ifname)
    return (
        Interface(name=host.name, mac=host.mac.hex(":"), mtu=host.mtu),
        Interface(name=inside.name, mac=inside.mac.hex(":"), mtu=inside.mtu, sandbox=call.netns),
    )
