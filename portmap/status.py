"""STATUS of the portmap plugin: could an ADD succeed now?"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.host.firewall import open_firewall
from pycni.portmap.conf import PortmapConf
from pycni.portmap.holding import holder
from pycni.store import open_usable_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where an ADD could not succeed now."""
    conf = PortmapConf.parse(netconf)
    try:
        open_firewall(conf.backend).close()
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
    with open_usable_store():
        pass
    if conf.proxy == "always" and not holder().serves_proxy:
        raise CniError(
            Code.NOT_AVAILABLE,
            'this network is to be served by the userland proxy ("proxy": "always"), which lives in the agent,'
            " and no agent runs",
            "start it (systemctl start pycni-agent, or pycni agent)",
        )
