"""Publishing a container's ports, in order: look, claim, reserve, apply, forget old flows, activate, commit."""

from __future__ import annotations

import os

from pycni.attach.begin import EveryoneElse, new_record, refuse_if_alive
from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.cni.result import dump, render_result
from pycni.host import netns
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall
from pycni.portmap import claim, plan
from pycni.portmap.facts import read_wanted
from pycni.portmap.holding import holder
from pycni.store import open_store
from pycni.store.host_ports import PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.rtnl import Netlink
    from pycni.portmap.conf import PortmapConf
    from pycni.portmap.facts import Wanted
    from pycni.portmap.plan import Service
    from pycni.store import Store
    from pycni.store.attachments import Record

PLUGIN = "portmap"


def publish(call: Call, netconf: NetConf, conf: PortmapConf, previous: Result) -> Result:
    """What *conf* asks for, undone wholly if it fails; *previous*, with the ports that were chosen here."""
    attachment = Attachment(netconf.name, call.container_id, call.ifname, PART)
    container = open_container(call)
    try:
        firewall = open_firewall(conf.backend)
        with open_store() as store:
            record = new_record(attachment, call, netconf, PLUGIN, netns.identity(container)).replace(
                backend=firewall.name
            )
            kernel = Kernel(None, firewall, EveryoneElse(store, record))
            try:
                _settle(store, call, record)
                wanted = read_wanted(kernel.host, conf, previous, call.ifname, serves_proxy=holder().serves_proxy)
                links = (wanted.facts.host_link,) if wanted.facts.host_link else ()
                link = next(iter(wanted.facts.links.values()), "")
                record = record.replace(host_links=links, bridge=link)
                return _add(store, record, netconf, previous, wanted=wanted, kernel=kernel)
            finally:
                kernel.close()
                firewall.close()
    finally:
        os.close(container)


def _settle(store: Store, call: Call, record: Record) -> None:
    """Release what an earlier ADD of the same id left; CniError 105 where that is alive."""
    old = store.attachments.get(record.attachment)
    if old is not None:
        from pycni.portmap.delete import release_record

        refuse_if_alive(old, record.netns_id)
        release_record(store, old, call.executable)


def _add(store: Store, record: Record, netconf: NetConf, previous: Result, *, wanted: Wanted, kernel: Kernel) -> Result:
    record, services = claim.claim(store, kernel.host, record, wanted)
    try:
        record, services = _reserve(store, kernel.host, record, wanted, services)
        network, rules = record.network_rules, record.attachment_rules
        settings = plan.settings(wanted.conf, services, wanted.facts)
        apply_plan(plan.plan_add(network, rules, settings), kernel, [])
        if any(one.proto == "udp" for one in rules.ports):
            from pycni.portmap import flows

            flows.end_stale(rules.ports)
        holder().activate(record.attachment.owner)
        chosen = plan.published(one for one in services if one.chosen)
        result = previous.replace(published=chosen) if chosen else previous
        store.attachments.commit(record.attachment, dump(render_result(result, netconf.cni_version)))
    except BaseException as failure:
        _undo(store, record, failure)
        raise
    return result


def _reserve(
    store: Store, host: Netlink, record: Record, wanted: Wanted, services: tuple[Service, ...]
) -> tuple[Record, tuple[Service, ...]]:
    """Take the ports from foreign processes too; where the choice is ours and one is taken, choose another."""
    for _ in range(claim.ATTEMPTS):
        try:
            claim.reserve(record.attachment.owner, services)
            return record, services
        except CniError as failure:
            if failure.code != Code.PORT_TAKEN or not any(one.chosen for one in services):
                raise
            record, services = claim.choose_again(store, host, record, wanted)
    claim.reserve(record.attachment.owner, services)
    return record, services


def _undo(store: Store, record: Record, failure: BaseException) -> None:
    from pycni.portmap.delete import release_record

    try:
        release_record(store, record)
    except (CniError, OSError) as second:
        failure.add_note(str(second))
