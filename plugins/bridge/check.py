"""CHECK of the bridge plugin in order: ask the IPAM plugin, read the kernel, compare."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host import rtnl
from pycni.host.firewall import missing_rules
from pycni.ipam import delegate
from pycni.plugins.bridge.compare import CheckFacts, differences
from pycni.plugins.bridge.conf import BridgeConf
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.store.attachments import Record


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names everything of ours that is missing or was changed."""
    conf = BridgeConf.parse(netconf, call)
    if conf.ipam:
        with open_store() as store:
            delegate.ask("CHECK", call, netconf, store)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing", "CHECK needs the result of the last ADD")
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    with open_store() as store:
        record = store.attachments.get(attachment)
    wrong = differences(conf, call, previous, _read_check_facts(conf, call, previous, record))
    if wrong:
        raise broken(attachment.owner, wrong)


def _read_check_facts(conf: BridgeConf, call: Call, previous: Result, record: Record | None) -> CheckFacts:
    container = open_container(call)
    try:
        with rtnl.Netlink() as host, rtnl.in_namespace(container) as inside:
            link = inside.link(call.ifname)
            bridge = host.link(conf.bridge)
            carrier = bridge if conf.gateway_link == conf.bridge else host.link(conf.gateway_link)
            return CheckFacts(
                bridge=bridge,
                container=link,
                host={i.name: host.link(i.name) for i in previous.interfaces if not i.sandbox},
                addresses=inside.addresses(link.index) if link else (),
                routes=inside.routes(table=0),
                gateways=host.addresses(carrier.index) if carrier is not None and conf.is_gateway else (),
                rules=missing_rules(record.backend, record.network_rules, record.attachment_rules) if record else (),
            )
    finally:
        os.close(container)
