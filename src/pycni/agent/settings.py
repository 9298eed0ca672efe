"""Bring back what published ports need of links, and what went with a bridge that somebody deleted.

A bridge that is there again has a larger index than the containers' links of before (dev_index_reserve, dev.c), and
none of the settings of the one that is gone. What is off of an older bridge somebody switched off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pycni.cni.errors import CniError
from pycni.host import rtnl
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall, missing_rules
from pycni.host.link_facts import Link
from pycni.portmap.facts import read_setting
from pycni.portmap.plan import set_to
from pycni.store import Record, Store
from pycni.store.boot import boot_id
from pycni.store.host_ports import PART


def restore_settings(store: Store, records: Iterable[Record], failures: list[str]) -> tuple[str, ...]:
    """Switch on again what is lost, in words. After the rules, which close what route_localnet would open."""
    boot = boot_id()
    ready = {one.attachment: one for one in records if one.state == "ready" and one.boot_id == boot}
    published = [each for each in ready if each.part == PART and each.replace(part="") in ready]
    if not published:
        return ()
    restored: list[str] = []
    with rtnl.Netlink() as host:
        links = {link.name: link for link in host.links()}
        for each in published:
            if not _is_newer(ready[each.replace(part="")], links):
                continue
            try:
                restored += _restore(store, host, ready[each])
            except (CniError, OSError) as failure:
                failures.append(f"{each.owner}: {failure}")
    return tuple(restored)


def _is_newer(record: Record, links: Mapping[str, Link]) -> bool:
    """Whether the bridge of *record* was made after its links, which were on another one of that name."""
    bridge = links.get(record.bridge)
    return bridge is not None and any(bridge.index > links[name].index for name in record.host_links if name in links)


def _restore(store: Store, host: rtnl.Netlink, record: Record) -> Iterator[str]:
    if not _lost(store, host, record) or missing_rules(record.backend, record.network_rules, record.attachment_rules):
        return
    # Under the store's lock, and looked at once more: a DEL may have switched it off just now.
    with store.transaction():
        now = store.attachments.get(record.attachment)
        if now is None or now.state != "ready":
            return
        kernel = Kernel(None, NoFirewall())
        try:
            for link, setting in _lost(store, host, record):
                kernel.do(set_to(link, setting, on=True))
                yield f"{record.attachment.owner}: {setting} of {link}"
        finally:
            kernel.close()


def _lost(store: Store, host: rtnl.Netlink, record: Record) -> list[tuple[str, str]]:
    settings = store.host_ports.settings(record.attachment)
    return [(link, setting) for link, setting, _ in settings if read_setting(host, link, setting) != "1"]
