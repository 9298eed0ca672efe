"""GC of the overlay plugin: its own attachments, the IPAM plugin's leases, and what was left behind without etcd."""

from __future__ import annotations

from pycni.attach.reclaim import collect_leases, reclaim
from pycni.attach.release import attempt
from pycni.cni.errors import CniError, Code
from pycni.plugins.overlay.conf import connection_of, gateway_of, with_etcd
from pycni.plugins.overlay.delete import ask_follower, release_record
from pycni.plugins.overlay.leaving import finish_everywhere, leave_if_last
from pycni.plugins.overlay.lost_blocks import give_up_blocks
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store
    from pycni.store.attachments import Record


def gc(call: Call, netconf: NetConf) -> None:
    """GC: attachments that are not listed go; without a list only those whose namespace is gone.

    CniError 11 on a machine that has another one's id: what is not listed here may be that one's containers.
    """
    netconf = with_etcd(netconf)
    ask_follower(netconf)
    gateway, connections = gateway_of(netconf, call), connection_of(netconf)
    failures: list[str] = []

    def release(store: Store, record: Record, executable: str) -> None:
        release_record(store, record, executable, netconf)

    with open_store() as store:
        attempt(failures, "attachments", reclaim, store, call, netconf, "", release)
        attempt(failures, "ipam", collect_leases, store, call, netconf)
        if gateway is not None:
            from pycni.plugins.overlay import outside

            attempt(failures, "gatewayBridge", outside.collect, gateway, call, netconf, store)
        attempt(failures, "blocks", give_up_blocks, store, netconf.name)
        attempt(failures, "leaving", lambda: failures.extend(leave_if_last(store, netconf.name, connections)))
        attempt(failures, "etcd", finish_everywhere, store, connections)
    if failures:
        raise CniError(Code.INTERNAL, f"not everything was reclaimed: {'; '.join(failures)}", "GC again finishes it")
