"""ADD of the firewall plugin in order: parse, record, facts, plan, apply, commit. No decisions here."""

from __future__ import annotations

import os

from pycni.attach.begin import EveryoneElse, begin, new_record
from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.host import netns, rtnl
from pycni.host.apply import Kernel, apply_plan
from pycni.host.firewall import open_firewall
from pycni.plugins.firewall import plan
from pycni.plugins.firewall.conf import PLUGIN, FirewallConf
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link
    from pycni.store import Store
    from pycni.store.attachments import Record


def add(call: Call, netconf: NetConf) -> Result:
    """ADD: the result of the plugins before, unchanged. Undone wholly if it fails."""
    conf = FirewallConf.parse(netconf)
    previous = netconf.prev_result
    if previous is None:
        raise CniError(
            Code.INVALID_CONFIG, "missing prevResult from earlier plugin", "chain it behind the plugin that attaches"
        )
    if conf.backend == "none":
        return previous
    attachment = Attachment(netconf.name, call.container_id, call.ifname, PLUGIN)
    netns_id = _netns_id(call)
    zoned = uses_firewalld(conf)
    firewall = open_firewall(conf.rules_backend)
    with open_store() as store:
        record = new_record(attachment, call, netconf, PLUGIN, netns_id).replace(backend=firewall.name)
        kernel = Kernel(None, firewall, EveryoneElse(store, record))
        try:
            links = read_links(kernel.host, plan.host_links(previous))
            network = plan.network_rules(conf, attachment, firewall.name, plan.routing_links(links))
            begin(store, call, record, _release)
            # begin() may have opened a port that an ADD which died had closed
            closing = plan.ports_to_close(conf, read_links(kernel.host, plan.host_links(previous)))
            rules = plan.attachment_rules(conf, attachment, previous, closing, firewalld=zoned)
            _apply(store, record.replace(network_rules=network, attachment_rules=rules), kernel)
        finally:
            kernel.close()
            firewall.close()
    return previous


def uses_firewalld(conf: FirewallConf) -> bool:
    """Whether firewalld has to be told: CniError 103 where the configuration wants it and it does not run."""
    if conf.backend == "firewalld":
        from pycni.host.firewalld import open_firewalld

        open_firewalld().close()
        return True
    if conf.backend:
        return False
    from pycni.host.program import find

    if find("firewalld") is None:
        return False
    from pycni.host.firewalld import running

    return running()


def read_links(host: rtnl.Netlink, names: tuple[str, ...]) -> tuple[Link, ...]:
    """The links of these names, without those that are not there."""
    return tuple(link for link in map(host.link, names) if link is not None)


def _apply(store: Store, record: Record, kernel: Kernel) -> None:
    try:
        store.attachments.update(record.replace(addresses=record.attachment_rules.sources))
        apply_plan(plan.plan_add(record.network_rules, record.attachment_rules), kernel, [])
        store.attachments.commit(record.attachment, "")
    except BaseException as failure:
        try:
            _release(store, record, "")
        except CniError as left:
            failure.add_note(left.msg)
        raise


def _release(store: Store, record: Record, executable: str) -> None:
    from pycni.plugins.firewall.delete import release_record  # not an ordinary ADD's

    release_record(store, record, executable)


def _netns_id(call: Call) -> str:
    container = open_container(call)
    try:
        return netns.identity(container)
    finally:
        os.close(container)
