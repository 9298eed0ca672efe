"""GC of the bandwidth plugin: what it added to attachments that are no more, and devices that no record names."""

from __future__ import annotations

from pycni.attach.reclaim import reclaim
from pycni.cni.errors import CniError, Code
from pycni.host import rtnl
from pycni.host.links import Removal
from pycni.plugins.bandwidth import plan
from pycni.plugins.bandwidth.delete import release_record
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.store import Store


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone."""
    with open_store() as store:
        try:
            reclaim(store, call, netconf, plan.PART, release_record)
        finally:
            if netconf.valid_attachments is not None:
                with store.transaction():
                    _remove_strays(store, netconf.name, netconf.valid_attachments)


def _remove_strays(store: Store, network: str, valid: tuple[Attachment, ...]) -> None:
    """Devices with our mark and this network's name that are neither recorded nor valid, as after a lost store."""
    recorded = {record.attachment for record in store.attachments.all(network=network, part=plan.PART)}
    known = {plan.ifb_alias(attachment) for attachment in (*recorded, *valid)}
    head = plan.ifb_alias_head(network)
    with rtnl.Netlink() as host:
        strays = [link.name for link in host.links() if link.alias.startswith(head) and link.alias not in known]
    failures = Removal(strays).wait()
    if failures:
        raise CniError(Code.INTERNAL, f"not everything was reclaimed: {'; '.join(failures)}", "GC again finishes it")
