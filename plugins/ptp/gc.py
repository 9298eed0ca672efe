"""GC of the ptp plugin: its own attachments, then the IPAM plugin's leases."""

from __future__ import annotations

from pycni.attach.reclaim import reclaim_with_leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone."""
    reclaim_with_leases(call, netconf)
