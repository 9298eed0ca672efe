"""CHECK of the portmap plugin in order: parse, read the record and the host, compare."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host.firewall import open_firewall
from pycni.host.rtnl import Netlink
from pycni.portmap.compare import CheckFacts, differences, left_to_proxy
from pycni.portmap.conf import PortmapConf
from pycni.portmap.facts import read_setting, read_wanted
from pycni.portmap.holding import holder, proxy_listens
from pycni.store import open_store
from pycni.store.host_ports import PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.claims import Claim
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store
    from pycni.store.attachments import Record


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names every mapping, rule and setting that is missing."""
    conf = PortmapConf.parse(netconf)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(
            Code.INVALID_CONFIG, "must be called as chained plugin", "CHECK needs the result of the last ADD"
        )
    if conf.asks_nothing:
        return
    attachment = Attachment(netconf.name, call.container_id, call.ifname, PART)
    with open_store() as store, Netlink() as host:
        # What ADD left to the proxy the record says: whether an agent runs now is no difference.
        wanted = read_wanted(host, conf, previous, call.ifname, serves_proxy=True)
        record = store.attachments.get(attachment)
        if record is None or record.state != "ready":
            raise broken(attachment.owner, ("no port of it is published",))
        wrong = differences(wanted.services, _read_facts(store, host, record))
    if wrong:
        raise broken(attachment.owner, wrong)


def _read_facts(store: Store, host: Netlink, record: Record) -> CheckFacts:
    claims = store.host_ports.of(record.attachment)
    settings = [(link, setting) for link, setting, _ in store.host_ports.settings(record.attachment)]
    return CheckFacts(
        claims=claims,
        missing=_missing_rules(record),
        unserved=_unserved(record, claims),
        lost=tuple((link, setting) for link, setting in settings if read_setting(host, link, setting) != "1"),
    )


def _unserved(record: Record, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    """Those of *claims* that are the proxy's, where none runs and no agent is there to start one."""
    found = left_to_proxy(claims, record.attachment_rules.ports)
    return () if not found or holder().serves_proxy or proxy_listens() else found


def _missing_rules(record: Record) -> tuple[str, ...]:
    firewall = open_firewall(record.backend)
    try:
        return firewall.missing(record.network_rules, record.attachment_rules)
    finally:
        firewall.close()
