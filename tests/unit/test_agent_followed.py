"""Which changes to the tunnels' guard the agent answers."""

from __future__ import annotations

from typing import Any, cast

from pycni.agent.followed import Followed
from pycni.etcd.records import Member
from pycni.etcd.requests import KeyValue
from pycni.firewall.tunnel_text import guarded_element, peer_elements
from pycni.plugins.overlay.site import L2, Joined

PEER, STRANGER = "192.0.2.2", "192.0.2.99"
JOINED = Joined("net", L2, 100, 4789, "vxlan100", "ovl100", "eth0", "192.0.2.1", 1450, "me", "", "/pycni")
GUARDED, OTHERS = guarded_element(4789, 100), guarded_element(4789, 101)


def test_guard() -> None:
    """A stranger that is let in, a host or the network that is not guarded any more; not what this agent does itself,
    nor what is another network's."""
    network = Followed(JOINED, cast(Any, None))
    (let_in,), (shut_out,) = peer_elements(4789, 100, [STRANGER]), peer_elements(4789, 100, [PEER])
    assert not network.is_let_in([(False, let_in), (True, GUARDED)]), "nothing is known yet"
    member = Member(name="h2", vtep=PEER, mac="0a:00:00:00:00:02").render()
    network.load([(("member", "h2", "net"), KeyValue("key", member, 5, 5))])
    assert network.is_let_in([(False, let_in)])
    assert network.is_let_in([(True, shut_out)])
    assert network.is_let_in([(True, GUARDED)])
    assert not network.is_let_in([(False, shut_out), (True, let_in), (False, GUARDED)])
    assert not network.is_let_in([(True, OTHERS), *((False, each) for each in peer_elements(4789, 101, [STRANGER]))])
