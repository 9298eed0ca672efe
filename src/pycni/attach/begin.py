"""Begin an ADD: the write-ahead record that lets DEL, the next ADD or GC clean up whatever happens next."""

from __future__ import annotations

import time

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Result
from pycni.host import netns, rtnl
from pycni.store.attachments import Record
from pycni.store.boot import boot_id, own_process, process_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.firewall.rules import AttachmentRules, NetworkRules
    from pycni.store import Store

    Release = Callable[[Store, Record, str], None]
    T = TypeVar("T")


def begin(store: Store, call: Call, fresh: Record, release: Release | None = None) -> None:
    """Write *fresh* (see new_record) into the store, after settling what an earlier ADD of the same id left.

    *release*: how the plugin releases a record, where attach.release.release_record does not do all of it.

    Raises CniError 105 where that attachment is alive, 11 where another process is still at it.
    """
    _settle(store, call, fresh, release)
    store.attachments.begin(fresh)


def begin_with_lease(
    store: Store, call: Call, fresh: Record, conf: NetConf, described: Callable[[Record, Result], tuple[Record, T]]
) -> tuple[Record, T]:
    """`begin` and the IPAM plugin's ADD: what *described* makes of record and lease, which is the record as it is
    written and what the caller wants besides.

    Where the addresses are this host's own all of it is one transaction: lease and record stand, or neither does.
    Whatever fails, nothing is left. CniError as `begin`, *described* and the IPAM plugin.
    """
    from pycni.ipam import delegate  # chained plugins have none

    here = delegate.of_this_host(call, conf) if conf.ipam.text("type") else None
    if here is None and conf.ipam.text("type"):
        return _begin_with_foreign_lease(store, call, fresh, conf, described)
    while True:
        with store.transaction():
            if store.attachments.get(fresh.attachment) is None:
                lease = _with_dns(conf, here.add(call, conf, store) if here is not None else Result())
                record, wanted = described(fresh, lease)
                store.attachments.insert(record)
                return record, wanted
        _settle(store, call, fresh)  # or CniError


def _begin_with_foreign_lease(
    store: Store, call: Call, fresh: Record, conf: NetConf, described: Callable[[Record, Result], tuple[Record, T]]
) -> tuple[Record, T]:
    """`begin_with_lease` where the IPAM plugin keeps its addresses elsewhere."""
    begin(store, call, fresh)
    lease = ask_lease(store, fresh, call, conf)
    try:
        record, wanted = described(fresh, lease)
        store.attachments.update(record)
    except BaseException as failure:
        from pycni.attach.undo import undo_add

        undo_add(failure, store, fresh, call, conf)
        raise
    return record, wanted


def _with_dns(conf: NetConf, lease: Result) -> Result:
    """*lease* with the network's own dns, where it has one (reference: bridge.go, ptp.go)."""
    return lease.replace(dns=conf.dns) if conf.dns_given else lease


def _settle(store: Store, call: Call, fresh: Record, release: Release | None = None) -> None:
    """Release what an earlier ADD of the same id left."""
    old = store.attachments.get(fresh.attachment)
    if old is not None:
        refuse_if_alive(old, fresh.netns_id)
        (release or _release)(store, old, call.executable)


def _release(store: Store, record: Record, executable: str) -> None:
    from pycni.attach.release import release_record  # not an ordinary ADD's

    release_record(store, record, executable)


class EveryoneElse:
    """For the Kernel of the ADD of *own*: the rules of the host's other attachments, where the whole ruleset is gone.

    While it is entered the store's lock is held, as it is by a DEL that removes rules: those of an attachment that goes
    would be put back behind its DEL, and nobody would remove them any more.
    """

    def __init__(self, store: Store, own: Record) -> None:
        self._store = store
        self._own = own
        self._transaction = store.transaction()

    def __enter__(self) -> list[tuple[NetworkRules, AttachmentRules]]:
        self._transaction.__enter__()
        try:
            return [
                (one.network_rules, one.attachment_rules) for one in self._store.attachments.all() if self._has(one)
            ]
        except BaseException as failure:
            self._transaction.__exit__(type(failure))
            raise

    def _has(self, record: Record) -> bool:
        """Whether it has rules in the same packet filter, and is no longer being made nor being deleted."""
        here = record.backend, record.boot_id, record.state
        return record.attachment != self._own.attachment and here == (self._own.backend, self._own.boot_id, "ready")

    def __exit__(self, *failure: object) -> None:
        self._transaction.__exit__(*failure)


def new_record(attachment: Attachment, call: Call, conf: NetConf, plugin: str, netns_id: str) -> Record:
    """The record of an ADD at its very start; the plugin adds what it is going to own."""
    pid, started = own_process()
    return Record(
        attachment=attachment,
        plugin=plugin,
        state="adding",
        pid=pid,
        pid_start=started,
        boot_id=boot_id(),
        netns=call.netns,
        netns_id=netns_id,
        conf=conf.raw.decode(),
        cni_args=call.args,
        cni_path=call.path,
        created=time.time(),
    )


def ask_lease(store: Store, record: Record, call: Call, conf: NetConf) -> Result:
    """What the IPAM plugin gives, empty for a network without, with the network's own dns; where it fails, *record*
    goes."""
    from pycni.ipam import delegate  # chained plugins have none

    if not conf.ipam.text("type"):
        return _with_dns(conf, Result())
    try:
        return _with_dns(conf, delegate.ask("ADD", call, conf, store) or Result())
    except (CniError, OSError):
        # Nothing was leased, nothing was made. A DEL might fail just as the ADD did, and the record would stay.
        store.attachments.remove(record)
        raise


def refuse_if_alive(record: Record, netns_id: str) -> None:
    """CniError where the record stands for something that works or is being worked on; *netns_id*: the new ADD's."""
    if record.boot_id != boot_id():
        return
    if record.state != "ready":
        if process_alive(record.pid, record.pid_start) and record.pid != own_process()[0]:
            raise CniError(
                Code.TRY_AGAIN,
                f"{record.attachment.owner} is being worked on by process {record.pid}",
                "try again when that call has ended",
            )
        return
    if is_live(record, netns_id):
        if record.attachment.part:
            raise CniError(
                Code.ALREADY_ATTACHED,
                f"{record.attachment.owner} has been set up before",
                "DEL it first; an ADD of the same container is not repeated",
            )
        host_link = record.host_links[0] if record.host_links else ""
        raise CniError(
            Code.ALREADY_ATTACHED,
            f'container veth name ("{record.attachment.ifname}") peer provided ("{host_link}") already exists',
            f"{record.attachment.owner} has been attached before: DEL it first",
        )


def is_live(record: Record, netns_id: str) -> bool:
    """Whether the container's namespace and the host's link of this record both still exist; *netns_id* does."""
    if record.netns_id != netns_id and not netns.exists(record.netns, record.netns_id):
        return False
    with rtnl.Netlink() as host:
        return all(host.link(name) is not None for name in record.host_links)
