"""DEL of the tuning plugin: put back what the kept file says was there, as far as that is possible, and forget it."""

from __future__ import annotations

import os
import sys

from pycni.attach.container import open_container
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.host import netns, tuning
from pycni.plugins.tuning import plan
from pycni.plugins.tuning.conf import data_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: also of what the reference's plugin changed. A setting that cannot be put back is no failure: the plugin
    that made the interface removes it next."""
    path = plan.kept_path(data_dir(netconf.keys), call.container_id, call.ifname)
    text = tuning.read_file(path)
    if text is None:
        tuning.remove_file(path)  # what an interrupted write may have left
        return
    kept = plan.parse_kept(text)
    owner = Attachment(netconf.name, call.container_id, call.ifname).owner
    if kept is not None and kept.owner not in ("", owner):
        return  # of another network, which has the container's interface of that name
    if kept is not None:
        _restore(call, kept, path)
    tuning.remove_file(path)


def _restore(call: Call, kept: plan.Kept, path: str) -> None:
    try:
        container = open_container(call)
    except CniError:
        return  # gone, with all that was changed in it
    from pycni.host.apply import Kernel
    from pycni.host.firewall import NoFirewall

    kernel = Kernel(container, NoFirewall())
    try:
        if kept.netns_id not in ("", netns.identity(container)):
            return  # another namespace by now, in which nothing was changed
        mine, inherited = plan.divide(kept, _others(path, call.container_id) if kept.sysctls else {})
        for file, other in inherited.items():
            tuning.write_file(file, other.render())
        for op in plan.plan_restore(call.ifname, mine):
            try:
                kernel.do(op)
            except CniError as failure:
                sys.stderr.write(f"tuning: {call.container_id}/{call.ifname}: not restored: {failure}\n")
    finally:
        kernel.close()
        os.close(container)


def _others(path: str, container_id: str) -> dict[str, plan.Kept]:
    """The kept files of the container's other interfaces, by their paths."""
    directory = os.path.dirname(path)
    names = [name for name in os.listdir(directory) if name.startswith(f"{container_id}_") and name.endswith(".json")]
    paths = {f"{directory}/{name}" for name in names} - {path}
    read = {each: plan.parse_kept(tuning.read_file(each)) for each in paths}
    return {each: kept for each, kept in read.items() if kept is not None}
