"""An ADD with limits, in order: find the link, record, plan, apply, commit."""

from __future__ import annotations

import os

from pycni.attach.begin import begin, new_record
from pycni.attach.container import open_container
from pycni.change import ops
from pycni.cni.names import Attachment
from pycni.cni.result import Interface, Result, dump, render_result
from pycni.host import netns
from pycni.host.apply import Kernel, apply_plan, take_back
from pycni.host.firewall import NoFirewall
from pycni.plugins.bandwidth import plan
from pycni.plugins.bandwidth.host_link import host_link_of
from pycni.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.host.link_facts import Link
    from pycni.plugins.bandwidth.conf import BandwidthConf
    from pycni.store import Store
    from pycni.store.attachments import Record


def limit(call: Call, netconf: NetConf, conf: BandwidthConf, previous: Result) -> Result:
    """Limit both directions as *conf* says; *previous* with the intermediate device as one more interface."""
    container = open_container(call)
    try:
        kernel = Kernel(container, NoFirewall())
        try:
            link = host_link_of(kernel.host, container, call.ifname, previous)
            attachment = Attachment(netconf.name, call.container_id, call.ifname, plan.PART)
            # The pair is not ours, but it speaks for the container: the device would outlive it.
            record = new_record(attachment, call, netconf, plan.PART, netns.identity(container)).replace(
                host_links=(link.name,)
            )
            return _limit(record, call, netconf, conf, link=link, kernel=kernel)
        finally:
            kernel.close()
    finally:
        os.close(container)


def _limit(record: Record, call: Call, netconf: NetConf, conf: BandwidthConf, *, link: Link, kernel: Kernel) -> Result:
    with open_store() as store:
        begin(store, call, record, _release)
        inverses: list[ops.Op] = []
        try:
            apply_plan(plan.plan_add(conf, record.attachment, link), kernel, inverses)
            result = netconf.prev_result or Result()
            if conf.egress is not None:
                ifb = kernel.link(ops.HOST, plan.ifb_name(netconf.name, call.container_id))
                made = Interface(name=ifb.name, mac=ifb.mac.hex(":"), mtu=ifb.mtu)
                result = result.replace(interfaces=(*result.interfaces, made))
            store.attachments.commit(record.attachment, dump(render_result(result, netconf.cni_version)))
        except BaseException as failure:
            left = take_back(inverses[::-1], kernel, ())
            for each in left:
                failure.add_note(each)
            if not left:
                store.attachments.remove(record)
            raise
        return result


def _release(store: Store, left: Record, executable: str) -> None:
    from pycni.plugins.bandwidth.delete import release_record  # what an ADD left that was killed

    release_record(store, left, executable)
