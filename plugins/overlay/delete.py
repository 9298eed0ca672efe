"""DEL of the overlay plugin, and how a record of it is released or a failed ADD taken back."""

from __future__ import annotations

import sys

from pycni.attach.release import attempt, call_of, release
from pycni.change.ops import DeleteLink, EnsureSysctl
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError, not_released
from pycni.cni.names import Attachment, host_link_name
from pycni.etcd.client import Unavailable
from pycni.host import links
from pycni.ipam import delegate
from pycni.plugins.overlay import following
from pycni.plugins.overlay.conf import ROUTED, connection_of, gateway_of, reached_as, with_etcd
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.change.ops import Op
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.host.apply import Kernel
    from pycni.plugins.overlay.conf import GatewayBridge, OverlayConf
    from pycni.store import Store
    from pycni.store.attachments import Record


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: whatever is left of the attachment goes, also without namespace, prevResult, record or etcd."""
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    removal = links.removal(_links(attachment, call, netconf))
    try:
        netconf = with_etcd(netconf)
        with open_store() as store:
            record = store.attachments.get(attachment)
            if record is None:
                _release(store, attachment, call, netconf, removal=removal)
            else:
                # What the ADD was configured with counts; the configuration may be another by now, or broken. Only how
                # etcd is reached is to be taken from what is now.
                former = reached_as(parse_conf(record.conf.encode(), "DEL"), netconf)
                _release(store, attachment, call, former, record=record)
    finally:
        removal.wait()


def _links(attachment: Attachment, call: Call, netconf: NetConf) -> tuple[str, ...]:
    """The host links of an attachment as the configuration has it: all there is to go by where the store was lost."""
    gateway = gateway_of(netconf, call)
    names = [attachment.ifname] if gateway is None else [attachment.ifname, gateway.ifname]
    return tuple(host_link_name(attachment.replace(ifname=name)) for name in names)


def release_record(store: Store, record: Record, executable: str = "", now: NetConf | None = None) -> None:
    """The same by the record alone; see attach.release.release_record. *now*: the network's configuration, if known."""
    conf = parse_conf(record.conf.encode(), "DEL")
    conf = conf if now is None else reached_as(conf, now)
    _release(store, record.attachment, call_of(record, conf, executable), conf, record=record)


def undo(
    failure: BaseException,
    store: Store,
    record: Record,
    call: Call,
    netconf: NetConf,
    *,
    conf: OverlayConf,
    kernel: Kernel,
    inverses: Sequence[Op],
) -> None:
    """Take back an ADD that has its lease; what stays behind becomes notes of *failure*.

    Bridges, the VXLAN device and their addresses are others', too, and go as at a DEL: with the last attachment.
    """
    from pycni.attach.undo import undo_add

    left: list[str] = []
    _release_outside(store, conf.gateway, call, netconf, left)
    own = [op for op in inverses if isinstance(op, EnsureSysctl | DeleteLink)]
    undo_add(failure, store, record, call, netconf, kernel=kernel, inverses=own)
    _after(store, record.attachment, call, netconf, record=record, failures=left)
    for each in left:
        failure.add_note(each)


def _release(
    store: Store,
    attachment: Attachment,
    call: Call,
    netconf: NetConf,
    *,
    record: Record | None = None,
    removal: links.Removal | None = None,
) -> None:
    ask_follower(netconf)
    failures: list[str] = []
    gateway = gateway_of(netconf, call)
    _release_outside(store, gateway, call, netconf, failures)
    try:
        release(store, attachment, call, netconf, record=record, removal=removal)
    except CniError as failure:
        for each in failures:
            failure.add_note(each)
        raise
    _after(store, attachment, call, netconf, record=record, failures=failures)
    if failures:
        raise not_released(attachment.owner, failures)


def ask_follower(netconf: NetConf) -> None:
    """CniError 11 on a machine that has another one's id, as a copied disk has: what etcd says is not its own."""
    follower = following.follower()
    if follower is not None:
        for prefix, connection in connection_of(netconf).items():
            follower.admit(connection, prefix)


def _release_outside(
    store: Store, gateway: GatewayBridge | None, call: Call, netconf: NetConf, failures: list[str]
) -> None:
    if gateway is not None:
        from pycni.plugins.overlay import outside

        attempt(failures, "gatewayBridge", outside.release, gateway, call, netconf, store)


def _after(
    store: Store, attachment: Attachment, call: Call, netconf: NetConf, *, record: Record | None, failures: list[str]
) -> None:
    """What goes with the last attachment: of the gateway bridge, and of the network on this host."""
    gateway = gateway_of(netconf, call)
    if gateway is not None and record is not None:
        from pycni.plugins.overlay import outside

        attempt(failures, "gatewayBridge", outside.remove_bridge, gateway, store, record)
    if store.attachments.has_network(attachment.network):
        return
    from pycni.plugins.overlay.leaving import leave_if_last

    try:
        answers = _hand_back(store, call, netconf)
        connections = connection_of(netconf)
        failures += leave_if_last(store, attachment.network, connections, ask_etcd=None if answers else False)
    except (CniError, OSError) as failure:
        failures.append(str(failure))


def _hand_back(store: Store, call: Call, netconf: NetConf) -> bool:
    """Give back the blocks of a routed network that nobody here has an address of; False where etcd is silent, or does
    not let us in.

    A failure is none of DEL: the blocks stay this host's, for its next container or GC.
    """
    try:
        if netconf.keys.raw("mode") == ROUTED and delegate.is_ours(call, netconf):
            delegate.ask("GC", call.replace(command="GC"), netconf.replace(valid_attachments=None), store)
    except Unavailable:
        return False
    except CniError as failure:
        print(f"pycni: the blocks of network {netconf.name} stay this host's: {failure}", file=sys.stderr)
    return True
