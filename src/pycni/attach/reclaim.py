"""GC: everything of one network that no valid attachment owns."""

from __future__ import annotations

from pycni.attach.liveness import is_abandoned, is_dead
from pycni.attach.release import release_record
from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.cni.names import alias, bridge_alias
from pycni.firewall.rules import comment_of
from pycni.host import rtnl
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall, open_firewall
from pycni.ipam import delegate
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.store import Store
    from pycni.store.attachments import Record

    Release = Callable[[Store, Record, str], None]

PARTS = ("", "firewall", "portmap")  # of an attachment (see there): those that may have rules


def reclaim(store: Store, call: Call, conf: NetConf, part: str = "", release: Release = release_record) -> None:
    """Release what is not among conf.valid_attachments; without that list only what is dead for certain.

    *part*: of which plugin (see Attachment), whose way to release a record is *release*. CniError 999 names what could
    not be released; everything else is released all the same (spec, section 2, GC).
    """
    valid = conf.valid_attachments
    failures: list[str] = []
    with rtnl.Netlink() as host:
        records = store.attachments.all(network=conf.name, part=part)
        unwanted = [one for one in records if (is_dead(one, host) if valid is None else _is_over(one, valid))]
    for record in unwanted:
        if not store.attachments.claim(record):
            continue  # it changed since it was read: a runtime is at it
        try:
            release(store, record, call.executable)
        except CniError as failure:
            failures.append(failure.msg)
    if valid is not None and not part:
        with store.transaction():
            try:
                remove_strays(store, conf.name, valid)
                remove_stray_rules(store, conf.name, valid)
            except (OSError, CniError) as failure:
                failures.append(str(failure))
    if failures:
        raise CniError(Code.INTERNAL, f"not everything was reclaimed: {'; '.join(failures)}", "GC again finishes it")


def reclaim_with_leases(call: Call, conf: NetConf) -> None:
    """GC of a plugin that makes interfaces: reclaim(), then the IPAM plugin's own GC, whatever fails on the way."""
    with open_store() as store:
        try:
            reclaim(store, call, conf)
        except CniError as failure:
            try:
                collect_leases(store, call, conf)
            except (CniError, OSError) as second:
                failure.add_note(f"ipam: {second}")
            raise
        collect_leases(store, call, conf)


def collect_leases(store: Store, call: Call, conf: NetConf) -> None:
    if conf.ipam.text("type"):
        delegate.ask("GC", call, conf, store)


def _is_over(record: Record, valid: tuple[Attachment, ...]) -> bool:
    """Not listed, and not half made by a process that still runs: that is its own business."""
    return record.attachment.replace(part="") not in valid and (record.state == "ready" or is_abandoned(record))


def remove_strays(store: Store, network: str, valid: tuple[Attachment, ...]) -> None:
    """Links that carry our mark and this network's name, but are in no record and not *valid*, as after a lost store;
    and what was made for the network as a whole, once nobody has it any more: VLAN gateways, then the bridge."""
    recorded = {alias(record.attachment) for record in store.attachments.all(network=network, part="")}
    known = recorded | {alias(attachment) for attachment in valid}
    kernel = Kernel(None, NoFirewall())
    try:
        links = kernel.host.links()
        ours = [link for link in links if link.alias.startswith(f"pycni {network}/")]
        strays = [link for link in ours if link.alias not in known]
        for link in strays:
            kernel.do(ops.DeleteLink(link.name))
        if not recorded and len(strays) == len(ours):
            shared = [link for link in links if link.alias == bridge_alias(network)]
            for link in sorted(shared, key=lambda link: link.kind == "bridge"):  # a gateway is a port of its bridge
                kernel.do(ops.DeleteBridge(link.name))
    finally:
        kernel.close()


def remove_stray_rules(store: Store, network: str, valid: tuple[Attachment, ...]) -> None:
    """Firewall rules of attachments of this network that no record names, as after a lost store.

    They stay where somebody may need them: a *valid* attachment without a record, or one of another network, whose own
    GC has not been asked.
    """
    records = store.attachments.all()
    try:
        firewall = open_firewall()
    except CniError:
        return  # a host without any packet filter
    try:
        unknown = firewall.owners().difference(
            (comment_of(record.attachment.owner) for record in records),
            (record.attachment.network for record in records),  # of iptables the network has the rules
        )
        if are_strays(unknown, network, valid):
            firewall.collect([(record.network_rules, record.attachment_rules) for record in records])
    finally:
        firewall.close()


def are_strays(comments: Collection[str], network: str, valid: tuple[Attachment, ...]) -> bool:
    """Whether there are owners of rules, as *comments* have them, and all are of *network* and none is *valid*."""
    needed = {comment_of(one.replace(part=part).owner) for one in valid for part in PARTS}
    if valid:
        needed.add(network)  # of iptables the network has the rules
    return bool(comments) and all(_is_of(each, network) and each not in needed for each in comments)


def _is_of(comment: str, network: str) -> bool:
    """Of a name too long for a comment the head decides: two such networks that begin alike are taken for one."""
    prefix = f"{network}/"
    head, shortened, _ = comment.rpartition("~")  # of which no name has one
    return comment == network or comment.startswith(prefix) or bool(shortened and prefix.startswith(head))
