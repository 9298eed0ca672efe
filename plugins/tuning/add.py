"""ADD of the tuning plugin: often nothing, in lists that name it just in case."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.plugins.tuning.conf import TuningConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result


def add(call: Call, netconf: NetConf) -> Result:
    """ADD: the earlier plugin's result with the MAC that the interface has now. Undone wholly if it fails."""
    conf = TuningConf.parse(netconf, call)
    if netconf.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "Required prevResult missing",
            "list tuning after the plugin that makes the interface",
        )
    if not conf.changes:
        return netconf.prev_result
    from pycni.plugins.tuning.tune import tune

    return tune(call, netconf, conf)
