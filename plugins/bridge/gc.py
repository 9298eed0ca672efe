"""GC of the bridge plugin: its own attachments, then the IPAM plugin's leases, whatever fails on the way."""

from __future__ import annotations

from pycni.attach.reclaim import reclaim
from pycni.cni.errors import CniError
from pycni.ipam import delegate
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone."""
    with open_store() as store:
        try:
            reclaim(store, call, netconf)
        except CniError as failure:
            try:
                _collect_leases(store, call, netconf)
            except (CniError, OSError) as second:
                failure.add_note(f"ipam: {second}")
            raise
        _collect_leases(store, call, netconf)


def _collect_leases(store: Store, call: Call, netconf: NetConf) -> None:
    if netconf.ipam.text("type"):
        delegate.ask("GC", call, netconf, store)
