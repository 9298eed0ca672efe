"""DEL of the ptp plugin. What it needs is imported while the kernel already takes the link away."""

from __future__ import annotations

import os

from pycni.cni.names import Attachment, host_link_name
from pycni.host import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: whatever is left of the attachment goes, also without namespace, prevResult or record."""
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    removal = links.removal((host_link_name(attachment),))
    try:
        from pycni.attach.release import release
        from pycni.store import open_store

        with open_store() as store:
            record = store.attachments.get(attachment)
            release(store, attachment, call, netconf, removal=removal, record=record)
    finally:
        removal.wait()
    if record is None and call.netns and netconf.prev_result is not None:
        _delete_unknown(call, {one.name for one in netconf.prev_result.interfaces if not one.sandbox})


def _delete_unknown(call: Call, host_links: set[str]) -> None:
    """An attachment made by another plugin, before pycni was installed: a pair whose host's end is one of *host_links*.

    A DEL also follows an ADD that failed because the container has an interface of that name, in another network: that
    one has to stay, and such a DEL comes without a result.
    """
    from pycni.cni.errors import CniError
    from pycni.host import messages, netns, rtnl

    try:
        fd = netns.open_netns(call.netns)
    except CniError:
        return  # gone, and the link with it
    try:
        with rtnl.in_namespace(fd) as inside, rtnl.Netlink() as host:
            link = inside.link(call.ifname)
            if link is None or link.kind != "veth" or netns.identity(fd) == netns.own_identity():
                return
            peer = host.link(link.peer_index) if link.peer_index else None
            if peer is None or (peer.kind, peer.peer_index) != ("veth", link.index) or peer.master:
                return
            if peer.name in host_links and not peer.alias.startswith("pycni "):
                host.request(messages.delete_link(peer.index))
    finally:
        os.close(fd)
