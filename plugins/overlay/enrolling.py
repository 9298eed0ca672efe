"""Tell etcd that this host takes part in a network: the network's record with its VNI, and the host's member key."""

from __future__ import annotations

import sys
import time

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code
from pycni.etcd import members
from pycni.etcd.claims import Fenced
from pycni.etcd.networks import make_network, remove_network
from pycni.etcd.records import Member, NetworkRecord
from pycni.etcd.schema import SchemaError
from pycni.host.vxlan import read_vxlans
from pycni.plugins.overlay import following
from pycni.plugins.overlay.joining import joined_as, member_of, subnets_of
from pycni.plugins.overlay.site import keep_joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.etcd.client import Client
    from pycni.etcd.schema import Keys
    from pycni.host.rtnl import Netlink
    from pycni.ipam.etcd_site import Site
    from pycni.plugins.overlay.conf import OverlayConf
    from pycni.plugins.overlay.site import Joined
    from pycni.plugins.overlay.underlay import Way

TURNS = 3  # declared dead once more while it comes back


def enrol(site: Site, netconf: NetConf, conf: OverlayConf, way: Way, *, host: Netlink, there: Joined | None) -> Joined:
    """This host is a member of the network when this returns; *there*: how it was before. Errors as of joining.join."""
    keys, name = site.keys, netconf.name
    follower = following.follower()
    if follower is not None:
        follower.admit(json_text.dumps(netconf.keys.object("etcd").as_dict()), keys.prefix)
    with site.client() as client:
        if there is not None and there.left:
            members.leave(client, keys, site.node, name)
        foreign = frozenset(each.vni for each in read_vxlans(host) if each.vni and not each.alias.startswith("pycni "))
        record = _agree(client, keys, netconf, conf, avoid=foreign)
        others = _others(client, keys, name, keys.member(site.node, name))
        _refuse_other_family(name, way, others)
        mtus = tuple(other.mtu for other in others if other.mtu)
        joined = joined_as(netconf, conf, way, site.state, vni=record.vni, others=mtus)
        member = member_of(joined, agent=follower is not None)
        if there is None:
            # Whoever dies between the key in etcd and what is kept here leaves this: the key is to be deleted.
            keep_joined(site.state, joined.replace(left=True))
        for _ in range(TURNS):
            outcome = members.join(client, keys, site.node, site.state.fence(), name, member)
            if not isinstance(outcome, Fenced):
                return joined.replace(fence=site.state.fence())
            site.return_home(client, outcome)
    raise CniError(Code.TRY_AGAIN, f"this host ({site.node}) is declared dead again and again", "`pycni etcd dump`")


def _others(client: Client, keys: Keys, network: str, own: str) -> list[Member]:
    """The members of *network* but for that with the key *own*."""
    found = []
    for kv in client.read(keys.all_members).found:
        if kv.key.endswith(f"/{network}") and kv.key != own:
            try:
                found.append(Member.parse(kv.value, kv.key))
            except SchemaError as damage:  # that host's to mend
                print(f"pycni: {damage}", file=sys.stderr)
    return found


def _agree(client: Client, keys: Keys, netconf: NetConf, conf: OverlayConf, *, avoid: frozenset[int]) -> NetworkRecord:
    """The network's record, made where it is missing, and made anew where it is another's that nobody uses any more."""
    wanted = NetworkRecord(
        vni=conf.vni, mode=conf.mode, subnets=subnets_of(netconf), port=conf.port, mtu=conf.mtu, created=time.time()
    )
    try:
        return make_network(client, keys, netconf.name, wanted, avoid=avoid)
    except CniError as failure:
        if failure.code != Code.INVALID_CONFIG:
            raise
        try:
            remove_network(client, keys, netconf.name)
        except CniError:
            raise failure from None
    return make_network(client, keys, netconf.name, wanted, avoid=avoid)


def _refuse_other_family(network: str, way: Way, others: list[Member]) -> None:
    for other in others:
        if (":" in other.vtep) != (way.local.version == 6):
            raise CniError(
                Code.INVALID_CONFIG,
                f"the tunnels of network {network} end at {other.vtep} on host {other.name}, and at {way.local} on this"
                " one",
                'all hosts need addresses of one family: choose with "interface" or "local"',
            )
