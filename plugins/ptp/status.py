"""STATUS of the ptp plugin: could an ADD succeed now?"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.host import rtnl
from pycni.host.firewall import open_firewall
from pycni.ipam import delegate
from pycni.plugins.ptp.conf import PtpConf
from pycni.store import open_usable_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where an ADD could not succeed now."""
    conf = PtpConf.parse(netconf)
    try:
        rtnl.Netlink().close()
    except OSError as failure:
        raise CniError(Code.NOT_AVAILABLE, f"rtnetlink is not usable: {failure.strerror}") from failure
    try:
        open_firewall(conf.backend).close()
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
    with open_usable_store() as store:
        delegate.ask("STATUS", call, netconf, store)
