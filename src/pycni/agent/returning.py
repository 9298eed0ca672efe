"""This host was declared dead while it was away: it comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pycni.etcd.client import Client
from pycni.ipam.etcd_return import return_home
from pycni.plugins.overlay.lost_blocks import give_up_blocks
from pycni.store import open_store

if TYPE_CHECKING:
    from pycni.agent.cluster import Cluster


def come_back(client: Client, cluster: Cluster, note: Callable[..., None]) -> None:
    """Where there is a fence that this host has not seen: keep what is its own, cut off what is not, and bring the
    kernel to what etcd says of the others by now. Then it may join its networks again.

    CniError 11 where etcd does not answer: the next attempt begins anew.
    """
    found = cluster.mirror.get(cluster.keys.fence(cluster.node))
    if found is not None and found.mod_revision > cluster.state.fence():
        names = [joined.network for joined in cluster.joined]
        with open_store() as store:
            lost = return_home(client, cluster.keys, cluster.state, store, fence=found.mod_revision, networks=names)
        if lost is not None:
            note("warning", "overlay-returned", fence=found.mod_revision, lost=list(lost))
    # A call may have learnt it first, and that for its own network alone.
    fence = cluster.state.fence()
    behind = [joined.network for joined in cluster.joined if joined.fence != fence]
    if behind:
        with open_store() as store:
            for name in behind:
                give_up_blocks(store, name)
        cluster.fenced_at(fence)
        cluster.compare()
