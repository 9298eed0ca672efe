"""What the ADD of an attachment did, planned again from its record: for who looks what of it is gone. Pure."""

from __future__ import annotations

from pycni.cni.addresses import parse_mac
from pycni.cni.macs import endpoint_mac
from pycni.plugins.bridge import plan
from pycni.plugins.bridge.conf import BridgeConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.cni.result import Result


def plan_again(attachment: Attachment, call: Call, netconf: NetConf, result: Result) -> tuple[Op, ...]:
    """Every operation of the ADD that gave *result*, with the bridge's MAC of then and MTUs of 0. CniError as that."""
    conf = BridgeConf.parse(netconf, call)
    want = plan.wanted(conf, result)
    named = next((each.mac for each in result.interfaces if each.name == conf.bridge and not each.sandbox), "")
    # Results before 0.3.0 have no interfaces: a MAC that will be the same the next time.
    mac = parse_mac(named) if named else endpoint_mac(gateway.ip for gateway in want.gateways)
    return plan.plan_add(conf, attachment, want, plan.BridgeFacts(uplink_mtu=0, bridge_mac=mac))
