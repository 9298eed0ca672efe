"""ADD of the bandwidth plugin: mostly nothing, for a capability that this container does not use."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.plugins.bandwidth.conf import BandwidthConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result


def add(call: Call, netconf: NetConf) -> Result:
    """ADD: the earlier plugin's result, with the intermediate device where there is one. Undone wholly if it fails."""
    conf = BandwidthConf.parse(netconf)
    if netconf.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "must be called as chained plugin",
            "prevResult is missing: list bandwidth after the plugin that makes the interface",
        )
    if not conf.limited:
        return netconf.prev_result
    from pycni.plugins.bandwidth.limit import limit

    return limit(call, netconf, conf, netconf.prev_result)
