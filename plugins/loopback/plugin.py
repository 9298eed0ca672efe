"""The loopback plugin: lo up on ADD, down on DEL. CNI_IFNAME does not count (Nomad calls with eth0)."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.change.ops import CONTAINER, SetUp
from pycni.cni.errors import CniError, Code
from pycni.cni.result import Interface, IPConfig, Result
from pycni.host import messages, rtnl
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call

LO = "lo"


def add(call: Call, netconf: NetConf) -> Result:
    """ADD: the earlier plugin's result where there is one, else lo and its addresses."""
    container = open_container(call)
    try:
        kernel = Kernel(container, open_firewall("none"))
        try:
            apply_plan((SetUp(CONTAINER, LO),), kernel, [])
        finally:
            kernel.close()
        if netconf.prev_result is not None:
            return netconf.prev_result
        with rtnl.in_namespace(container) as inside:
            link = inside.link(LO)
            assert link is not None, "the kernel makes lo with every namespace"
            return Result(
                interfaces=(Interface(name=LO, mac=link.mac.hex(":"), mtu=link.mtu, sandbox=call.netns),),
                ips=tuple(IPConfig(address=a, interface=0) for a in inside.addresses(link.index)),
            )
    finally:
        os.close(container)


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: lo down; a namespace that is gone took it along."""
    try:
        container = open_container(call)
    except CniError:
        return
    try:
        with rtnl.in_namespace(container) as inside:
            inside.request(messages.set_link(LO, up=False))
    finally:
        os.close(container)


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 unless lo is up."""
    container = open_container(call)
    try:
        with rtnl.in_namespace(container) as inside:
            link = inside.link(LO)
            if link is None or not link.up:
                raise CniError(Code.BROKEN, f"lo is down in {call.netns}", "ip link set lo up, inside the container")
    finally:
        os.close(container)


def gc(call: Call, netconf: NetConf) -> None:
    """GC: nothing is kept."""


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: there is nothing that could be missing but rtnetlink itself."""
    try:
        rtnl.Netlink().close()
    except OSError as failure:
        raise CniError(Code.NOT_AVAILABLE, f"rtnetlink is not usable: {failure.strerror}") from failure
