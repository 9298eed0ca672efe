"""The addresses of the second interface: a pool of this host's own, which has the gateway bridge's name."""

from __future__ import annotations

from pycni.change.ops import HOST, DeleteBridge
from pycni.cni.keys import Keys
from pycni.cni.names import bridge_alias
from pycni.cni.result import Result
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall
from pycni.ipam import plugin as pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.firewall.rules import NetworkRules
    from pycni.plugins.overlay.conf import GatewayBridge
    from pycni.store import Store
    from pycni.store.attachments import Record

DATA_DIR = "pycni:gateway"  # names the pool beside the bridge's name; no directory of host-local's


def lease(gateway: GatewayBridge, call: Call, netconf: NetConf, store: Store) -> Result:
    """Addresses for the second interface of the attachment."""
    return pool.add(call.replace(args=""), _pool_conf(gateway, netconf), store)


def release(gateway: GatewayBridge, call: Call, netconf: NetConf, store: Store) -> None:
    """Give them back; the bridge goes with the last container on it."""
    pool.delete(call, _pool_conf(gateway, netconf), store)


def remove_bridge(gateway: GatewayBridge, store: Store, record: Record) -> None:
    """Remove the bridge unless an attachment other than *record* relies on it: its rules, which are in its record
    before it makes anything, say so."""
    if store.attachments.shares_rules(record):
        return
    with store.transaction():
        _remove_unless(gateway, store.attachments.rules_of_others(record.attachment))


def _remove_unless(gateway: GatewayBridge, needed: Iterable[NetworkRules]) -> None:
    """Remove the bridge if it is ours and has no port, and none of the rules *needed* is about it."""
    if any(gateway.bridge in rules.bridges for rules in needed):
        return
    kernel = Kernel(None, NoFirewall())
    try:
        link = kernel.find(HOST, gateway.bridge)
        if link is not None and link.alias == bridge_alias(gateway.network):
            kernel.do(DeleteBridge(gateway.bridge))
    finally:
        kernel.close()


def check(gateway: GatewayBridge, call: Call, netconf: NetConf, store: Store) -> None:
    """CniError (BROKEN) unless the attachment has its addresses there."""
    pool.check(call, _pool_conf(gateway, netconf), store)


def collect(gateway: GatewayBridge, call: Call, netconf: NetConf, store: Store) -> None:
    """Release what is surely dead, of whatever network: they share the pool; and the bridge, where nobody is left."""
    pool.gc(call, _pool_conf(gateway, netconf), store)
    with store.transaction():
        _remove_unless(gateway, [record.network_rules for record in store.attachments.all()])


def _pool_conf(gateway: GatewayBridge, netconf: NetConf) -> NetConf:
    """What the caller asks for (addresses, ranges) is meant for the overlay, so nothing of that is in it."""
    ipam = {"type": "host-local", "dataDir": DATA_DIR, "ranges": [[each] for each in gateway.ranges]}
    keys = Keys({"name": gateway.network, "ipam": ipam})
    nothing = Keys({})
    return netconf.replace(
        name=gateway.network,
        keys=keys,
        ipam=keys.object("ipam"),
        runtime=nothing,
        args_cni=nothing,
        valid_attachments=None,
    )
