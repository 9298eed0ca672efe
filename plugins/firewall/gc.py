"""GC of the firewall plugin: what ADDs of containers left that are not there any more."""

from __future__ import annotations

from pycni.attach.reclaim import reclaim
from pycni.plugins.firewall.conf import PLUGIN
from pycni.plugins.firewall.delete import release_record
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone."""
    with open_store() as store:
        reclaim(store, call, netconf, PLUGIN, release_record)
