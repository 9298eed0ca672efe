"""GC of the portmap plugin: the ports of attachments that are no more."""

from __future__ import annotations

from pycni.attach.reclaim import reclaim
from pycni.portmap.delete import release_record
from pycni.store import open_store
from pycni.store.host_ports import PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone."""
    with open_store() as store:
        reclaim(store, call, netconf, PART, release_record)
