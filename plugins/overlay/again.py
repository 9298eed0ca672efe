"""What the ADD of an attachment did, planned again from its record: for who looks what of it is gone. Pure."""

from __future__ import annotations

from pycni.change.tunnels import EnsureOffload, EnsureVxlan
from pycni.cni.result import Result
from pycni.plugins.overlay import plan
from pycni.plugins.overlay.conf import OverlayConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.plugins.overlay.site import Joined


def plan_again(attachment: Attachment, call: Call, netconf: NetConf, result: Result, joined: Joined) -> tuple[Op, ...]:
    """Every operation of the ADD that gave *result*, as this host takes part by now (*joined*), with an MTU of 0 for
    the gateway bridge; but for the tunnel's device where an agent follows its peers. CniError as that."""
    conf = OverlayConf.parse(netconf, call)
    outer = [ip for ip in result.ips if ip.interface == plan.GATEWAY_END]
    inner = tuple(ip for ip in result.ips if ip not in outer)
    want = plan.wanted(conf, joined, result.replace(ips=inner), Result(ips=tuple(outer)))
    shared = plan.plan_network(joined, want)
    if joined.connection:
        shared = tuple(op for op in shared if not isinstance(op, EnsureVxlan | EnsureOffload))
    return (*shared, *plan.plan_attachment(conf, attachment, joined, want, uplink_mtu=0))
