"""What can be seen of a host's attachments: the records of the store beside the kernel. For `pycni` and for readers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pycni.agent.changed import CHANGED, changes
from pycni.agent.held import bindings_of, key_of, mapped_by_kernel
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.cni.value import Value
from pycni.host.netns import exists, open_netns
from pycni.host.rtnl import Netlink, in_namespace
from pycni.portmap.holding import Binding
from pycni.store import Lease, Record, Store
from pycni.store.boot import boot_id, process_alive
from pycni.store.host_ports import PART
from pycni.store.proxied import read_all

if TYPE_CHECKING:
    from pycni.agent.ports import AgentPorts
    from pycni.host.link_facts import Link

ATTACHED = ("ready", *CHANGED)  # states of an attachment whose ADD is over and whose container is there
_SHOWN = ("plugin", "netns", "bridge", "host_links", "addresses", "cni_args", "result", "created")


class Seen(Value):
    """A record, and the links of it that the kernel has. *state*: see `state_of`."""

    record: Record
    state: str
    links: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For readers: not the configuration, which may hold what is none of their business."""
        fields = {name: getattr(self.record, name) for name in _SHOWN}
        return {"attachment": self.record.attachment.as_dict(), **fields, "state": self.state, "links": self.links}

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> Seen:
        """What `as_json` gave, after its way through JSON; the record has only the shown fields."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value := shown[name], list) else value for name in _SHOWN
        }
        record = Record(Attachment(**shown["attachment"]), **fields)
        return cls(record=record, state=shown["state"], links=tuple(shown["links"]))


def state_of(record: Record, links: Mapping[str, Link]) -> str:
    """What became of an attachment, as one of the words docs/cli.md explains; *links*: all of the host, by name."""
    if record.boot_id != boot_id():
        return "other boot"
    if record.state != "ready":
        busy, dead = ("being made", "half-made") if record.state == "adding" else ("being removed", "half-removed")
        return busy if process_alive(record.pid, record.pid_start) else dead
    if not exists(record.netns, record.netns_id):
        return "netns gone"
    changed = changes(record, links)
    return changed[0].state if changed else "ready"


def see_attachments(store: Store, network: str | None = None) -> list[Seen]:
    """Every attachment of the store, or of *network*, beside the kernel."""
    records = store.attachments.all(network, part="")
    if not records:
        return []
    with Netlink() as kernel:
        links = {link.name: link for link in kernel.links()}
    return [
        Seen(
            record=record,
            state=state_of(record, links),
            links=tuple(name for name in record.host_links if name in links),
        )
        for record in records
    ]


def see_objects(store: Store, attachment: Attachment) -> list[dict[str, str]]:
    """Every object that the attachment should have: kind, name, where, and whether it is there; none without record."""
    record = store.attachments.get(attachment)
    if record is None:
        return []
    inside = "yes" if link_exists(record.netns, attachment.ifname) else "NO"
    found = [_as_object("link", attachment.ifname, "container", inside)]
    with Netlink() as kernel:
        for name in (*record.host_links, *filter(None, [record.bridge])):
            link = kernel.link(name)
            state = "NO" if link is None else "yes, up" if link.up else "yes, DOWN"
            found.append(_as_object("link", name, "host", state))
    for lease in store.leases.all(attachment.network):
        if (lease.container_id, lease.ifname) == (attachment.container_id, attachment.ifname):
            found.append(_as_object("lease", str(lease.address), lease.subnet, "yes"))
    return found


def _as_object(kind: str, name: str, where: str, found: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "where": where, "found": found}


def link_exists(netns: str, ifname: str) -> bool:
    """Whether that interface is in the namespace; False when the namespace cannot be looked into."""
    try:
        fd = open_netns(netns)
    except (CniError, OSError):
        return False
    try:
        with in_namespace(fd) as inside:
            return inside.link(ifname) is not None
    except OSError:
        return False
    finally:
        os.close(fd)


class Published(Value):
    """Host ports of an attachment.

    by_kernel: rules lead on what comes to them; held: by sockets, None where no agent runs that could.
    """

    attachment: Attachment
    binding: Binding
    by_kernel: bool
    held: bool | None

    def as_json(self) -> dict[str, Any]:
        shown = {"attachment": self.attachment.as_dict(), "binding": self.binding.as_dict()}
        return {**shown, "by_kernel": self.by_kernel, "held": self.held}

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> Published:
        attachment, binding = Attachment(**shown["attachment"]), Binding(**shown["binding"])
        return cls(attachment, binding, shown["by_kernel"], shown["held"])


def see_ports(store: Store, network: str | None, ports: AgentPorts | None) -> list[Published]:
    """What the attachments of the store, or of *network*, have published; *ports*: the agent's, in the agent."""
    by_proxy = read_all(store)
    found = []
    for record in store.attachments.all(network, part=PART):
        by_kernel = mapped_by_kernel(record)
        for binding in bindings_of(record, by_proxy.get(record.attachment, ())):
            held = None if ports is None else ports.has(record.attachment.owner, binding)
            found.append(Published(record.attachment, binding, key_of(binding) in by_kernel, held))
    return found


def lease_as_json(lease: Lease) -> dict[str, Any]:
    return {**lease.as_dict(), "address": str(lease.address)}
