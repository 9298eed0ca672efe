"""What a release of published ports consists of. Everything is tried; what failed is collected."""

from __future__ import annotations

from pycni.attach import release
from pycni.portmap import flows
from pycni.portmap.holding import holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.names import Attachment
    from pycni.host.firewall import Firewall
    from pycni.store import Store
    from pycni.store.attachments import Record


def restore_settings(store: Store, record: Record, failures: list[str]) -> None:
    """Put every setting of a link that *record* is the last to need back to what it was. Under the store's lock, with
    its own need taken back in the same transaction: an ADD that begins meanwhile waits, then finds the setting as it
    was and changes it anew; and of two that end at the same time one is the last."""
    if store.host_ports.settings(record.attachment):
        release.attempt(failures, "settings", _restore_settings, store, record.attachment)


def _restore_settings(store: Store, own: Attachment) -> None:
    with store.transaction():  # a failure takes back that they were given up
        settings = store.host_ports.settings(own)
        store.host_ports.give_up_settings(own)
        for link, setting, before in settings:
            if before != "1" and not store.host_ports.is_used(link, setting):
                _switch_off(link, setting)


def _switch_off(link: str, setting: str) -> None:
    from pycni.host.apply import Kernel  # of every network's last container only
    from pycni.host.firewall import NoFirewall
    from pycni.portmap.plan import set_to

    kernel = Kernel(None, NoFirewall())
    try:
        kernel.do(set_to(link, setting, on=False))
    finally:
        kernel.close()


def remove_rules(store: Store, record: Record, failures: list[str]) -> None:
    opened: list[Firewall] = []
    try:
        release.attempt(failures, "firewall", release.remove_rules, store, record, opened)
    finally:
        for firewall in opened:
            firewall.close()


def end_flows(record: Record, failures: list[str]) -> None:
    """End the flows that the rules of *record* translated, so that their clients learn of it and nobody's who gets the
    container's address inherits them."""
    release.attempt(failures, "conntrack", flows.end_translated, record.attachment_rules.ports)


def release_ports(record: Record, failures: list[str]) -> None:
    release.attempt(failures, "ports", holder().release, record.attachment.owner)
