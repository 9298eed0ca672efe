"""STATUS of the overlay plugin: could an ADD succeed now, and would the other hosts' containers be followed?"""

from __future__ import annotations

import os
import sys

from pycni.cni.errors import CniError, Code
from pycni.etcd.client import Silent
from pycni.host import rtnl
from pycni.host.firewall import open_firewall
from pycni.ipam import delegate
from pycni.plugins.overlay import following, plan
from pycni.plugins.overlay.add import no_agent, refuse_encryption, refuse_foreign_ipam
from pycni.plugins.overlay.conf import MULTICAST, OverlayConf, with_etcd
from pycni.plugins.overlay.joining import subnets_of
from pycni.plugins.overlay.site import find_joined
from pycni.plugins.overlay.underlay import find_way
from pycni.store import open_usable_store

NOT_FOLLOWED = "containers that come to other hosts are not known to this one until its next ADD"
NOT_YET = "containers that come to other hosts are known to this one when etcd answers again"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where an ADD could not succeed now, 51 where besides containers of this host may not be able
    to reach those that come to other hosts."""
    netconf = with_etcd(netconf)
    conf = OverlayConf.parse(netconf, call)
    refuse_foreign_ipam(conf, call, netconf)
    refuse_encryption(conf)
    try:
        with rtnl.Netlink() as host:
            find_way(host, conf).tunnel_mtu(conf.mtu, subnets_of(netconf))
        if plan.needs_firewall(conf):
            open_firewall(conf.backend).close()
    except OSError as failure:
        raise CniError(Code.NOT_AVAILABLE, f"rtnetlink is not usable: {failure.strerror}") from failure
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
    with open_usable_store() as store:
        there = find_joined(os.path.dirname(store.path), netconf.name)
        takes_part = there is not None and not there.left
        try:
            if conf.ipam:
                delegate.ask("STATUS", call, netconf, store)
        except CniError as failure:
            if not takes_part or not isinstance(failure.__cause__, Silent):
                raise
            then = NOT_FOLLOWED if following.follower() is None else NOT_YET
            raise CniError(Code.LIMITED, f"{failure.msg}; {then}", failure.details) from failure
    if conf.mode != MULTICAST and following.follower() is None:
        _nobody_follows(conf, netconf.name, takes_part=takes_part)


def _nobody_follows(conf: OverlayConf, network: str, *, takes_part: bool) -> None:
    """An error only where the configuration refuses ADD as well: runtimes take any code for "this node is not ready",
    and a host without an agent does attach containers, each of which learns of all that are there."""
    if conf.require_agent:
        raise CniError(Code.LIMITED if takes_part else Code.NOT_AVAILABLE, *no_agent(network))
    if takes_part:
        print(f"pycni: no agent follows network {network}: {NOT_FOLLOWED}; start `pycni agent`", file=sys.stderr)
