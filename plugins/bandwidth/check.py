"""CHECK of the bandwidth plugin in order: read the kernel, compare."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code, broken
from pycni.host import rtnl
from pycni.plugins.bandwidth import plan
from pycni.plugins.bandwidth.compare import differences
from pycni.plugins.bandwidth.conf import BandwidthConf
from pycni.plugins.bandwidth.facts import read_facts
from pycni.plugins.bandwidth.host_link import host_link_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.plugins.bandwidth.compare import CheckFacts


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names every limit that is missing or was changed."""
    conf = BandwidthConf.parse(netconf)
    if netconf.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG, "must be called as a chained plugin", "CHECK needs the result of the last ADD"
        )
    if not conf.limited:
        return
    wrong = differences(conf, _read_facts(call, netconf.name, netconf.prev_result))
    if wrong:
        raise broken(f"{netconf.name}/{call.container_id}/{call.ifname}", wrong)


def _read_facts(call: Call, network: str, previous: Result) -> CheckFacts:
    container = open_container(call)
    try:
        with rtnl.Netlink() as host:
            link = host_link_of(host, container, call.ifname, previous)
            name = plan.ifb_name(network, call.container_id)
            return read_facts(host, link, name, host.link(name))
    finally:
        os.close(container)
