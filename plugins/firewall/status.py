"""STATUS of the firewall plugin: could an ADD succeed now?"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.host.firewall import open_firewall
from pycni.plugins.firewall.conf import FirewallConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where an ADD could not succeed now."""
    conf = FirewallConf.parse(netconf)
    try:
        open_firewall(conf.rules_backend).close()
        if conf.backend == "firewalld":
            from pycni.host.firewalld import open_firewalld

            open_firewalld().close()
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
