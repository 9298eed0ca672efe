"""CHECK of the tuning plugin in order: read the container, compare."""

from __future__ import annotations

import os

from pycni.attach.container import open_container
from pycni.cni.errors import CniError, Code, broken
from pycni.cni.names import Attachment
from pycni.host import netns, rtnl, tuning
from pycni.plugins.tuning import plan
from pycni.plugins.tuning.compare import differences
from pycni.plugins.tuning.conf import TuningConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def check(call: Call, netconf: NetConf) -> None:
    """CHECK: CniError 106 names every setting that is not as ADD left it."""
    conf = TuningConf.parse(netconf, call)
    if netconf.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing", "CHECK needs the result of the last ADD")
    if not conf.changes:
        return
    owner = Attachment(netconf.name, call.container_id, call.ifname).owner
    kept = plan.parse_kept(tuning.read_file(plan.kept_path(conf.data_dir, call.container_id, call.ifname)))
    container = open_container(call)
    try:
        with rtnl.in_namespace(container) as inside:
            link = inside.link(call.ifname)
        sysctls = netns.inside(container, tuning.read_sysctls, [sysctl.key for sysctl in conf.sysctls])
    finally:
        os.close(container)
    became = dict(kept.became) if kept is not None and kept.owner == owner else {}
    wrong = differences(conf, call.ifname, link, sysctls, became)
    if wrong:
        raise broken(owner, wrong)
