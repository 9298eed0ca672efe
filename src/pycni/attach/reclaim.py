"""GC: everything of one network that no valid attachment owns."""

from __future__ import annotations

from pycni.attach.release import release_record
from pycni.change import ops
from pycni.cni.errors import CniError, Code
from pycni.cni.names import alias, bridge_alias
from pycni.host import netns
from pycni.host.apply import Kernel
from pycni.host.firewall import NoFirewall
from pycni.store.boot import boot_id, process_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.names import Attachment
    from pycni.store import Store
    from pycni.store.attachments import Record


def reclaim(store: Store, call: Call, conf: NetConf) -> None:
    """Release what is not among conf.valid_attachments; without that list only what is dead for certain.

    CniError 999 names what could not be released; everything else is released all the same (spec, section 2, GC).
    """
    valid = conf.valid_attachments
    failures: list[str] = []
    for record in store.attachments.all(network=conf.name):
        if (is_dead(record) if valid is None else record.attachment not in valid) and not _busy(record):
            try:
                release_record(store, record, call.executable)
            except CniError as failure:
                failures.append(failure.msg)
    if valid is not None:
        with store.transaction():
            try:
                remove_strays(store, conf.name, valid)
            except (OSError, CniError) as failure:
                failures.append(str(failure))
    if failures:
        raise CniError(Code.INTERNAL, f"not everything was reclaimed: {'; '.join(failures)}", "GC again finishes it")


def is_dead(record: Record) -> bool:
    """Of another boot, with its namespace gone, or half made by a process that is no more."""
    if record.boot_id != boot_id():
        return True
    if record.state != "ready":
        return not process_alive(record.pid, record.pid_start)
    return not netns.exists(record.netns, record.netns_id)


def _busy(record: Record) -> bool:
    """Half made by a process that still runs: its own business."""
    return record.state != "ready" and not is_dead(record)


def remove_strays(store: Store, network: str, valid: tuple[Attachment, ...]) -> None:
    """Links that carry our mark and this network's name, but are in no record and not *valid*, as after a lost store;
    and what was made for the network as a whole, once nobody has it any more: VLAN gateways, then the bridge."""
    recorded = {alias(record.attachment) for record in store.attachments.all(network=network)}
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
