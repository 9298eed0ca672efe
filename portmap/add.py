"""ADD of the portmap plugin. Most calls are for containers without ports, so what publishes them is loaded late."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.portmap.conf import PortmapConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result


def add(call: Call, netconf: NetConf) -> Result:
    """ADD (spec, section 4): publish what the capability portMappings lists. Undone wholly if it fails."""
    conf = PortmapConf.parse(netconf)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(
            Code.INVALID_CONFIG, "must be called as chained plugin", "put portmap behind a plugin that gives addresses"
        )
    if conf.asks_nothing:
        return previous
    from pycni.portmap.publish import publish

    return publish(call, netconf, conf, previous)
