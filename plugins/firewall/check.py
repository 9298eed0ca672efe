"""CHECK of the firewall plugin in order: read, compare. It makes nothing."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host import rtnl
from pycni.host.firewall import open_firewall
from pycni.host.forward import closed_forward
from pycni.host.nfnetlink import Nfnetlink
from pycni.plugins.firewall.compare import CheckFacts, differences
from pycni.plugins.firewall.conf import PLUGIN, FirewallConf
from pycni.plugins.firewall.plan import host_links
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.store.attachments import Record


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names everything of ours that is missing or was changed."""
    conf = FirewallConf.parse(netconf)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(
            Code.INVALID_CONFIG, "missing prevResult from earlier plugin", "CHECK needs the result of the last ADD"
        )
    if conf.backend == "none":
        return
    attachment = Attachment(netconf.name, call.container_id, call.ifname, PLUGIN)
    with open_store() as store:
        record = store.attachments.get(attachment)
    rules = record.attachment_rules if record is not None else None
    wrong = differences(conf, rules, previous, _read_check_facts(previous, record))
    if wrong:
        raise broken(attachment.owner, wrong)


def _read_check_facts(previous: Result, record: Record | None) -> CheckFacts:
    with rtnl.Netlink() as host:
        links = tuple(link for link in map(host.link, host_links(previous)) if link is not None)
    if record is None:
        return CheckFacts(links=links)
    firewall = open_firewall(record.backend)
    try:
        missing = firewall.missing(record.network_rules, record.attachment_rules)
    finally:
        firewall.close()
    with Nfnetlink() as kernel:
        forward = closed_forward(kernel, record.network_rules)
    zone: tuple[str, ...] = ()
    if record.attachment_rules.zone:
        from pycni.host import firewalld

        zone = firewalld.missing(record.attachment_rules.zone, record.attachment_rules.sources)
    return CheckFacts(links=links, rules=missing, forward=forward, zone=zone)
