"""Bring back what somebody took away of the links that containers share; `lost` says what that is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from pycni.agent.lost import SHARED, Added, Loss, There, lost
from pycni.attach.release import call_of
from pycni.change.ops import EnsureAddress, Op
from pycni.cni import json_text
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError
from pycni.cni.result import parse_result
from pycni.host import rtnl
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall
from pycni.ipam.conf import range_gateways
from pycni.plugins.bridge import again as bridge_again
from pycni.plugins.overlay.site import Joined, find_joined
from pycni.store import Record, Store
from pycni.store.boot import boot_id

FEW = 100  # plans of attachments that are over


def restore_links(store: Store, failures: list[str], network: str | None = None) -> tuple[str, ...]:
    """Bring back what is missing of the links that the attachments of *network* (None: all) share on this host; in
    words. What could not be done is told in *failures*."""
    with rtnl.Netlink() as host:
        if not _lost(store, host, failures, network):
            return ()
        restored = []
        # Under the store's lock, and looked at once more: a DEL may have removed it just now, an ADD made it.
        with store.transaction():
            kernel = Kernel(None, NoFirewall())
            try:
                for loss in _lost(store, host, [], network):
                    try:
                        for op in loss.ops:
                            kernel.do(op)
                        restored.append(loss.what)
                    except (CniError, OSError) as failure:
                        failures.append(f"{loss.what}: {failure}")
            finally:
                kernel.close()
    return tuple(restored)


def _lost(store: Store, host: rtnl.Netlink, failures: list[str], network: str | None) -> tuple[Loss, ...]:
    boot = boot_id()
    records = [record for record in store.attachments.all(network, part="") if _counts(record, boot)]
    if not records:
        return ()
    added = _added(store, sorted(records, key=lambda record: record.created), failures)
    return lost(added, _look(host, added))


def _counts(record: Record, boot: str) -> bool:
    return record.state == "ready" and record.plugin in ("bridge", "overlay") and record.boot_id == boot


def _look(host: rtnl.Netlink, added: Iterable[Added]) -> There:
    links = {link.name: link for link in host.links()}
    carriers = {op.link for each in added for op in each.ops if isinstance(op, EnsureAddress)}
    return There(links, {name: host.addresses(links[name].index) for name in carriers if name in links})


def _added(store: Store, records: Sequence[Record], failures: list[str]) -> list[Added]:
    directory = os.path.dirname(store.path)
    overlays = {record.attachment.network for record in records if record.plugin == "overlay"}
    joined = {network: find_joined(directory, network) for network in overlays}
    found = []
    for record in records:
        try:
            found.append(_plans.of(record, joined.get(record.attachment.network)))
        except (CniError, ValueError) as failure:
            failures.append(f"{record.attachment.owner}: {failure}")
    _plans.forget_all_but(records)
    return found


class _Plans:
    """What ADDs did, planned again once for each: that is 0.3 ms, and a comparison asks for all."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, float], tuple[Joined | None, Added]] = {}

    def of(self, record: Record, joined: Joined | None) -> Added:
        before, added = self._known.get(_key(record), (None, None))
        if added is None or before != joined:
            added = _planned_again(record, joined)
            self._known[_key(record)] = joined, added
        return added

    def forget_all_but(self, records: Sequence[Record]) -> None:
        """Once there are twice as many: some ask for one network only."""
        known = self._known
        if len(known) > 2 * len(records) + FEW:
            alive = set(map(_key, records))
            self._known = {key: plan for key, plan in known.items() if key in alive}


_plans = _Plans()


def _key(record: Record) -> tuple[str, float]:
    return record.attachment.owner, record.created


def _planned_again(record: Record, joined: Joined | None) -> Added:
    attachment = record.attachment
    netconf = parse_conf(record.conf.encode(), "DEL")
    call = call_of(record, netconf, record.plugin)
    result = parse_result(json_text.loads(record.result), netconf.cni_version)
    ops: tuple[Op, ...] = ()
    sole = record.plugin == "bridge"
    if sole:
        ops = bridge_again.plan_again(attachment, call, netconf, result)
    elif joined is not None and not joined.left:  # this host may be leaving
        from pycni.plugins.overlay import again as overlay_again  # not on a host without such a network
        from pycni.plugins.overlay.conf import with_etcd

        ops = overlay_again.plan_again(attachment, call, with_etcd(netconf, call.args), result, joined)
    shared = tuple(op for op in ops if isinstance(op, SHARED))
    return Added(attachment.owner, attachment.network, shared, sole, range_gateways(netconf) if sole else ())
