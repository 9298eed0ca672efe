"""Take an attachment away: links, firewall elements, addresses, record. Everything is tried, errors are collected.

The record names all that is owned, so neither the namespace nor the network's configuration is needed any more.
"""

from __future__ import annotations

from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError, not_released
from pycni.firewall.rules import comment_of
from pycni.host import links
from pycni.host.delegate import find
from pycni.host.firewall import open_firewall, remove_last
from pycni.ipam import delegate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.names import Attachment
    from pycni.host.firewall import Firewall
    from pycni.store import Store
    from pycni.store.attachments import Record


def release(
    store: Store,
    attachment: Attachment,
    call: Call,
    conf: NetConf,
    *,
    removal: links.Removal | None = None,
    record: Record | None = None,
) -> None:
    """What DEL does; nothing to release is success. CniError 999 names all that could not be released.

    *removal*: of the host links, where it has begun already; *record*: the attachment's, where it has been read.
    """
    record = record or store.attachments.get(attachment)
    # The kernel waits for an RCU grace period (16 to 24 ms) before it answers: the rest is done meanwhile.
    removal = removal or links.removal(record.host_links if record else ())
    failures: list[str] = []
    opened: list[Firewall] = []
    try:
        if record is not None:
            attempt(failures, "firewall", remove_rules, store, record, opened)
        if conf.ipam.text("type"):
            attempt(failures, "ipam", delegate.ask, "DEL", call.replace(mac=_known_mac(record, removal)), conf, store)
    finally:
        for firewall in opened:
            firewall.close()  # may wait for RCU as well (host/netfilter_socket.py): both waits at the same time
        failures += removal.wait()
    if failures:
        raise not_released(attachment.owner, failures, recorded=record is not None)
    if record is not None:
        store.attachments.remove(record)


def _known_mac(record: Record | None, removal: links.Removal) -> bytes:
    """The MAC that the container's neighbours know, b"" where that is not sure: an ADD that did not come to its end has
    told nobody, nor has one whose announcement the DEL has overtaken."""
    if record is None or record.state != "ready" or (links.is_resident() and _is_unheard(record)):
        return b""
    return removal.mac


def _is_unheard(record: Record) -> bool:
    from pycni.host import unheard  # who ends with its call has announced

    return unheard.has_any(record.addresses)


def release_record(store: Store, record: Record, executable: str = "") -> None:
    """release() with everything taken from the record: for GC and for the next ADD of the same id.

    *executable*: the file that was called, if one was (see Call); else the one that an ADD would call today.
    """
    conf = parse_conf(record.conf.encode(), "DEL")
    release(store, record.attachment, call_of(record, conf, executable), conf, record=record)


def call_of(record: Record, conf: NetConf, executable: str = "") -> Call:
    """The DEL that a runtime would call for *record*, whose config is *conf*; *executable* as in release_record."""
    owner = record.attachment
    return Call(
        command="DEL",
        container_id=owner.container_id,
        netns=record.netns,
        ifname=owner.ifname,
        args=record.cni_args,
        path=record.cni_path,
        environ=environment_of(record),
        executable=executable or _executable(conf, record),
    )


def _executable(conf: NetConf, record: Record) -> str:
    try:
        return find(conf.type, record.cni_path)
    except CniError:
        return ""  # uninstalled


def environment_of(record: Record) -> tuple[tuple[str, str], ...]:
    """The environment a delegate gets when no runtime is calling."""
    owner = record.attachment
    return (
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", owner.container_id),
        ("CNI_NETNS", record.netns),
        ("CNI_IFNAME", owner.ifname),
        ("CNI_ARGS", record.cni_args),
        ("CNI_PATH", ":".join(record.cni_path)),
    )


def remove_rules(store: Store, record: Record, opened: list[Firewall]) -> None:
    """Remove the attachment's firewall elements; its network's and the whole table with the last that used them.

    Under the store's lock: an ADD that begins meanwhile waits, then finds the table gone and makes it anew. The
    firewall goes to *opened*, for the caller to close.
    """
    if not record.backend or record.backend == "none":
        return
    with store.transaction():
        firewall = open_firewall(record.backend)
        opened.append(firewall)
        strangers = not store.attachments.has_others_of_backend(record) and _strangers(firewall, record)
        if not store.attachments.has_others_with_rules(record.attachment) and not strangers:
            remove_last(firewall, record.network_rules, record.attachment_rules)
        elif store.attachments.shares_rules(record):
            firewall.apply_delete(record.attachment_rules)
        else:
            others = store.attachments.rules_of_others(record.attachment)
            firewall.apply_delete(record.attachment_rules, record.network_rules, others)
            if not strangers and not store.attachments.has_others_of_backend(record):
                # A chain of plugins may use two; remove_all() would take away what the other one's attachments need.
                alive = [one for one in store.attachments.all() if one.attachment != record.attachment]
                firewall.collect([(one.network_rules, one.attachment_rules) for one in alive])
        # This process's work from here on: with the ADD's process in the record, which is long gone, a reconciling
        # agent would take it for abandoned.
        store.attachments.claim(record)


def _strangers(firewall: Firewall, record: Record) -> bool:
    """Whether others have rules that no record speaks of, as after a lost store: their containers may be running."""
    own = {comment_of(record.attachment.owner), record.attachment.network}  # of iptables the network has the rules
    return not firewall.owners() <= own


def attempt(failures: list[str], what: str, act: object, *args: object) -> None:
    """Call *act*; what it fails with becomes one of *failures*."""
    try:
        act(*args)  # type: ignore[operator]
    except CniError as failure:
        failures.append(f"{what}: {failure.msg}" + (f" ({failure.details})" if failure.details else ""))
    except OSError as failure:
        failures.append(f"{what}: {failure.strerror or failure}")
