"""CHECK of the ptp plugin in order: ask the IPAM plugin, read the kernel, compare."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host import rtnl
from pycni.host.firewall import missing_rules
from pycni.ipam import delegate
from pycni.plugins.ptp.compare import CheckFacts, differences
from pycni.plugins.ptp.conf import PtpConf
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store.attachments import Record


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names everything of ours that is missing or was changed."""
    PtpConf.parse(netconf)
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    with open_store() as store:
        delegate.ask("CHECK", call, netconf, store)
        record = store.attachments.get(attachment)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(
            Code.INVALID_CONFIG, "ptp: Required prevResult missing", "CHECK needs the result of the last ADD"
        )
    wrong = differences(call, previous, _read_facts(call, record))
    if wrong:
        raise broken(attachment.owner, wrong)


def _read_facts(call: Call, record: Record | None) -> CheckFacts:
    container = open_container(call)
    try:
        with rtnl.Netlink() as host, rtnl.in_namespace(container) as inside:
            link = inside.link(call.ifname)
            end = host.link(link.peer_index) if link is not None and link.peer_index else None
            if end is not None and link is not None and (end.kind, end.peer_index) != ("veth", link.index):
                end = None  # another link of that number: the pair's other end is elsewhere
            return CheckFacts(
                container=link,
                addresses=inside.addresses(link.index) if link else (),
                routes=inside.routes(table=0),
                host=end,
                host_addresses=host.addresses(end.index) if end else (),
                host_routes=host.routes(oif=end.index) if end else (),
                rules=missing_rules(record.backend, record.network_rules, record.attachment_rules) if record else (),
            )
    finally:
        os.close(container)
