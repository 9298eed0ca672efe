"""STATUS of the bandwidth plugin: could an ADD succeed now?"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.host import rtnl, traffic_control
from pycni.plugins.bandwidth.conf import BandwidthConf
from pycni.store import open_usable_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where no ADD could succeed now: no traffic control, no state file; 7 for wrong limits."""
    BandwidthConf.parse(netconf)
    try:
        with rtnl.Netlink() as host:
            traffic_control.qdiscs(host)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise CniError(
            Code.NOT_AVAILABLE, f"traffic control is not usable: {reason}", "it needs CONFIG_NET_SCHED"
        ) from failure
    with open_usable_store():
        pass
