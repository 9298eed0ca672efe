"""An ADD that changes something, in order: allowlist, facts, plan, apply, read back."""

from __future__ import annotations

import os
import time

from pycni.attach.container import open_container
from pycni.change import ops
from pycni.change.tuning import same_value
from pycni.cni.names import Attachment
from pycni.cni.result import Result, render_result
from pycni.host import netns, tuning
from pycni.host.apply import Kernel, apply_plan, take_back
from pycni.host.firewall import NoFirewall
from pycni.plugins.tuning import plan
from pycni.store.boot import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.plugins.tuning.conf import TuningConf


def tune(call: Call, netconf: NetConf, conf: TuningConf) -> Result:
    """Change what *conf* says, all of it or nothing; the earlier plugin's result as it is then."""
    plan.refuse_unlisted(conf, tuning.read_file(plan.ALLOWLIST))
    container = open_container(call)
    try:
        kernel = Kernel(container, NoFirewall())
        try:
            return _tune(call, netconf, conf, kernel, netns.identity(container))
        finally:
            kernel.close()
    finally:
        os.close(container)


def _tune(call: Call, netconf: NetConf, conf: TuningConf, kernel: Kernel, netns_id: str) -> Result:
    attachment = Attachment(netconf.name, call.container_id, call.ifname)
    inverses: list[ops.Op] = []
    try:
        keys = [sysctl.key for sysctl in conf.sysctls]
        link = kernel.link(ops.CONTAINER, call.ifname)
        if plan.is_too_small_for_ipv6(conf.mtu):
            plan.refuse_to_lose(kernel.socket(ops.CONTAINER).addresses(link.index), conf)
        sysctls = kernel.inside(tuning.read_sysctls, keys) if keys else {}
        whose = plan.Kept(owner=attachment.owner, netns_id=netns_id, boot_id=boot_id(), since=time.monotonic_ns())
        now = plan.keep(whose, conf, link, sysctls)
        path = plan.kept_path(conf.data_dir, call.container_id, call.ifname)
        kept = plan.merge(now, plan.parse_kept(tuning.read_file(path)))
        apply_plan(plan.plan_add(conf, call, kept), kernel, inverses)
        after = kernel.inside(tuning.read_sysctls, keys) if keys else {}
        became = {s.key: after[s.key] for s in conf.sysctls if s.key in after and not same_value(s.value, after[s.key])}
        if became:
            tuning.write_file(path, kept.replace(became=tuple({**dict(kept.became), **became}.items())).render())
        result = plan.changed_result(conf, call.ifname, netconf.prev_result or Result())
        render_result(result, netconf.cni_version)  # a result that this version cannot say is a failure too
    except BaseException as failure:
        for left in take_back(inverses[::-1], kernel, ()):
            failure.add_note(left)
        raise
    return result
