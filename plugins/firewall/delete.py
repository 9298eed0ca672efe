"""DEL of the firewall plugin: the record says all that ADD made, so nothing else is needed."""

from __future__ import annotations

from pycni.attach.release import attempt, remove_rules
from pycni.cni.errors import not_released
from pycni.cni.names import Attachment
from pycni.plugins.firewall.conf import PLUGIN
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.host.firewall import Firewall
    from pycni.store import Store
    from pycni.store.attachments import Record


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: whatever is left of it goes, also without namespace, prevResult or the rest of the configuration."""
    with open_store() as store:
        record = store.attachments.get(Attachment(netconf.name, call.container_id, call.ifname, PLUGIN))
        if record is not None:
            release_record(store, record)


def release_record(store: Store, record: Record, executable: str = "") -> None:
    """Take back everything of one ADD, whatever fails on the way; CniError 999 names what could not be taken back."""
    failures: list[str] = []
    opened: list[Firewall] = []
    rules = record.attachment_rules
    try:
        if rules.zone:
            attempt(failures, "firewalld", _leave_zone, store, record)
        if rules.closed_ports:
            attempt(failures, "ports", _open_ports, rules.closed_ports)
        attempt(failures, "firewall", remove_rules, store, record, opened)
    finally:
        for firewall in opened:
            firewall.close()
    if failures:
        raise not_released(record.attachment.owner, failures)
    store.attachments.remove(record)


def _leave_zone(store: Store, record: Record) -> None:
    """An address may be another container's by now, whose sources must stay: an IPAM plugin frees it earlier."""
    from pycni.host import firewalld

    rules = record.attachment_rules
    kept = {
        source
        for other in store.attachments.all(record.attachment.network, PLUGIN)
        if other.attachment != record.attachment and other.attachment_rules.zone == rules.zone
        for source in other.attachment_rules.sources
    }
    firewalld.remove(rules.zone, [source for source in rules.sources if source not in kept])


def _open_ports(names: tuple[str, ...]) -> None:
    """Take the flag `isolated` off the ports that are still there; the bridge plugin's DEL removes them next."""
    from pycni.host import messages, rtnl

    with rtnl.Netlink() as host:
        for name in names:
            link = host.link(name)
            if link is not None and link.isolated:
                host.request(messages.bridge_port(link.index, isolated=False))
