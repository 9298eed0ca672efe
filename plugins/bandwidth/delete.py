"""DEL of the bandwidth plugin: the device, the disciplines of the host's link where that still is, the record."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError, not_released
from pycni.cni.names import Attachment
from pycni.host import links, rtnl
from pycni.plugins.bandwidth import plan
from pycni.plugins.bandwidth.conf import BandwidthConf
from pycni.plugins.bandwidth.host_link import find_host_link, give_back
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.host.link_facts import Link
    from pycni.store import Store
    from pycni.store.attachments import Record


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: limits by us or by the reference's plugin go; also without namespace, prevResult or record."""
    attachment = Attachment(netconf.name, call.container_id, call.ifname, plan.PART)
    with open_store() as store:
        record = store.attachments.get(attachment)
        if record is not None:
            release_record(store, record)
            return
    with rtnl.Netlink() as host:
        ifb = host.link(plan.ifb_name(netconf.name, call.container_id))
        # One of ours may be another interface's of this container: the name does not tell them apart, the alias does.
        if ifb is not None and (ifb.alias == plan.ifb_alias(attachment) or not ifb.alias.startswith(plan.ALIAS_HEAD)):
            _take_away(host, attachment, _unrecorded_link(host, call), _limits(netconf))


def release_record(store: Store, record: Record, executable: str = "") -> None:
    """Take away what *record* stands for, and it: also for GC, reconciling, and the next ADD of the same id."""
    with rtnl.Netlink() as host:
        link = host.link(record.host_links[0]) if record.host_links else None
        limits = _limits(parse_conf(record.conf.encode(), "DEL"))
        _take_away(host, record.attachment, link, limits, whole=record.state != "adding")
    store.attachments.remove(record)


def _take_away(
    host: rtnl.Netlink, attachment: Attachment, link: Link | None, conf: BandwidthConf, *, whole: bool = True
) -> None:
    """The device, and what *conf* did to *link*: other queueing disciplines there are somebody else's. *whole*: the ADD
    came to its end; else it is unknown how far it got."""
    name = plan.ifb_name(attachment.network, attachment.container_id)
    ifb = host.link(name)
    ours = ifb is not None and ifb.alias in ("", plan.ifb_alias(attachment))
    if link is not None and not whole:
        from pycni.plugins.bandwidth.compare import begun  # rare: after an ADD that was killed
        from pycni.plugins.bandwidth.facts import read_facts

        conf = begun(conf, read_facts(host, link, name, ifb if ours else None))
    removal = links.Removal((name,) if ours else ())
    try:
        if link is not None:
            give_back(host, link, conf)
    finally:
        failures = removal.wait()
    if failures:
        raise not_released(attachment.owner, failures)


def _limits(netconf: NetConf) -> BandwidthConf:
    try:
        return BandwidthConf.parse(netconf)
    except CniError:
        return BandwidthConf()  # no ADD got any further either


def _unrecorded_link(host: rtnl.Netlink, call: Call) -> Link | None:
    """The host's end of the pair, where the container still is."""
    try:
        container = open_container(call)
    except CniError:
        return None  # gone, and the link with it
    try:
        return find_host_link(host, container, call.ifname)
    finally:
        os.close(container)
